"""That somebody watches: a small file in a monitor's folder whose age and content tell others, such as the page."""

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
"""A monitor gives a sign every few seconds; one that gave none for so long was killed or hangs."""
_MAX_BYTES = 1 << 20

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Heartbeat:
    """What a monitor last said of itself."""

    cameras: Mapping[str, str] = field(default_factory=dict)
    """The state of each camera that is watched: connecting, live, offline, ended."""
    written_at: float = 0.0
    """When it gave a sign, in seconds since 1970; 0: never."""
    is_over: bool = True
    """It ended politely."""

    def is_fresh(self, now: float) -> bool:
        """Whether somebody watches."""
        return not self.is_over and abs(now - self.written_at) < HEARTBEAT_STALE_SECONDS


@dataclass
class HeartbeatFile:
    """Gives the sign. A disk that does not take it is no reason not to watch."""

    file: Path
    _last_content: bytes = b""
    _is_failing: bool = False

    def write(self, cameras: Mapping[str, str], *, is_over: bool = False) -> None:
        """The file is written where something changed; otherwise it is only touched."""
        content = json.dumps({"is_over": is_over, "cameras": dict(cameras)}).encode()
        try:
            if content == self._last_content:
                os.utime(self.file)
                return
            write_atomically(self.file, content)
            self._last_content, self._is_failing = content, False
        except (OSError, RuntimeEnvironmentError) as error:
            if not self._is_failing:
                log.warning("nobody is told that cameras are watched: %s", error)
            self._last_content, self._is_failing = b"", True


def parse_heartbeat(content: bytes, written_at: float) -> Heartbeat:
    """What a file says that was last touched at `at`; nothing where it is none of ours."""
    try:
        said = json.loads(content[:_MAX_BYTES])
        cameras = {_clean_name(name): str(state) for name, state in said["cameras"].items()}
        return Heartbeat(cameras, written_at, bool(said["is_over"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Heartbeat({}, written_at)


def _clean_name(name: object) -> str:
    return str(name)[:200].encode("utf-8", "backslashreplace").decode()
