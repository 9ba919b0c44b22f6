"""Folders and CSV manifests to a list of clips."""

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from features.config import nearest
from features.errors import SettingsError
from features.types import SPLITS, Clip

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp")
) | {".ogv", ".asf", ".vob", ".mxf"}
COLUMNS = ("path", "label", "group", "split", "start", "end")
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


def find_clips(sources: Sequence[Path]) -> list[Clip]:
    """The clips of folders, manifests and single files, sorted by path.

    A folder is read as what it looks like: `train/ val/ test/` of class folders, class folders, or a flat folder
    without labels. Raises SettingsError where a source is absent, a manifest is unreadable or nothing is found.
    """
    clips: dict[str, Clip] = {}
    for source in sources:
        for clip in _read_source(source):
            key = clip.path if clip.path not in clips else f"{safe_text(source.resolve().name)}/{clip.path}"
            if key in clips:
                raise SettingsError(
                    f"two clips are called '{clip.path}': {clips[key].file} and {clip.file}; rename one source"
                )
            clips[key] = Clip(**{**vars(clip), "path": key})
    if not clips:
        named = ", ".join(str(source) for source in sources)
        raise SettingsError(f"no video found in {named}; looked for {' '.join(sorted(VIDEO_SUFFIXES))}")
    return [clips[path] for path in sorted(clips)]


def safe_text(name: str) -> str:
    """A file name as text that any file can store: bytes that are no UTF-8 become escapes such as `\\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _read_source(source: Path) -> Iterator[Clip]:
    if source.is_dir():
        return _read_folder(source)
    if not source.exists():
        raise SettingsError(f"source {source} does not exist; give a folder, a CSV manifest or a video file")
    if source.suffix.lower() == ".csv":
        return _read_manifest(source)
    return iter([Clip(path=safe_text(source.name), file=source)])


def _read_folder(root: Path) -> Iterator[Clip]:
    has_splits = _has_split_folders(root)
    for file in _walk(root):
        parts = PurePosixPath(safe_text(file.relative_to(root).as_posix())).parts
        split = _SPLIT_NAMES[parts[0].lower()] if has_splits and len(parts) > 1 else ""
        inner = parts[1:] if split else parts
        yield Clip(path="/".join(parts), file=file, label=inner[0] if len(inner) > 1 else "", split=split)


def _has_split_folders(root: Path) -> bool:
    names = [entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")]
    splits = [name for name in names if name.lower() in _SPLIT_NAMES]
    if splits and len(splits) < len(names):
        others = ", ".join(sorted(safe_text(name) for name in set(names) - set(splits)))
        raise SettingsError(
            f"{root} mixes split folders ({', '.join(sorted(splits))}) with others ({others}); use one layout"
        )
    return bool(splits)


def _walk(root: Path) -> Iterator[Path]:
    """Files with a video's name, each folder visited once, whatever links there are."""
    seen: set[tuple[int, int]] = set()
    pending = [root]
    while pending:
        folder = pending.pop()
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                pending.append(Path(entry.path))
            elif Path(entry.name).suffix.lower() in VIDEO_SUFFIXES:
                yield Path(entry.path)


def _read_manifest(manifest: Path) -> Iterator[Clip]:
    try:
        with open(manifest, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(manifest, reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"manifest {manifest} cannot be read: {error}") from None
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        clip = _manifest_clip(manifest, number, row)
        if clip.path in seen:
            raise SettingsError(
                f"{manifest}, row {number}, column 'path': '{clip.path}' stands in row {seen[clip.path]} already"
            )
        seen[clip.path] = number
        yield clip


def _check_columns(manifest: Path, names: Sequence[str]) -> None:
    if "path" not in names:
        raise SettingsError(f"manifest {manifest}, row 1: no column 'path', found: {', '.join(names) or 'nothing'}")
    for name in names:
        if name not in COLUMNS and (hint := nearest(name, COLUMNS, closeness=0.75)).startswith("did you mean"):
            raise SettingsError(f"manifest {manifest}, row 1: unknown column '{name}'; {hint}")


def _manifest_clip(manifest: Path, number: int, row: Mapping[str | None, str]) -> Clip:
    where = f"{manifest}, row {number}"
    if None in row or None in row.values():
        raise SettingsError(f"{where}: expected {sum(key is not None for key in row)} columns, as in row 1")
    values = {name: (row.get(name) or "").strip() for name in COLUMNS}
    if not values["path"]:
        raise SettingsError(f"{where}, column 'path': empty")
    if values["split"] and values["split"].lower() not in _SPLIT_NAMES:
        raise SettingsError(f"{where}, column 'split': '{values['split']}'; expected {', '.join(SPLITS)} or nothing")
    for name in ("start", "end"):
        if values[name]:
            raise SettingsError(
                f"{where}, column '{name}': parts of a video are not supported yet; leave the column empty"
            )
    path = PurePosixPath(values["path"]).as_posix()
    split = _SPLIT_NAMES.get(values["split"].lower(), "")
    return Clip(path=path, file=manifest.parent / path, label=values["label"], group=values["group"], split=split)
