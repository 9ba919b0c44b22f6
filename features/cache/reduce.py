"""A cache that kept all of the backbone's numbers becomes a smaller one, as if it had been extracted so."""

from dataclasses import dataclass
from pathlib import Path

from features.cache.consolidate import TrackLocation, fit_reduction, reduce_tracks
from features.cache.hdf5 import CacheHeader, read_header, read_width, verify_cache, write_cache
from features.cache.merge import check_unchanged
from features.cache.parts import parts_folder
from features.cache.reduction import parse_reduction
from features.cache.tables import row_to_dict
from features.errors import ArtifactError, SettingsError
from features.spec import describe_reduction
from features.utils.files import check_writable, hold_lock, open_atomically
from features.utils.text import format_count


@dataclass(frozen=True)
class ReduceSummary:
    """What a reduction did."""

    output: Path
    header: CacheHeader
    widths: tuple[int, int]  # before and after
    unmerged_parts: str  # the folder of parts that are not in the cache yet


def reduce_cache(path: Path, output: Path, reduction: str, *, with_force: bool = False) -> ReduceSummary:
    """Writes to `output` what extraction with this reduction would have given. Rows are streamed.

    Raises ArtefactRefused where the cache is damaged or reduced already, SettingsError for a reduction that does not
    fit it, or where `output` is there already.
    """
    _check_output(path, output, with_force=with_force)
    header = read_header(path)
    _check_not_reduced(path, header)
    width = read_width(path)
    if parse_reduction(reduction, width=width)[0] == "none":
        raise SettingsError("--reduce none would change nothing; name a reduction, as in select:512")
    check_writable(output)
    header = verify_cache(path)
    with hold_lock(output.with_name(f".{output.name}.lock")):
        _write_reduced(path, header, output, reduction)
    return ReduceSummary(
        output=output,
        header=read_header(output),
        widths=(width, read_width(output)),
        unmerged_parts=str(parts_folder(path)) if parts_folder(path).is_dir() else "",
    )


def describe_reduce(summary: ReduceSummary) -> str:
    """One line for the result, one for what was left out."""
    header = summary.header
    held = f"{format_count(len(header.clips), 'track')}, {format_count(int(header.clips.length.sum()), 'row')}"
    how = describe_reduction(header.spec.reduction, header.reduction_rows)
    lines = (
        [f"{summary.unmerged_parts} holds parts of an unfinished run; they were left out"]
        if summary.unmerged_parts
        else []
    )
    lines.append(
        f"{summary.output}: {held} of {summary.widths[1]} features, of {summary.widths[0]} before, "
        f"fingerprint {header.fingerprint}, reduction {how}"
    )
    return "\n".join(lines)


def _check_output(path: Path, output: Path, *, with_force: bool) -> None:
    if path.exists() and output.exists() and path.samefile(output):
        raise SettingsError(f"{output} is the cache itself, and its numbers would be lost; give another output with -o")
    if output.exists() and not with_force:
        raise SettingsError(f"{output} is there already; --force replaces it")


def _check_not_reduced(path: Path, header: CacheHeader) -> None:
    if header.reduction or header.spec.reduction != "none":
        raise ArtifactError(
            f"{path} is reduced already ({header.spec.reduction}), what it left out is gone; "
            "extract with --reduce none to a cache that can be reduced in several ways"
        )


def _write_reduced(path: Path, header: CacheHeader, output: Path, text: str) -> None:
    rows = [row_to_dict(header.clips, i) for i in range(len(header.clips))]
    sources = [TrackLocation(path, table_row, is_raw=True) for table_row in rows]
    reduction, fitted_on = fit_reduction(text, sources, rows)
    assert reduction is not None
    size_bytes = int(header.clips.length.sum()) * (2 * reduction.width + 8)
    with open_atomically(output, size_bytes=size_bytes) as file:
        write_cache(
            file,
            reduce_tracks(sources, reduction),
            width=reduction.width,
            spec=header.spec.model_copy(update={"reduction": text, "reduction_digest": reduction.digest}),
            reduction=reduction,
            reduction_rows=fitted_on,
            clips=header.clips,
            failures=header.failures,
            weights_file=header.weights_file,
        )
        check_unchanged([path], [header])
