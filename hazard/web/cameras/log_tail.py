"""The reader of a monitor's event log while it grows: each complete line is read once, also across rotation."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hazard.monitor.events.event_log import LOG_FILE_NAME, OLDER_LOG_FILE_NAME, LogEntry, parse_entry

READ_BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 18
"""The longest line that is read. Monitors write much shorter ones; longer lines are skipped."""


@dataclass
class LogTail:
    """The reader of a folder's log. It keeps the file open, so that no lines before a rotation are missed."""

    folder: Path
    _file: int | None = None
    _file_id: tuple[int, int] = (0, 0)  # device and inode
    _offset: int = 0
    _has_started: bool = False

    def read_new_entries(self) -> Iterator[LogEntry]:
        """Yield the entries since the last call, oldest first; the first call yields all. An incomplete line waits.

        Lines that are not entries are skipped. A log that does not exist or cannot be read has no entries.
        """
        if not self._has_started:
            self._has_started = True
            self._open(OLDER_LOG_FILE_NAME)
            yield from self._read_entries()
        while self._is_replaced():
            yield from self._read_entries()  # the lines written before the rotation
            read_id = self._file_id
            if read_id != _find_file_id(self.folder / OLDER_LOG_FILE_NAME) and self._open(OLDER_LOG_FILE_NAME):
                yield from self._read_entries()  # there was more than one rotation meanwhile
            if not self._open(LOG_FILE_NAME):
                return
        yield from self._read_entries()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
        self._file, self._file_id, self._offset = None, (0, 0), 0

    def _is_replaced(self) -> bool:
        file_id = _find_file_id(self.folder / LOG_FILE_NAME)
        return file_id is not None and file_id != self._file_id

    def _open(self, name: str) -> bool:
        descriptor = open_regular_file(self.folder / name)
        if descriptor is None:
            return False
        self.close()
        status = os.fstat(descriptor)
        self._file, self._file_id = descriptor, (status.st_dev, status.st_ino)
        return True

    def _read_entries(self) -> Iterator[LogEntry]:
        """Yield the entries of all complete lines from the offset on."""
        if self._file is None:
            return
        if os.fstat(self._file).st_size < self._offset:
            self._offset = 0  # the file was truncated and written again
        is_skipping = False
        while block := os.pread(self._file, READ_BLOCK_BYTES, self._offset):
            end = block.rfind(b"\n") + 1
            if not end:
                if len(block) < MAX_LINE_BYTES:
                    return
                is_skipping, self._offset = True, self._offset + len(block)
                continue
            self._offset += end
            lines = block[:end].split(b"\n")
            for line in lines[is_skipping:-1]:
                if (entry := _parse_entry(line)) is not None:
                    yield entry
            is_skipping = False


def open_regular_file(path: Path | str, *, folder_fd: int | None = None) -> int | None:
    """Open a regular file and return its descriptor, or None if it does not exist or is a link, pipe or device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder_fd)
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def _parse_entry(line: bytes) -> LogEntry | None:
    try:
        return parse_entry(line) if len(line) < MAX_LINE_BYTES else None
    except RecursionError:  # a hundred thousand brackets
        return None


def _find_file_id(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None
