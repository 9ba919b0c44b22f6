"""The event log: one line of JSON for each change of an event or a camera, on disk before its alert is sent.

    {"kind": "event", "id": …, "camera": …, "label": …, "at": …, "over": false, "is_alerted": true, "started": …, …}

The last line of an id holds the current state of that event. A monitor that is killed while it writes leaves an
incomplete line, which is cut off when the log is opened again.
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
"""Size from which the log is renamed to the older log, which it replaces."""
_TAIL_BYTES = 1_000_000
"""Size of the end of the log that a monitor reads when it starts."""
_BLOCK_BYTES = 65_536

LogEntry = dict[str, Any]


@dataclass
class EventLog:
    """The log of a folder, open for appending."""

    file: Path
    _stream: IO[bytes]

    def append(self, entry: Mapping[str, object]) -> None:
        """Append an entry, on disk when this returns. Raises RuntimeEnvironmentError if it cannot be written."""
        try:
            self._stream.write(json.dumps(entry).encode("ascii") + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise make_write_error(error, self.file) from error

    def rotate(self) -> None:
        """Begin a new file if this one has reached its largest size. Raises RuntimeEnvironmentError if that fails."""
        if self._stream.tell() < MAX_LOG_BYTES:
            return
        try:
            self._stream.close()
            os.replace(self.file, self.file.with_name(OLDER_LOG_FILE_NAME))
            self._stream = open(self.file, "ab")  # noqa: SIM115 - `open_event_log` closes it
        except OSError as error:
            raise make_write_error(error, self.file) from error

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


@contextmanager
def open_event_log(folder: Path) -> Iterator[EventLog]:
    """Open the log of a folder. Create it if it does not exist, and cut off an incomplete last line.

    Raises RuntimeEnvironmentError if the file cannot be written.
    """
    file = folder / LOG_FILE_NAME
    try:
        stream = open(file, "ab")  # noqa: SIM115 - `EventLog.close` closes it; `rotate` may replace it
        os.truncate(file, _count_complete_bytes(file))
        stream.seek(0, os.SEEK_END)
    except OSError as error:
        raise make_write_error(error, file) from error
    log = EventLog(file, stream)
    try:
        yield log
    finally:
        log.close()


def read_last_entries(folder: Path, *, max_bytes: int = _TAIL_BYTES) -> list[LogEntry]:
    """Return the entries in the last `max_bytes` of the log, oldest first. Lines of other programs are skipped."""
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
    """Return the entry of a line, or None if the line is not an entry of this log."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "kind" in entry and "camera" in entry else None


def _count_complete_bytes(file: Path) -> int:
    """Return the size of a file up to the end of its last complete line."""
    with open(file, "rb") as opened:
        end = opened.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _BLOCK_BYTES)
            opened.seek(start)
            position = opened.read(end - start).rfind(b"\n")
            if position >= 0:
                return start + position + 1
            end = start
    return 0
