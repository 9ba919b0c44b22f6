"""What annotated videos are called."""

import hashlib
import re
from pathlib import PurePosixPath

ANNOTATED_FOLDER = "annotated"
"""In a report's folder."""
_SAFE_NAME = re.compile(r"\w(?:[\w .()+=,@-]*[\w)])?")
_DIGEST_SUFFIX = re.compile(r"-[0-9a-f]{16}$")
_MAX_NAME_BYTES = 120


def annotated_video_path(path: str) -> PurePosixPath:
    """Where the annotated video of a clip lies, below the folder of all: another place for each path.

    A relative path to an MP4 in folders of harmless names stays as it is; any other gets a digest, and keeps its
    folders where these are harmless.
    """
    *folders, last = path.split("/")
    is_kept = all(_is_safe_name(name) and not name.lower().endswith(".mp4") for name in folders) and len(path) <= 400
    stem = last.removesuffix(".mp4")
    if is_kept and stem != last and _is_safe_name(stem) and not _DIGEST_SUFFIX.search(stem):
        return PurePosixPath(path)
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", last)[-60:].strip("._-") or "video"
    digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return PurePosixPath(*(folders if is_kept else ()), f"{readable}-{digest}.mp4")


def _is_safe_name(name: str) -> bool:
    return bool(_SAFE_NAME.fullmatch(name)) and len(name.encode("utf-8", "surrogatepass")) <= _MAX_NAME_BYTES
