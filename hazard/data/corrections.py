"""Corrections: labels that a person gave to clips and segments of video, applied to a cache.

Nothing is extracted again. A correction changes labels; it fills in groups and splits only where they would be unknown.
"""

import csv
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.cache.hdf5 import Cache
from features.cache.tables import ClipTable
from features.errors import SettingsError
from features.sources.manifests import parse_span
from features.spec import ORIGINAL_VIEW
from features.types import add_time_fragment, format_seconds
from features.utils.text import format_count, suggest_name, suggest_path

CSV_COLUMNS = ("path", "label", "start", "end")
FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")
"""First characters of a formula in spreadsheets; our CSV files put an apostrophe before them (OWASP, CSV injection)."""
MIN_COVERED_SHARE = 0.5
"""Share of a cached part that a segment must cover to select the part."""


@dataclass(frozen=True)
class Correction:
    """The correct label of a clip or of a segment of it. An empty label leaves the clip out."""

    path: str
    label: str
    start_seconds: float | None = None
    """Start of the segment, from the clip's start; None selects the whole clip."""
    end_seconds: float | None = None
    """End of the segment; None is the clip's end."""

    @property
    def description(self) -> str:
        """The clip or segment, as messages name it."""
        if self.start_seconds is None:
            return f"'{self.path}'"
        end = "its end" if self.end_seconds is None else f"{format_seconds(self.end_seconds)} s"
        return f"'{self.path}' from {format_seconds(self.start_seconds)} s to {end}"


@dataclass(frozen=True)
class CorrectionResult:
    """What a file of corrections changed."""

    file: Path
    labelled_clips: int
    """Number of clips that now have a label from the file."""
    changed_clips: int
    """Number of these that had another label, or none, before."""
    excluded_clips: int
    digest: str
    """SHA-256 of everything that was changed."""

    @property
    def description(self) -> str:
        """The counts in one line, as a run reports them."""
        labels = format_count(self.labelled_clips, "label")
        left_out = f", {format_count(self.excluded_clips, 'clip')} left out" if self.excluded_clips else ""
        return f"{labels} from {self.file.name} ({self.changed_clips} changed{left_out})"


def read_corrections(file: Path) -> list[Correction]:
    """Read a CSV file with the columns path and label and, for segments, start and end in seconds.

    Removes the apostrophe that protects a cell from being run as a formula. Raises SettingsError, which names the row.
    """
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            _check_columns(file, reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"corrections {file} cannot be read: {getattr(error, 'strerror', error)}") from None
    return [_parse_correction(f"{file}, row {number}", row) for number, row in enumerate(rows, start=2)]


