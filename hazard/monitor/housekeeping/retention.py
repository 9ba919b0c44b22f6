"""Deletion of old snapshots and clips, by age and by total size."""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)


def remove_old_files(folders: Sequence[Path], *, max_bytes: float, max_days: float, now: float | None = None) -> int:
    """Remove files older than `max_days`, then the oldest until at most `max_bytes` are left. Returns their number.

    `now` is in seconds since 1970. A file that cannot be removed is a warning in the log.
    """
    now = time.time() if now is None else now
    files = sorted(file for folder in folders for file in _list_files(folder))  # (time, bytes, path)
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
    """Return (time, bytes, path) of the complete files. Files in the process of writing begin with a dot."""
    files = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                    status = entry.stat(follow_symlinks=False)
                    files.append((status.st_mtime, status.st_size, entry.path))
    except FileNotFoundError:
        return []
    return files
