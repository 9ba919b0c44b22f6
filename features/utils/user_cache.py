"""What this machine remembers from run to run: a folder that may be emptied at any time, and that nobody has to have.

Each entry is named by a digest of its key, all that decides it, and is used for that very key alone.
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
"""Notes of a kind that are kept, the last used ones."""


def find_cache_dir(kind: str) -> Path | None:
    """$HAZARD_CACHE_DIR/KIND, else `hazard-video/KIND` in the user's folder of caches; None where there can be none."""
    if own := os.environ.get(CACHE_DIR_VARIABLE):
        return Path(own).absolute() / kind
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not caches.is_absolute():  # then it means nothing (XDG Base Directory Specification)
        try:
            caches = Path.home() / ".cache"
        except RuntimeError:  # a user without a home
            return None
    return caches / "hazard-video" / kind


def make_entry_name(key: Mapping[str, str]) -> str:
    """The name of the entry of a key."""
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:32]


def write_note(kind: str, key: Mapping[str, str], value: str) -> None:
    """Notes a value. Where nothing can be written, nothing is noted."""
    if (folder := find_cache_dir(kind)) is None:
        return
    tree = {"key": dict(key), "value": value, "sha256": _checksum(key, value)}
    with suppress(OSError, RuntimeEnvironmentError):
        make_private_folder(folder)
        write_atomically(folder / f"{make_entry_name(key)}.json", json.dumps(tree, indent=1).encode())
        remove_oldest_entries(folder, MAX_NOTES)


def read_note(kind: str, key: Mapping[str, str]) -> str:
    """The value that was noted for this very key; empty where there is none, or it was damaged."""
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
    """A folder for its owner alone, as folders of caches are. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def mark_as_used(entry: Path) -> None:
    """Marks an entry as used just now."""
    with suppress(OSError):
        os.utime(entry)


def remove_oldest_entries(folder: Path, max_entries: int) -> None:
    """Removes what was used longest ago, and what killed processes left."""
    remove_stale_temporaries(folder)
    used: list[tuple[float, Path]] = []
    for entry in folder.iterdir():
        with suppress(OSError):  # another process may be at the same
            if not entry.name.startswith("."):
                used.append((entry.stat().st_mtime, entry))
    for _, entry in sorted(used, reverse=True)[max_entries:]:
        remove_entry(entry)


def remove_entry(entry: Path) -> None:
    """Removes an entry, a file or a folder, if it can be."""
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with suppress(OSError):
            entry.unlink()


def _checksum(key: Mapping[str, str], value: str) -> str:
    return hashlib.sha256(json.dumps([dict(key), value], sort_keys=True).encode()).hexdigest()
