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

from features.errors import EnvironmentStopped
from features.utils.files import sweep_temporary, write_atomically

VARIABLE = "HAZARD_CACHE_DIR"

MOST_NOTES = 256
"""Notes of a kind that are kept, the last used ones."""


def kept_folder(kind: str) -> Path | None:
    """$HAZARD_CACHE_DIR/KIND, else `hazard-video/KIND` in the user's folder of caches; None where there can be none."""
    if own := os.environ.get(VARIABLE):
        return Path(own).absolute() / kind
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not caches.is_absolute():  # then it means nothing (XDG Base Directory Specification)
        try:
            caches = Path.home() / ".cache"
        except RuntimeError:  # a user without a home
            return None
    return caches / "hazard-video" / kind


def entry_name(key: Mapping[str, str]) -> str:
    """The name of the entry of a key."""
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:32]


def remember(kind: str, key: Mapping[str, str], value: str) -> None:
    """Notes a value. Where nothing can be written, nothing is noted."""
    if (folder := kept_folder(kind)) is None:
        return
    tree = {"key": dict(key), "value": value, "sha256": _checksum(key, value)}
    with suppress(OSError, EnvironmentStopped):
        make_private(folder)
        write_atomically(folder / f"{entry_name(key)}.json", json.dumps(tree, indent=1).encode())
        keep_newest(folder, MOST_NOTES)


def recall(kind: str, key: Mapping[str, str]) -> str:
    """The value that was noted for this very key; empty where there is none, or it was damaged."""
    if (folder := kept_folder(kind)) is None:
        return ""
    file = folder / f"{entry_name(key)}.json"
    try:
        tree = json.loads(file.read_bytes())
        value = tree["value"]
        if tree["key"] != dict(key) or tree["sha256"] != _checksum(key, value):
            return ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    touch(file)
    return value


def make_private(folder: Path) -> None:
    """A folder for its owner alone, as folders of caches are. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def touch(entry: Path) -> None:
    """Marks an entry as used just now."""
    with suppress(OSError):
        os.utime(entry)


def keep_newest(folder: Path, most: int) -> None:
    """Removes what was used longest ago, and what killed processes left."""
    sweep_temporary(folder)
    used: list[tuple[float, Path]] = []
    for entry in folder.iterdir():
        with suppress(OSError):  # another process may be at the same
            if not entry.name.startswith("."):
                used.append((entry.stat().st_mtime, entry))
    for _, entry in sorted(used, reverse=True)[most:]:
        remove(entry)


def remove(entry: Path) -> None:
    """Removes an entry, a file or a folder, if it can be."""
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with suppress(OSError):
            entry.unlink()


def _checksum(key: Mapping[str, str], value: str) -> str:
    return hashlib.sha256(json.dumps([dict(key), value], sort_keys=True).encode()).hexdigest()
