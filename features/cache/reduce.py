"""Reduces a full-width cache to a smaller one, with the same result as extracting with that reduction."""

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
    """What `reduce_cache` did."""

    output: Path
    header: CacheHeader
    widths: tuple[int, int]  # before and after
    unmerged_parts: str  # folder of parts that are not in the cache yet, or ""


def reduce_cache(path: Path, output: Path, reduction: str, *, with_force: bool = False) -> ReduceSummary:
    """Write to `output` the cache that extraction with this reduction would have given. Rows are streamed.

    Raises ArtifactError if the cache is damaged or already reduced, SettingsError if the reduction does not fit its
    width or if `output` already exists.
    """
    _check_output(path, output, with_force=with_force)
    header = read_header(path)
    _check_not_reduced(path, header)
    width = read_width(path)
    if parse_reduction(reduction, width=width)[0] == "none":
        raise SettingsError("--reduce none would change nothing; give a reduction such as select:512")
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
    """Return one line for the result and, if parts were left out, one line that says so."""
    header = summary.header
    counts = f"{format_count(len(header.clips), 'track')}, {format_count(int(header.clips.length.sum()), 'row')}"
    how = describe_reduction(header.spec.reduction, header.reduction_fitted_on)
    lines = (
        [f"{summary.unmerged_parts} holds parts of an unfinished run; they were left out"]
        if summary.unmerged_parts
        else []
    )
    lines.append(
        f"{summary.output}: {counts} of {summary.widths[1]} features ({summary.widths[0]} before), "
        f"fingerprint {header.fingerprint}, reduction {how}"
    )
    return "\n".join(lines)


def _check_output(path: Path, output: Path, *, with_force: bool) -> None:
    if path.exists() and output.exists() and path.samefile(output):
        raise SettingsError(f"{output} is the input cache and would lose its features; give another output with -o")
    if output.exists() and not with_force:
        raise SettingsError(f"{output} already exists; use --force to replace it")


def _check_not_reduced(path: Path, header: CacheHeader) -> None:
    if header.reduction or header.spec.reduction != "none":
        raise ArtifactError(
            f"{path} is already reduced ({header.spec.reduction}) and cannot be reduced again; "
            "extract with --reduce none to get a cache that can"
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
            reduction_fitted_on=fitted_on,
            clips=header.clips,
            failures=header.failures,
            weights_file=header.weights_file,
        )
        check_unchanged([path], [header])
