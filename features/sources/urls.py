"""URLs as sources: how they are recognised, and the clip and file that each of them stands for."""

import hashlib
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from features.errors import SettingsError

if TYPE_CHECKING:
    from features.types import Clip

_URL_START = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)

_TIME_FRAGMENT = re.compile(r"t=(\d*\.?\d+)?(?:,(\d*\.?\d+))?")

_KNOWN_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")


def is_url(source: object) -> bool:
    """Return whether a source is a URL (text such as `https://…`) and not a path."""
    return isinstance(source, str) and _URL_START.match(source) is not None


def parse_source(text: str) -> Path | str:
    """Return the source that a command was given. A URL stays text, since a Path would turn `//` into one slash."""
    return text if is_url(text) else Path(text)


def make_url_clip(url: str, downloads: Path) -> "Clip":
    """Return the clip of a URL. Its file will lie in `downloads`; nothing is downloaded or looked up here.

    A media fragment such as `#t=12,15.5` names a part. Raises SettingsError if the URL, which is stored in caches and
    reports, contains a password, or if the part is not valid.
    """
    from features.types import Clip  # here, so that the commands need no NumPy to start

    base, _, fragment = url.partition("#")
    if "@" in base.partition("://")[2].partition("/")[0]:
        raise SettingsError(
            f"the URL at {base.rpartition('@')[2]} contains a user name or password, which would be stored in the "
            "output; remove it"
        )
    start, end = _parse_time_fragment(url, fragment) if fragment.startswith("t=") else (0.0, None)
    return Clip(path=url, file=downloads / make_download_name(base), start_seconds=start, end_seconds=end)


def make_download_name(url: str) -> str:
    """Return the file name of a download. It is readable, and differs for each URL whose content may differ."""
    name = PurePosixPath(unquote(re.split("[?#]", url, maxsplit=1)[0].partition("://")[2])).name
    readable = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip("._-")[-60:]
    suffix = PurePosixPath(readable).suffix
    suffix = suffix if suffix.lower() in _KNOWN_SUFFIXES else ""
    stem = readable.removesuffix(suffix).replace(".", "_")  # any other suffix would mislead
    digest = hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{stem or 'video'}-{digest}{suffix}"


def _parse_time_fragment(url: str, fragment: str) -> tuple[float, float | None]:
    match = _TIME_FRAGMENT.fullmatch(fragment)
    start, end = (float(match[1] or 0), float(match[2]) if match[2] else None) if match else (0.0, 0.0)
    if end is not None and end <= start:
        raise SettingsError(f"{url}: not a valid part; it is written as #t=START,END in seconds, such as #t=12,15.5")
    return start, end
