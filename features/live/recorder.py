"""Records clips while a camera is read: takes their packets at once and writes them in a separate thread."""

import os
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from features.errors import ClipError, RuntimeEnvironmentError
from features.live.clip_writer import write_clip
from features.live.packet_buffer import EncodedPacket, PacketTap, StreamParameters
from features.live.source import mask_credentials

_WRITER_NICENESS = 10


@dataclass(frozen=True)
class ClipRequest:
    """A request for a clip of what arrived between two times of the monotonic clock."""

    file: Path
    since: float
    until: float


@dataclass(frozen=True)
class ClipResult:
    """The result of a clip request. The reason holds no passwords."""

    file: Path
    seconds: float = 0.0
    """Duration of the clip."""
    reason: str = ""
    """Why no clip was written, or ""."""


class ClipRecorder:
    """Accepts requests in the reading thread without blocking it, and passes each result to `on_result`."""

    def __init__(self, packet_tap: PacketTap, on_result: Callable[[ClipResult], object]) -> None:
        self._packet_tap, self._on_result = packet_tap, on_result
        self._requests: queue.SimpleQueue[tuple[ClipRequest, StreamParameters, tuple[EncodedPacket, ...]]] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None

    def submit(self, request: ClipRequest) -> None:
        """Take the packets that are buffered now and queue the clip for writing."""
        parameters = self._packet_tap.parameters
        packets = self._packet_tap.buffer.packets_between(request.since, request.until)
        if parameters is None or not packets:
            self._on_result(ClipResult(request.file, reason="no video of that time is buffered"))
            return
        self._requests.put((request, parameters, packets))
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, daemon=True)
            self._thread.start()

    def _write_all(self) -> None:
        if sys.platform == "linux":  # other systems have no priorities for single threads
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _WRITER_NICENESS)
        with suppress(OSError):  # the parent process is gone
            while True:
                self._on_result(_write_requested_clip(*self._requests.get()))


def _write_requested_clip(
    request: ClipRequest, parameters: StreamParameters, packets: tuple[EncodedPacket, ...]
) -> ClipResult:
    try:
        return ClipResult(request.file, seconds=write_clip(parameters, packets, request.file))
    except ClipError as error:
        return ClipResult(request.file, reason=error.reason)
    except RuntimeEnvironmentError as error:
        return ClipResult(request.file, reason=getattr(error.__cause__, "strerror", None) or str(error))
    except Exception as error:  # no clip may stop the reading of its camera
        return ClipResult(request.file, reason=mask_credentials(f"{type(error).__name__}: {error}"))
