"""Which addresses (URLs) may be opened, whoever named them: a user, a page, a redirect.

Only http and https, without a user name or password, on port 80, 443 or one above 1023, and only hosts all of whose IP
addresses are public. Whoever opens a connection opens it to one of the addresses that were checked, never to the name:
between a check and a second look-up the name may have come to mean another host.
"""

import hashlib
import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from features.errors import SettingsError
from features.types import Clip

_URL_START = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)

_TIME_FRAGMENT = re.compile(r"t=(\d*\.?\d+)?(?:,(\d*\.?\d+))?")

_KNOWN_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")


def is_url(source: object) -> bool:
    """Whether a source is an address rather than a path: text such as `https://…`."""
    return isinstance(source, str) and _URL_START.match(source) is not None


def parse_source(text: str) -> Path | str:
    """What a command was given: addresses stay text, since a Path would make one slash of `//`."""
    return text if is_url(text) else Path(text)


def make_url_clip(url: str, downloads: Path) -> Clip:
    """The clip that an address names; its file will lie in `downloads`. Nothing is fetched or looked up.

    A media fragment such as `#t=12,15.5` names a part. Raises SettingsError where the address, which will stand in
    caches and reports, holds a password, or its part is not one.
    """
    base, _, fragment = url.partition("#")
    if "@" in base.partition("://")[2].partition("/")[0]:
        raise SettingsError(
            f"an address at {base.rpartition('@')[2]} holds a user name or password, which would end up in the output; "
            "take it out"
        )
    start, end = _parse_time_fragment(url, fragment) if fragment.startswith("t=") else (0.0, None)
    return Clip(path=url, file=downloads / make_download_name(base), start_seconds=start, end_seconds=end)


def make_download_name(url: str) -> str:
    """What the download of an address is called: readable, and another for each address whose content may differ."""
    name = PurePosixPath(unquote(re.split("[?#]", url, maxsplit=1)[0].partition("://")[2])).name
    readable = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip("._-")[-60:]
    suffix = PurePosixPath(readable).suffix
    suffix = suffix if suffix.lower() in _KNOWN_SUFFIXES else ""
    stem = readable.removesuffix(suffix).replace(".", "_")  # another suffix would tell a reader nothing true
    digest = hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{stem or 'video'}-{digest}{suffix}"


def _parse_time_fragment(url: str, fragment: str) -> tuple[float, float | None]:
    match = _TIME_FRAGMENT.fullmatch(fragment)
    start, end = (float(match[1] or 0), float(match[2]) if match[2] else None) if match else (0.0, 0.0)
    if end is not None and end <= start:
        raise SettingsError(f"{url}: a part is written as #t=START,END in seconds, such as #t=12,15.5")
    return start, end
