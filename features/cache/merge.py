"""Merges several caches of the same features into one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.cache.hdf5 import CacheHeader, RowReader, read_header, read_width, write_cache
from features.cache.parts import parts_folder
from features.cache.tables import make_clip_table, make_failure_table, row_to_dict, row_to_failure
from features.errors import ArtifactError, RuntimeEnvironmentError, SettingsError
from features.types import Failure
from features.utils.files import check_writable, hold_lock, open_atomically
from features.utils.text import format_count, make_printable

_LABEL_COLUMNS = ("label", "group", "split")


@dataclass(frozen=True)
class _InputTrack:
    """One track and the input that holds its rows."""

    input_index: int
    row: dict[str, object]


@dataclass(frozen=True)
class _MergeResult:
    """The union of the inputs, in order of path."""

    tracks: list[_InputTrack]
    failures: list[Failure]
    duplicates: int
    resolved_failures: int
    relabeled: list[str]


@dataclass(frozen=True)
class MergeSummary:
    """What a merge did."""

    inputs: dict[str, tuple[int, int]]  # number of tracks and failures of each
    output: Path
    header: CacheHeader
    duplicates: int  # tracks that an earlier input already had
    resolved_failures: int  # failures of clips for which another input has a track
    relabeled: list[str]  # clips that the inputs label differently
    unmerged_parts: list[str]  # folders of parts that were not merged


def merge_caches(inputs: Sequence[Path], output: Path, *, with_force: bool = False) -> MergeSummary:
    """Write the union of `inputs` to `output`, which may be one of them. Rows are streamed.

    Raises ArtifactError if fingerprints differ or if one path has two contents, SettingsError if `output` is a
    different cache that already exists.
    """
    _check_output(inputs, output, with_force=with_force)
    check_writable(output)
    with hold_lock(output.with_name(f".{output.name}.lock")):
        headers = [read_header(path) for path in inputs]
        _check_specs(inputs, headers)
        union = _merge_headers(inputs, headers)
        _write_merged(inputs, headers, union, output)
    counts = [(len(header.clips), len(header.failures)) for header in headers]
    return MergeSummary(
        inputs=dict(zip(map(str, inputs), counts, strict=True)),
        output=output,
        header=read_header(output),
        duplicates=union.duplicates,
        resolved_failures=union.resolved_failures,
        relabeled=union.relabeled,
        unmerged_parts=[str(parts_folder(path)) for path in inputs if parts_folder(path).is_dir()],
    )


def describe_merge(summary: MergeSummary) -> str:
    """Return one line for each input, one for each decision and one for the result."""
    lines = [f"{p}: {format_count(n, 'track')}, {format_count(f, 'failure')}" for p, (n, f) in summary.inputs.items()]
    if summary.duplicates:
        lines.append(f"{format_count(summary.duplicates, 'track')} in more than one cache, kept once")
    if summary.resolved_failures:
        lines.append(
            f"{format_count(summary.resolved_failures, 'failure')} left out: another cache has the clip's features"
        )
    if summary.relabeled:
        first = make_printable(summary.relabeled[0])
        lines.append(
            f"{format_count(len(summary.relabeled), 'clip')} with another label, group or split in a later cache; "
            f"those of the first cache are kept ({first}…)"
        )
    lines += [f"{folder} holds parts of an unfinished run; they were not merged" for folder in summary.unmerged_parts]
    table, failures = summary.header.clips, format_count(len(summary.header.failures), "failure")
    rows = f"{format_count(len(table), 'track')}, {format_count(int(table.length.sum()), 'row')}, {failures}"
    return "\n".join([*lines, f"{summary.output}: {rows}, fingerprint {summary.header.fingerprint}"])


def _check_output(inputs: Sequence[Path], output: Path, *, with_force: bool) -> None:
    is_input = any(path.exists() and output.exists() and path.samefile(output) for path in inputs)
    if output.exists() and not is_input and not with_force:
        raise SettingsError(f"{output} already exists and is not one of the inputs; use --force to replace it")


def _check_specs(inputs: Sequence[Path], headers: Sequence[CacheHeader]) -> None:
    for path, header in zip(inputs[1:], headers[1:], strict=True):
        if header.fingerprint == headers[0].fingerprint:
            continue
        differences = headers[0].spec.differences(header.spec)
        advice = ""
        if any(line.startswith("reduction_digest") for line in differences):
            advice = (
                "; each reduction was fitted on its own cache: "
                "extract with --reduce none, or with --shard into one output"
            )
        raise ArtifactError(f"{path} holds different features from {inputs[0]} ({'; '.join(differences)}){advice}")


def _merge_headers(inputs: Sequence[Path], headers: Sequence[CacheHeader]) -> _MergeResult:
    tracks: dict[tuple[str, str], _InputTrack] = {}
    failures: dict[str, Failure] = {}
    duplicates, relabeled = 0, set()
    for number, header in enumerate(headers):
        for i in range(len(header.clips)):
            track = _InputTrack(number, row_to_dict(header.clips, i))
            path, view = str(track.row["path"]), str(track.row["view"])
            first = tracks.setdefault((path, view), track)
            if first is track:
                continue
            _check_same_content(inputs, first, track)
            duplicates += 1
            if any(first.row[name] != track.row[name] for name in _LABEL_COLUMNS):
                relabeled.add(path)
        for i in range(len(header.failures)):
            failure = row_to_failure(header.failures, i)
            failures.setdefault(failure.clip.path, failure)
    resolved = {path for path, _ in tracks} & set(failures)
    return _MergeResult(
        tracks=[tracks[key] for key in sorted(tracks)],
        failures=[failures[path] for path in sorted(set(failures) - resolved)],
        duplicates=duplicates,
        resolved_failures=len(resolved),
        relabeled=sorted(relabeled),
    )


def _check_same_content(inputs: Sequence[Path], first: _InputTrack, second: _InputTrack) -> None:
    if first.row["digest"] != second.row["digest"]:
        name = make_printable(str(first.row["path"]))
        raise ArtifactError(
            f"'{name}' is one video in {inputs[first.input_index]} and another in {inputs[second.input_index]} "
            f"(sha256 {str(first.row['digest'])[:12]}… and {str(second.row['digest'])[:12]}…); "
            "extract the stale one again, or give the clips different paths"
        )


def _write_merged(inputs: Sequence[Path], headers: Sequence[CacheHeader], result: _MergeResult, output: Path) -> None:
    table = make_clip_table([track.row for track in result.tracks])
    with_weights = next((header for header in headers if header.weights_file), headers[0])
    width = read_width(inputs[0])
    try:
        with open_atomically(output, size_bytes=int(table.length.sum()) * (2 * width + 8)) as file:
            write_cache(
                file,
                _read_blocks(inputs, result.tracks),
                width=width,
                spec=headers[0].spec,
                reduction=headers[0].reduction,
                reduction_fitted_on=headers[0].reduction_fitted_on,
                clips=table,
                failures=make_failure_table(result.failures),
                weights_file=with_weights.weights_file,
            )
            check_unchanged(inputs, headers)
    except ValueError as error:
        raise ArtifactError(
            f"the rows of an input do not match its header: {error}; check the inputs with: python -m features verify"
        ) from None


def check_unchanged(inputs: Sequence[Path], headers: Sequence[CacheHeader]) -> None:
    """Check that each input still is the file with the given header. Raises RuntimeEnvironmentError if not."""
    for path, header in zip(inputs, headers, strict=True):
        now = read_header(path)
        if (now.content_digest, now.created) != (header.content_digest, header.created):
            raise RuntimeEnvironmentError(f"{path} was replaced while it was being read; run the same command again")


def _read_blocks(
    inputs: Sequence[Path], tracks: Sequence[_InputTrack]
) -> Iterator[tuple[NDArray[np.float16], NDArray[np.float64]]]:
    with RowReader() as reader:
        for track in tracks:
            yield reader.read_track(inputs[track.input_index], track.row)
