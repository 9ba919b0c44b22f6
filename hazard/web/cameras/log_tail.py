"""A monitor's event log, read while it is written: what is new since the last look, each whole line once."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hazard.monitor.events.event_log import LOG_FILE_NAME, OLDER_LOG_FILE_NAME, LogEntry, parse_entry

READ_BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 18
"""No line of a monitor is nearly as long; what is longer is passed over."""


@dataclass
class LogTail:
    """Follows the log of a folder. A file stays open, so that what comes before a rotation is not missed."""

    folder: Path
    _file: int | None = None
    _file_id: tuple[int, int] = (0, 0)  # device and inode
    _offset: int = 0
    _has_started: bool = False

    def read_new_entries(self) -> Iterator[LogEntry]:
        """What came since the last call, oldest first; at first all that there is. Half a line waits for its rest.

        Lines of others are passed over. A log that is not there, or that may not be read, has no news.
        """
        if not self._has_started:
            self._has_started = True
            self._open(OLDER_LOG_FILE_NAME)
            yield from self._read_entries()
        while self._is_replaced():
            yield from self._read_entries()  # what was written before it was put away
            before = self._file_id
            if before != _find_file_id(self.folder / OLDER_LOG_FILE_NAME) and self._open(OLDER_LOG_FILE_NAME):
                yield from self._read_entries()  # it was put away more than once meanwhile
            if not self._open(LOG_FILE_NAME):
                return
        yield from self._read_entries()

    def close(self) -> None:
        """Nothing more is read."""
        if self._file is not None:
            os.close(self._file)
        self._file, self._file_id, self._offset = None, (0, 0), 0

    def _is_replaced(self) -> bool:
        name = _find_file_id(self.folder / LOG_FILE_NAME)
        return name is not None and name != self._file_id

    def _open(self, name: str) -> bool:
        opened = open_regular_file(self.folder / name)
        if opened is None:
            return False
        self.close()
        status = os.fstat(opened)
        self._file, self._file_id = opened, (status.st_dev, status.st_ino)
        return True

    def _read_entries(self) -> Iterator[LogEntry]:
        """Entries of the whole lines from here on."""
        if self._file is None:
            return
        if os.fstat(self._file).st_size < self._offset:
            self._offset = 0  # somebody made it anew in its place
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
    """A descriptor of a plain file to read; None where there is none, and for links, pipes and devices."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder_fd)
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(os.fstat(opened).st_mode):
        return opened
    os.close(opened)
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
