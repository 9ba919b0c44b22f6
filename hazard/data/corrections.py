"""What a person said of clips and stretches of video → the labels of what a cache holds already.

Nothing is extracted again: a correction changes labels, and groups and splits where these would be unknown.
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
"""What spreadsheets take for a formula: our CSV files put an apostrophe before it (OWASP, CSV injection)."""
MIN_COVERED_SHARE = 0.5
"""A cached part is meant by a stretch that covers so much of it."""


@dataclass(frozen=True)
class Correction:
    """What is right, said of a clip or of a stretch of it. An empty label: the clip is to be left out."""

    path: str
    label: str
    start_seconds: float | None = None
    """From the clip's start; None is the whole clip."""
    end_seconds: float | None = None
    """None is the clip's end."""

    @property
    def description(self) -> str:
        """As one names it."""
        if self.start_seconds is None:
            return f"'{self.path}'"
        end = "its end" if self.end_seconds is None else f"{format_seconds(self.end_seconds)} s"
        return f"'{self.path}' from {format_seconds(self.start_seconds)} s to {end}"


@dataclass(frozen=True)
class CorrectionResult:
    """What became of a file of corrections."""

    file: Path
    labelled_clips: int
    """Clips that have a label of theirs now."""
    changed_clips: int
    """How many of these had another one, or none, before."""
    excluded_clips: int
    digest: str
    """Of all that was changed."""

    @property
    def description(self) -> str:
        """What a run says of it."""
        left_out = f", {format_count(self.excluded_clips, 'clip')} left out" if self.excluded_clips else ""
        return f"{format_count(self.labelled_clips, 'label')} from {self.file.name} ({self.changed_clips} changed{left_out})"


def read_corrections(file: Path) -> list[Correction]:
    """The rows of a CSV file with the columns path, label and, where a stretch is meant, start and end in seconds.

    An apostrophe before what a spreadsheet would take for a formula is undone. Raises SettingsError that names the row.
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
    """A cell without the apostrophe that keeps a spreadsheet from running it."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA_STARTS) else cell


def apply_corrections(cache: Cache, file: Path) -> tuple[Cache, CorrectionResult]:
    """The cache with the labels that a file of corrections gives; of two that mean the same clip the later counts.

    A row without times means the clip of that path, or all parts of that file. A row with times means the very part if
    the cache has it, else every part of the file of which LEAST_INSIDE lies within. Parts of one file get one group,
    and clips without a split the one that their group has, else train. Raises SettingsError for what is not there.
    """
    clips = cache.clips
    files = _get_source_files(clips)
    wanted = clips.label.astype(object)
    touched = np.zeros(len(clips.path), bool)
    find = partial(
        _find_rows,
        clips=clips,
        files=files,
        rows_of=_group_rows_by(clips.path),
        of_file=_group_rows_by(files),
        source=file,
    )
    known = sorted({str(label) for label in clips.label} - {""})
    for correction in read_corrections(file):
        _check_label(file, correction, known)
        rows = find(correction)
        wanted[rows], touched[rows] = correction.label, True
    labels = wanted.astype(str)
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
    """A new label is welcome, a mistyped one is not."""
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
    rows_of: Mapping[str, list[int]],
    of_file: Mapping[str, list[int]],
    source: Path,
) -> list[int]:
    """The rows of the table that a correction is about, of all views."""
    path = correction.path
    if correction.start_seconds is None and path in rows_of:
        return rows_of[path]
    file, offset, _ = _parse_part(path)
    if file not in of_file:
        raise SettingsError(f"{source}: the cache holds no clip '{path}'; {suggest_path(path, [*rows_of, *of_file])}")
    start = offset + (correction.start_seconds or 0.0)
    end = math.inf if correction.end_seconds is None else offset + correction.end_seconds
    if (exact := add_time_fragment(file, round(start, 6), None if math.isinf(end) else round(end, 6))) in rows_of:
        return rows_of[exact]
    rows = [row for row in of_file[file] if _compute_covered_share(clips, row, start, end) >= MIN_COVERED_SHARE]
    if not rows:
        raise SettingsError(
            f"{source}: the cache holds no part of '{file}' of which half lies within {correction.description}; "
            "extract that part by a manifest with the columns path, start and end"
        )
    return rows


def _compute_covered_share(clips: ClipTable, row: int, start: float, end: float) -> float:
    _, first, last = _parse_part(str(clips.path[row]))
    last = first + float(clips.duration[row]) if math.isinf(last) else last
    within = min(end, last) - max(start, first)
    return within / (last - first) if last > first else 0.0


def _parse_part(path: str) -> tuple[str, float, float]:
    """The file that a clip's path names, and the stretch of it that is meant."""
    file, mark, times = path.rpartition("#t=")
    try:
        start, _, end = times.partition(",")
        return (file, float(start), float(end) if end else math.inf) if mark else (path, 0.0, math.inf)
    except ValueError:
        return path, 0.0, math.inf


def _get_source_files(clips: ClipTable) -> NDArray[np.str_]:
    return np.array([_parse_part(str(path))[0] for path in clips.path], dtype=np.str_)


def _group_rows_by(column: NDArray[np.str_]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(column.tolist()):
        rows.setdefault(name, []).append(row)
    return rows


def _fill_groups(clips: ClipTable, files: NDArray[np.str_]) -> NDArray[np.str_]:
    """Parts of one file without a group get that of its other parts, else the file's path."""
    groups = clips.group.astype(object)
    for file, rows in _group_rows_by(files).items():
        if len({str(clips.path[row]) for row in rows}) > 1 or str(clips.path[rows[0]]) != file:
            known = sorted({groups[row] for row in rows} - {""})
            for row in rows:
                groups[row] = groups[row] or (known[0] if known else file)
    return groups.astype(str)


def _fill_splits(clips: ClipTable, newly_labelled: NDArray[np.bool_]) -> NDArray[np.str_]:
    """Where clips have splits, one that was given a label is on its group's side, else in train: never in test."""
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
