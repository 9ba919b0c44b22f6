"""Reading of CSV manifests: one row per clip, which may be a part of a longer video."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from features.errors import SettingsError
from features.sources.urls import is_url, make_url_clip
from features.types import SPLIT_ALIASES, SPLITS, Clip, add_time_fragment, format_seconds
from features.utils.text import suggest_name

MANIFEST_COLUMNS = ("path", "label", "group", "split", "start", "end")


def read_manifest(manifest: Path, downloads: Path) -> Iterator[Clip]:
    """Return the clips of a CSV file with the column `path` and any others of MANIFEST_COLUMNS.

    A path is relative to the manifest, or a URL. `start` and `end`, in seconds, limit the clip to a part of a video.
    All parts of a video are in one group, the video, unless the manifest gives another. Raises SettingsError that names
    row and column.
    """
    seen: dict[str, int] = {}
    clips = []
    for number, row in enumerate(read_manifest_rows(manifest), start=2):
        clip = _parse_row(manifest, number, row, downloads)
        if clip.path in seen:
            raise SettingsError(
                f"{manifest}, row {number}, column 'path': '{clip.path}' is already in row {seen[clip.path]}"
            )
        seen[clip.path] = number
        clips.append(clip)
    return _group_by_video(clips)


def read_manifest_rows(manifest: Path) -> list[dict[str | None, str]]:
    """Return the rows of a manifest with all its columns. Raises SettingsError if it cannot be read."""
    try:
        with open(manifest, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(manifest, reader.fieldnames or ())
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"manifest {manifest} cannot be read: {error}") from None


def _check_columns(manifest: Path, names: Sequence[str]) -> None:
    if "path" not in names:
        raise SettingsError(f"manifest {manifest}, row 1: no column 'path', found: {', '.join(names) or 'no columns'}")
    for name in names:
        if name not in MANIFEST_COLUMNS and (hint := suggest_name(name, MANIFEST_COLUMNS, cutoff=0.75)).startswith(
            "did you mean"
        ):
            raise SettingsError(f"manifest {manifest}, row 1: unknown column '{name}'; {hint}")


def _parse_row(manifest: Path, number: int, row: Mapping[str | None, str], downloads: Path) -> Clip:
    where = f"{manifest}, row {number}"
    if None in row or None in row.values():
        raise SettingsError(f"{where}: expected {sum(key is not None for key in row)} columns, as in row 1")
    values = {name: (row.get(name) or "").strip() for name in MANIFEST_COLUMNS}
    if not values["path"]:
        raise SettingsError(f"{where}, column 'path': empty")
    if values["split"] and values["split"].lower() not in SPLIT_ALIASES:
        raise SettingsError(
            f"{where}, column 'split': unknown split '{values['split']}'; expected {', '.join(SPLITS)} or an empty cell"
        )
    start, end = parse_span(where, values["start"], values["end"])
    if is_url(values["path"]):
        clip = make_url_clip(add_time_fragment(values["path"], start, end), downloads)
    else:
        path = PurePosixPath(values["path"]).as_posix()
        clip = Clip(add_time_fragment(path, start, end), manifest.parent / path, start_seconds=start, end_seconds=end)
    return replace(
        clip, label=values["label"], group=values["group"], split=SPLIT_ALIASES.get(values["split"].lower(), "")
    )


def parse_span(where: str, start_text: str, end_text: str) -> tuple[float, float | None]:
    """Return the seconds in the cells `start` and `end`.

    Raises SettingsError if one is wrong; the message begins with `where`.
    """
    start = _parse_seconds(where, "start", start_text, "the beginning") or 0.0
    end = _parse_seconds(where, "end", end_text, "the end")
    if end is not None and end <= start:
        raise SettingsError(
            f"{where}, column 'end': {format_seconds(end)} is not after the start, {format_seconds(start)}"
        )
    return start, end


def _parse_seconds(where: str, column: str, text: str, default: str) -> float | None:
    """Return the seconds in a cell, rounded to the microsecond as in the path of a part; None if the cell is empty."""
    if not text:
        return None
    try:
        seconds = float(text.replace("_", "x"))  # Python would accept 1_000 as a number
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise SettingsError(
            f"{where}, column '{column}': '{text}' is not a number; expected seconds such as 12 or 15.5, "
            f"or an empty cell for {default}"
        )
    if seconds < 0:
        raise SettingsError(f"{where}, column '{column}': {text} is negative; expected seconds from the video's start")
    return round(seconds, 6)


def _group_by_video(clips: Sequence[Clip]) -> Iterator[Clip]:
    """Yield the clips. Parts of a video that have no group get the video as their group."""
    files_with_parts = {clip.file for clip in clips if clip.is_part}
    for clip in clips:
        yield (replace(clip, group=clip.file_path) if (clip.file in files_with_parts and not clip.group) else clip)
