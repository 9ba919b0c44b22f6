"""Identity of a clip's file: its size, modification time and sha256. A folder of images counts as one file."""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from features.errors import ClipError
from features.types import Clip

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png"))


def read_size_and_mtime(file: Path) -> tuple[int, int]:
    """Return size in bytes and modification time in nanoseconds.

    For a folder of images: the sum of the sizes and the latest time. Raises OSError.
    """
    status = os.stat(file)
    if not stat.S_ISDIR(status.st_mode):
        return status.st_size, status.st_mtime_ns
    stats = [os.stat(image) for image in list_images(file)]
    return sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=status.st_mtime_ns)


def compute_content_digest(file: Path) -> str:
    """Return the sha256 of the bytes of a file, or of the names and bytes of the images in a folder. Raises OSError."""
    if not file.is_dir():
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    digest = hashlib.sha256()
    for image in list_images(file):
        with open(image, "rb") as opened:
            digest.update(os.fsencode(image.name) + b"\0" + hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def identify(clip: Clip) -> Clip:
    """Return the clip with the digest, size and time of its file. Raises ClipError if the file cannot be read."""
    try:
        if not clip.file.is_file() and not (clip.file.is_dir() and any(list_images(clip.file))):
            os.stat(clip.file)  # raises the right error if the file is absent
            raise ClipError("open", "not a regular file")
        size_bytes, mtime_ns = read_size_and_mtime(clip.file)
        digest = _cached_digest(clip.file, size_bytes, mtime_ns)
    except OSError as error:
        raise ClipError("open", (error.strerror or str(error)).lower()) from None
    return replace(clip, digest=digest, size_bytes=size_bytes, mtime_ns=mtime_ns)


@lru_cache(maxsize=64)
def _cached_digest(file: Path, size_bytes: int, mtime_ns: int) -> str:
    """Return the digest; one process computes it once for all parts of a long video, and for a clip that then fails."""
    return compute_content_digest(file)


def list_images(folder: Path) -> Iterator[Path]:
    """Return the images of a folder, sorted by name. This need not be their order in time."""
    names = [e.name for e in os.scandir(folder) if not e.name.startswith(".") and e.is_file()]
    return (folder / name for name in sorted(names) if Path(name).suffix.lower() in IMAGE_SUFFIXES)
