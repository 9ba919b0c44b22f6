"""The event log: a line of JSON for each thing that happens, on disk before anybody is told of it.

    {"kind": "event", "id": …, "camera": …, "label": …, "at": …, "over": false, "is_alerted": true, "started": …, …}

The last line of an id says how an event stands. What was killed while it wrote leaves half a line, which is cut off.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from features.utils.files import make_write_error

LOG_FILE_NAME, OLDER_LOG_FILE_NAME = "events.jsonl", "events.1.jsonl"
MAX_LOG_BYTES = 32_000_000
"""A log that is larger becomes the older one, in the place of the one before."""
_TAIL_BYTES = 1_000_000
_BLOCK_BYTES = 65_536

LogEntry = dict[str, Any]


@dataclass
class EventLog:
    """The log of a folder, open at its end."""

    file: Path
    _stream: IO[bytes]

    def append(self, entry: Mapping[str, object]) -> None:
        """One line more, on disk when this returns. Raises EnvironmentStopped where the disk does not take it."""
        try:
            self._stream.write(json.dumps(entry).encode("ascii") + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise make_write_error(error, self.file) from error

    def rotate(self) -> None:
        """Begins a new file where this one has become large."""
        if self._stream.tell() < MAX_LOG_BYTES:
            return
        try:
            self._stream.close()
            os.replace(self.file, self.file.with_name(OLDER_LOG_FILE_NAME))
            self._stream = open(self.file, "ab")  # noqa: SIM115 - `open_event_log` closes it
        except OSError as error:
            raise make_write_error(error, self.file) from error

    def close(self) -> None:
        """Nothing more is written."""
        self._stream.close()


@contextmanager
def open_event_log(folder: Path) -> Iterator[EventLog]:
    """The log of a folder, made if there is none, mended if somebody was killed while writing it."""
    file = folder / LOG_FILE_NAME
    try:
        opened = open(file, "ab")  # noqa: SIM115 - it may be another one by the end
        os.truncate(file, _count_complete_bytes(file))
        opened.seek(0, os.SEEK_END)
    except OSError as error:
        raise make_write_error(error, file) from error
    log = EventLog(file, opened)
    try:
        yield log
    finally:
        log.close()


def read_last_entries(folder: Path, *, max_bytes: int = _TAIL_BYTES) -> list[LogEntry]:
    """What the last so many bytes of the log say, oldest first; lines that nobody of us wrote are passed over."""
    try:
        with open(folder / LOG_FILE_NAME, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - max_bytes))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise make_write_error(error, folder / LOG_FILE_NAME) from error
    return [entry for line in lines[(size > max_bytes) : -1] if (entry := parse_entry(line)) is not None]


def parse_entry(line: bytes) -> LogEntry | None:
    """The entry of a line, or None where it is none."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "kind" in entry and "camera" in entry else None


def _count_complete_bytes(file: Path) -> int:
    """How much of a file its whole lines take."""
    with open(file, "rb") as opened:
        end = opened.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _BLOCK_BYTES)
            opened.seek(start)
            at = opened.read(end - start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
            end = start
    return 0