def unescape_cell(cell: str) -> str:
    """Remove the apostrophe that keeps a spreadsheet from running the cell as a formula."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA_STARTS) else cell


def apply_corrections(cache: Cache, file: Path) -> tuple[Cache, CorrectionResult]:
    """Return the cache with the labels of a corrections file; the later of two corrections of one clip counts.

    A row without times selects the clip of that path, or all parts of that file. A row with times selects exactly that
    part if the cache has it, else every part of the file that it covers to MIN_COVERED_SHARE or more. Parts of one file
    get one group. Clips without a split get the split of their group, else train. Raises SettingsError for a clip or
    part that the cache does not hold.
    """
    clips = cache.clips
    files = _get_source_files(clips)
    new_labels = clips.label.astype(object)
    touched = np.zeros(len(clips.path), bool)
    find = partial(
        _find_rows,
        clips=clips,
        files=files,
        rows_of_path=_group_rows_by(clips.path),
        rows_of_file=_group_rows_by(files),
        source=file,
    )
    known = sorted({str(label) for label in clips.label} - {""})
    for correction in read_corrections(file):
        _check_label(file, correction, known)
        rows = find(correction)
        new_labels[rows], touched[rows] = correction.label, True
    labels = new_labels.astype(str)
    table = replace(clips, label=labels)
    table = replace(table, group=_fill_groups(table, files))
    table = replace(table, split=_fill_splits(table, touched & (labels != "")))
    return replace(cache, clips=table), _make_result(file, clips, table, touched)


def _check_columns(file: Path, names: Sequence[str]) -> None:
    for name in ("path", "label"):
        if name not in names:
            found = ", ".join(names) or "nothing"
            raise SettingsError(f"corrections {file}, row 1: no column '{name}', found: {found}")


def _parse_correction(where: str, row: Mapping[str | None, str]) -> Correction:
    if None in row or None in row.values():
        raise SettingsError(f"{where}: expected {sum(key is not None for key in row)} columns, as in row 1")
    cells = {name: unescape_cell((row.get(name) or "").strip()) for name in CSV_COLUMNS}
    if not cells["path"]:
        raise SettingsError(f"{where}, column 'path': empty")
    if not cells["start"] and not cells["end"]:
        return Correction(cells["path"], cells["label"])
    return Correction(cells["path"], cells["label"], *parse_span(where, cells["start"], cells["end"]))


def _check_label(file: Path, correction: Correction, known: Sequence[str]) -> None:
    """Accept a new label, but reject one that looks like a mistyped known label."""
    if correction.label and correction.label not in known:
        hint = suggest_name(correction.label, known, cutoff=0.75)
        if hint.startswith("did you mean"):
            raise SettingsError(
                f"{file}: {correction.description}: the cache has no label '{correction.label}'; {hint}"
            )


def _find_rows(
    correction: Correction,
    *,
    clips: ClipTable,
    files: NDArray[np.str_],
    rows_of_path: Mapping[str, list[int]],
    rows_of_file: Mapping[str, list[int]],
    source: Path,
) -> list[int]:
    """Return the rows of the table that a correction selects, in all views."""
    path = correction.path
    if correction.start_seconds is None and path in rows_of_path:
        return rows_of_path[path]
    file, offset, _ = _split_time_fragment(path)
    if file not in rows_of_file:
        raise SettingsError(
            f"{source}: the cache holds no clip '{path}'; {suggest_path(path, [*rows_of_path, *rows_of_file])}"
        )
    start = offset + (correction.start_seconds or 0.0)
    end = math.inf if correction.end_seconds is None else offset + correction.end_seconds
    if (exact := add_time_fragment(file, round(start, 6), None if math.isinf(end) else round(end, 6))) in rows_of_path:
        return rows_of_path[exact]
    rows = [row for row in rows_of_file[file] if _compute_covered_share(clips, row, start, end) >= MIN_COVERED_SHARE]
    if not rows:
        raise SettingsError(
            f"{source}: no cached part of '{file}' lies at least half within {correction.description}; "
            "extract that part with a manifest that has the columns path, start and end"
        )
    return rows


def _compute_covered_share(clips: ClipTable, row: int, start: float, end: float) -> float:
    _, first, last = _split_time_fragment(str(clips.path[row]))
    last = first + float(clips.duration[row]) if math.isinf(last) else last
    covered = min(end, last) - max(start, first)
    return covered / (last - first) if last > first else 0.0


def _split_time_fragment(path: str) -> tuple[str, float, float]:
    """Return the file that a clip's path names, and the start and end of the segment in seconds."""
    file, marker, times = path.rpartition("#t=")
    try:
        start, _, end = times.partition(",")
        return (file, float(start), float(end) if end else math.inf) if marker else (path, 0.0, math.inf)
    except ValueError:
        return path, 0.0, math.inf


def _get_source_files(clips: ClipTable) -> NDArray[np.str_]:
    return np.array([_split_time_fragment(str(path))[0] for path in clips.path], dtype=np.str_)


def _group_rows_by(column: NDArray[np.str_]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(column.tolist()):
        rows.setdefault(name, []).append(row)
    return rows


def _fill_groups(clips: ClipTable, files: NDArray[np.str_]) -> NDArray[np.str_]:
    """Return the groups; parts of a file without one get the group of its other parts, else the file's path."""
    groups = clips.group.astype(object)
    for file, rows in _group_rows_by(files).items():
        if len({str(clips.path[row]) for row in rows}) > 1 or str(clips.path[rows[0]]) != file:
            known = sorted({groups[row] for row in rows} - {""})
            for row in rows:
                groups[row] = groups[row] or (known[0] if known else file)
    return groups.astype(str)


def _fill_splits(clips: ClipTable, newly_labelled: NDArray[np.bool_]) -> NDArray[np.str_]:
    """Return the splits; a newly labelled clip without one gets that of its group, else train, never test.

    Splits are filled in only if some clips of the cache have one.
    """
    if not (clips.split != "").any():
        return clips.split
    sides = {str(group): str(side) for group, side in zip(clips.group, clips.split, strict=True) if group and side}
    splits = clips.split.astype(object)
    for row in np.flatnonzero(newly_labelled & (clips.split == "")):
        splits[row] = sides.get(str(clips.group[row]), "train")
    return splits.astype(str)


def _make_result(file: Path, before: ClipTable, after: ClipTable, touched: NDArray[np.bool_]) -> CorrectionResult:
    plain = touched & (before.view == ORIGINAL_VIEW)
    labelled = plain & (after.label != "")
    changes = [getattr(after, name)[touched].tolist() for name in ("path", "label", "group", "split")]
    return CorrectionResult(
        file=file,
        labelled_clips=int(labelled.sum()),
        changed_clips=int((labelled & (before.label != after.label)).sum()),
        excluded_clips=int((plain & (after.label == "")).sum()),
        digest=hashlib.sha256(json.dumps(changes).encode()).hexdigest(),
    )
