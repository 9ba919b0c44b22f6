"""Clips that are asked for while a camera is read: their packets are taken at once, written by a thread beside."""

import os
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from features.errors import ClipError, EnvironmentStopped
from features.live.clip_writer import write_clip
from features.live.packet_buffer import Coded, Coding, Keeper
from features.live.source import mask_credentials

_NICE = 10


@dataclass(frozen=True)
class ClipOrder:
    """A clip that is wanted: of what arrived between two moments of the monotonic clock."""

    file: Path
    since: float
    until: float


@dataclass(frozen=True)
class ClipAnswer:
    """What became of an order. Its text may be shown."""

    file: Path
    seconds: float = 0.0
    """How long the clip is."""
    reason: str = ""
    """Why there is none."""


class Recorder:
    """Takes orders in the thread that reads, which it never holds up; what it finds out is told to `answer`."""

    def __init__(self, keeper: Keeper, answer: Callable[[ClipAnswer], object]) -> None:
        self._keeper, self._answer = keeper, answer
        self._orders: queue.SimpleQueue[tuple[ClipOrder, Coding, tuple[Coded, ...]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def take(self, order: ClipOrder) -> None:
        """The packets are those that are kept now."""
        coding, packets = self._keeper.coding, self._keeper.ring.between(order.since, order.until)
        if coding is None or not packets:
            self._answer(ClipAnswer(order.file, reason="nothing that came then is kept"))
            return
        self._orders.put((order, coding, packets))
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, daemon=True)
            self._thread.start()

    def _write_all(self) -> None:
        if sys.platform == "linux":  # elsewhere threads have no priority of their own
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        with suppress(OSError):  # whoever asked is gone
            while True:
                self._answer(_written(*self._orders.get()))


def _written(order: ClipOrder, coding: Coding, packets: tuple[Coded, ...]) -> ClipAnswer:
    try:
        return ClipAnswer(order.file, seconds=write_clip(coding, packets, order.file))
    except ClipError as error:
        return ClipAnswer(order.file, reason=error.reason)
    except EnvironmentStopped as error:
        return ClipAnswer(order.file, reason=getattr(error.__cause__, "strerror", None) or str(error))
    except Exception as error:  # whatever a camera sent, it is watched on
        return ClipAnswer(order.file, reason=mask_credentials(f"{type(error).__name__}: {error}"))
