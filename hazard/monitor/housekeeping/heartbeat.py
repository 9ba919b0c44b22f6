"""The heartbeat of a monitor: a small file that tells other programs, such as the page, that the monitor runs."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from features.errors import RuntimeEnvironmentError
from features.utils.files import write_atomically

HEARTBEAT_FILE_NAME = "watching.json"
HEARTBEAT_STALE_SECONDS = 20.0
"""Age of the last heartbeat from which a monitor counts as killed or hanging. A running one writes every 5 seconds."""
_MAX_BYTES = 1 << 20

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Heartbeat:
    """The last heartbeat of a monitor."""

    cameras: Mapping[str, str] = field(default_factory=dict)
    """State of each camera: connecting, live, offline or ended."""
    written_at: float = 0.0
    """Time of the heartbeat, in seconds since 1970; 0: never."""
    is_over: bool = True
    """Whether the monitor stopped normally."""

    def is_fresh(self, now: float) -> bool:
        """Check whether the monitor is running at `now`, in seconds since 1970."""
        return not self.is_over and abs(now - self.written_at) < HEARTBEAT_STALE_SECONDS


@dataclass
class HeartbeatFile:
    """The writer of the heartbeat. If the file cannot be written, it logs a warning and the monitor goes on."""

    file: Path
    _last_content: bytes = b""
    _is_failing: bool = False

    def write(self, cameras: Mapping[str, str], *, is_over: bool = False) -> None:
        """Write the file if its content has changed, otherwise only update its time."""
        content = json.dumps({"is_over": is_over, "cameras": dict(cameras)}).encode()
        try:
            if content == self._last_content:
                os.utime(self.file)
                return
            write_atomically(self.file, content)
            self._last_content, self._is_failing = content, False
        except (OSError, RuntimeEnvironmentError) as error:
            if not self._is_failing:
                log.warning(
                    "the heartbeat file cannot be written, so the page shows this monitor as stopped: %s", error
                )
            self._last_content, self._is_failing = b"", True


def parse_heartbeat(content: bytes, written_at: float) -> Heartbeat:
    """Return the heartbeat that a file holds. Any other content gives a stopped monitor without cameras."""
    try:
        values = json.loads(content[:_MAX_BYTES])
        cameras = {_clean_name(name): str(state) for name, state in values["cameras"].items()}
        return Heartbeat(cameras, written_at, bool(values["is_over"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Heartbeat({}, written_at)


def _clean_name(name: object) -> str:
    return str(name)[:200].encode("utf-8", "backslashreplace").decode()
