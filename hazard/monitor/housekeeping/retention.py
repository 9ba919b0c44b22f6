"""Pictures and clips of events, kept within an age and a size: the oldest go first."""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)


def remove_old_files(folders: Sequence[Path], *, max_bytes: float, max_days: float, now: float | None = None) -> int:
    """Removes files that are older, and of more than so many bytes the oldest; how many were removed."""
    now = time.time() if now is None else now
    files = sorted(found for folder in folders for found in _list_files(folder))  # (time, bytes, path)
    total, removed = sum(size for _, size, _ in files), 0
    for changed, size, path in files:
        if total <= max_bytes and now - changed <= max_days * 86400:
            break
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("%s cannot be removed: %s", path, error.strerror)
            continue
        total, removed = total - size, removed + 1
    return removed


def _list_files(folder: Path) -> list[tuple[float, int, str]]:
    """Files that are whole; those being written begin with a dot."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_mtime, status.st_size, entry.path))
    except FileNotFoundError:
        return []
    return found
