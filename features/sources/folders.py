"""Clips of folders: the layout tells splits, classes, videos and folders of images."""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from features.errors import RuntimeEnvironmentError, SettingsError
from features.types import SPLIT_ALIASES, VIDEO_SUFFIXES, Clip
from features.utils.file_identity import IMAGE_SUFFIXES

_UCF_GROUP = re.compile(r"(?:v_)?(.+_g\d{2,})_c\d+")


def read_folder(root: Path, suffixes: Collection[str] = VIDEO_SUFFIXES) -> Iterator[Clip]:
    """Yield the clips below a folder: files with one of the `suffixes` and, if these are videos, folders of images.

    The folder holds `train/ val/ test/` folders of class folders, class folders, or files without labels. A folder with
    images but without videos and folders is one clip. Raises SettingsError if split folders are mixed with others,
    RuntimeEnvironmentError if a folder cannot be read.
    """
    has_splits = _has_split_folders(root)
    for file in _walk_clip_files(root, suffixes):
        if file == root:
            yield Clip(path=decode_file_name(root.resolve().name), file=root)
            continue
        parts = PurePosixPath(decode_file_name(file.relative_to(root).as_posix())).parts
        split = SPLIT_ALIASES[parts[0].lower()] if has_splits and len(parts) > 1 else ""
        inner = parts[1:] if split else parts
        label = inner[0] if len(inner) > 1 else ""
        yield Clip(
            path="/".join(parts), file=file, label=label, group=parse_group(strip_video_suffix(inner[-1])), split=split
        )


def decode_file_name(name: str) -> str:
    """Return a file name as text that any file can store: bytes that are not UTF-8 become escapes such as `\\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def strip_video_suffix(name: str) -> str:
    """Return a name without its video suffix.

    A folder of images may also have such a name, that of the video it was made from.
    """
    stem, dot, suffix = name.rpartition(".")
    return stem if dot + suffix.lower() in VIDEO_SUFFIXES else name


def parse_group(name: str) -> str:
    """Return the group in a UCF101-style name, `Basketball_g01` of `v_Basketball_g01_c02`; else an empty text."""
    found = _UCF_GROUP.fullmatch(name)
    return found[1] if found else ""


def _has_split_folders(root: Path) -> bool:
    names = [entry.name for entry in _list_entries(root) if entry.is_dir()]
    splits = [name for name in names if name.lower() in SPLIT_ALIASES]
    if splits and len(splits) < len(names):
        others = ", ".join(sorted(decode_file_name(name) for name in set(names) - set(splits)))
        raise SettingsError(
            f"{root} mixes split folders ({', '.join(sorted(splits))}) with others ({others}); use one layout"
        )
    return bool(splits)


def _walk_clip_files(root: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """Yield video files and folders of images. Each folder is visited once, even if links form a loop."""
    seen: set[tuple[int, int]] = set()
    pending = [root]
    while pending:
        folder = pending.pop()
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        folders, videos, has_images = _scan_folder(folder, suffixes)
        pending += [folder / name for name in folders]
        yield from (folder / name for name in videos)
        if has_images and not folders and not videos:
            yield folder


def _scan_folder(folder: Path, suffixes: Collection[str]) -> tuple[list[str], list[str], bool]:
    """Return the sorted names of the folders and of the videos in a folder, and whether it holds images."""
    folders, videos, has_images = [], [], False
    for entry in _list_entries(folder):
        suffix = entry.name[entry.name.rfind(".") :].lower()  # pathlib would keep every name in memory
        if entry.is_dir():
            folders.append(entry.name)
        elif suffix in suffixes:
            videos.append(entry.name)
        else:
            has_images = has_images or (suffixes is VIDEO_SUFFIXES and suffix in IMAGE_SUFFIXES)
    return sorted(folders), sorted(videos), has_images


def _list_entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a folder in no particular order, without hidden ones. Raises RuntimeEnvironmentError."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise RuntimeEnvironmentError(
            f"folder {folder} cannot be read: {(error.strerror or str(error)).lower()}; fix its permissions"
        ) from error
