"""File names of annotated videos."""

import hashlib
import re
from pathlib import PurePosixPath

ANNOTATED_FOLDER = "annotated"
"""Name of the folder for annotated videos, within a report's folder."""
_SAFE_NAME = re.compile(r"\w(?:[\w .()+=,@-]*[\w)])?")
_DIGEST_SUFFIX = re.compile(r"-[0-9a-f]{16}$")
_MAX_NAME_BYTES = 120


def annotated_video_path(path: str) -> PurePosixPath:
    """Return the path of a clip's annotated video within the annotated folder; each clip gets another one.

    A relative path to an MP4 file is kept if all its names are safe. Any other path gets a digest, and keeps its
    folders if their names are safe.
    """
    *folders, last = path.split("/")
    keeps_folders = (
        all(_is_safe_name(name) and not name.lower().endswith(".mp4") for name in folders) and len(path) <= 400
    )
    stem = last.removesuffix(".mp4")
    if keeps_folders and stem != last and _is_safe_name(stem) and not _DIGEST_SUFFIX.search(stem):
        return PurePosixPath(path)
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", last)[-60:].strip("._-") or "video"
    digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return PurePosixPath(*(folders if keeps_folders else ()), f"{readable}-{digest}.mp4")


def _is_safe_name(name: str) -> bool:
    return bool(_SAFE_NAME.fullmatch(name)) and len(name.encode("utf-8", "surrogatepass")) <= _MAX_NAME_BYTES
