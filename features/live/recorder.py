"""Clips that are asked for while a camera is read: their packets are taken at once, written by a thread beside."""

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
    """A clip that is wanted: of what arrived between two moments of the monotonic clock."""

    file: Path
    since: float
    until: float


@dataclass(frozen=True)
class ClipResult:
    """What became of an order. Its text may be shown."""

    file: Path
    seconds: float = 0.0
    """How long the clip is."""
    reason: str = ""
    """Why there is none."""


class ClipRecorder:
    """Takes orders in the thread that reads, which it never holds up; what it finds out is told to `answer`."""

    def __init__(self, packet_tap: PacketTap, on_result: Callable[[ClipResult], object]) -> None:
        self._packet_tap, self._on_result = packet_tap, on_result
        self._requests: queue.SimpleQueue[tuple[ClipRequest, StreamParameters, tuple[EncodedPacket, ...]]] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None

    def submit(self, request: ClipRequest) -> None:
        """The packets are those that are kept now."""
        coding, packets = (
            self._packet_tap.parameters,
            self._packet_tap.buffer.packets_between(request.since, request.until),
        )
        if coding is None or not packets:
            self._on_result(ClipResult(request.file, reason="nothing that came then is kept"))
            return
        self._requests.put((request, coding, packets))
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, daemon=True)
            self._thread.start()

    def _write_all(self) -> None:
        if sys.platform == "linux":  # elsewhere threads have no priority of their own
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _WRITER_NICENESS)
        with suppress(OSError):  # whoever asked is gone
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
    except Exception as error:  # whatever a camera sent, it is watched on
        return ClipResult(request.file, reason=mask_credentials(f"{type(error).__name__}: {error}"))
