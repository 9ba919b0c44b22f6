"""A monitor's event log, read while it is written: what is new since the last look, each whole line once."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hazard.monitor.events.event_log import LOG, OLDER, Entry, parsed

BLOCK_BYTES = 1 << 20
LONGEST_LINE = 1 << 18
"""No line of a monitor is nearly as long; what is longer is passed over."""


@dataclass
class LogTail:
    """Follows the log of a folder. A file stays open, so that what comes before a rotation is not missed."""

    folder: Path
    _file: int | None = None
    _name: tuple[int, int] = (0, 0)  # device and inode
    _at: int = 0
    _is_begun: bool = False

    def news(self) -> Iterator[Entry]:
        """What came since the last call, oldest first; at first all that there is. Half a line waits for its rest.

        Lines of others are passed over. A log that is not there, or that may not be read, has no news.
        """
        if not self._is_begun:
            self._is_begun = True
            self._open(OLDER)
            yield from self._rest()
        while self._is_replaced():
            yield from self._rest()  # what was written before it was put away
            before = self._name
            if before != _name_of(self.folder / OLDER) and self._open(OLDER):
                yield from self._rest()  # it was put away more than once meanwhile
            if not self._open(LOG):
                return
        yield from self._rest()

    def close(self) -> None:
        """Nothing more is read."""
        if self._file is not None:
            os.close(self._file)
        self._file, self._name, self._at = None, (0, 0), 0

    def _is_replaced(self) -> bool:
        name = _name_of(self.folder / LOG)
        return name is not None and name != self._name

    def _open(self, name: str) -> bool:
        opened = open_plain(self.folder / name)
        if opened is None:
            return False
        self.close()
        status = os.fstat(opened)
        self._file, self._name = opened, (status.st_dev, status.st_ino)
        return True

    def _rest(self) -> Iterator[Entry]:
        """Entries of the whole lines from here on."""
        if self._file is None:
            return
        if os.fstat(self._file).st_size < self._at:
            self._at = 0  # somebody made it anew in its place
        is_skipping = False
        while block := os.pread(self._file, BLOCK_BYTES, self._at):
            end = block.rfind(b"\n") + 1
            if not end:
                if len(block) < LONGEST_LINE:
                    return
                is_skipping, self._at = True, self._at + len(block)
                continue
            self._at += end
            lines = block[:end].split(b"\n")
            for line in lines[is_skipping:-1]:
                if (entry := _entry(line)) is not None:
                    yield entry
            is_skipping = False


def open_plain(path: Path | str, *, folder: int | None = None) -> int | None:
    """A descriptor of a plain file to read; None where there is none, and for links, pipes and devices."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(os.fstat(opened).st_mode):
        return opened
    os.close(opened)
    return None


def _entry(line: bytes) -> Entry | None:
    try:
        return parsed(line) if len(line) < LONGEST_LINE else None
    except RecursionError:  # a hundred thousand brackets
        return None


def _name_of(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None
