"""Results that this machine remembers between runs, in a folder that may be emptied or missing at any time.

The name of each entry is a digest of its key, which holds everything that decides the entry. An entry is used only for
exactly this key.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from features.errors import RuntimeEnvironmentError
from features.utils.files import remove_stale_temporaries, write_atomically

CACHE_DIR_VARIABLE = "HAZARD_CACHE_DIR"

MAX_NOTES = 256
"""Most notes of one kind that are kept; the least recently used ones are removed."""


def find_cache_dir(kind: str) -> Path | None:
    """Return $HAZARD_CACHE_DIR/KIND if that variable is set, else `hazard-video/KIND` in the user's cache folder.

    Returns None if the user has no such folder.
    """
    if own := os.environ.get(CACHE_DIR_VARIABLE):
        return Path(own).absolute() / kind
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not caches.is_absolute():  # a relative path is invalid (XDG Base Directory Specification)
        try:
            caches = Path.home() / ".cache"
        except RuntimeError:  # a user without a home
            return None
    return caches / "hazard-video" / kind


def make_entry_name(key: Mapping[str, str]) -> str:
    """Return the name of the entry of a key."""
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:32]


def write_note(kind: str, key: Mapping[str, str], value: str) -> None:
    """Store a short text under a key. If the folder cannot be written, store nothing."""
    if (folder := find_cache_dir(kind)) is None:
        return
    tree = {"key": dict(key), "value": value, "sha256": _checksum(key, value)}
    with suppress(OSError, RuntimeEnvironmentError):
        make_private_folder(folder)
        write_atomically(folder / f"{make_entry_name(key)}.json", json.dumps(tree, indent=1).encode())
        remove_oldest_entries(folder, MAX_NOTES)


def read_note(kind: str, key: Mapping[str, str]) -> str:
    """Return the text stored under exactly this key, or an empty text if there is none or it is damaged."""
    if (folder := find_cache_dir(kind)) is None:
        return ""
    file = folder / f"{make_entry_name(key)}.json"
    try:
        tree = json.loads(file.read_bytes())
        value = tree["value"]
        if tree["key"] != dict(key) or tree["sha256"] != _checksum(key, value):
            return ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    mark_as_used(file)
    return value


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its owner can open, as cache folders are. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def mark_as_used(entry: Path) -> None:
    """Set the time of last use of an entry to now."""
    with suppress(OSError):
        os.utime(entry)


def remove_oldest_entries(folder: Path, max_entries: int) -> None:
    """Remove the least recently used entries beyond `max_entries`, and leftovers of killed processes."""
    remove_stale_temporaries(folder)
    used: list[tuple[float, Path]] = []
    for entry in folder.iterdir():
        with suppress(OSError):  # another process may remove it at the same time
            if not entry.name.startswith("."):
                used.append((entry.stat().st_mtime, entry))
    for _, entry in sorted(used, reverse=True)[max_entries:]:
        remove_entry(entry)


def remove_entry(entry: Path) -> None:
    """Remove an entry, a file or a folder, if possible."""
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with suppress(OSError):
            entry.unlink()


def _checksum(key: Mapping[str, str], value: str) -> str:
    return hashlib.sha256(json.dumps([dict(key), value], sort_keys=True).encode()).hexdigest()
