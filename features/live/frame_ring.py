"""A ring of frames in memory that a reader process shares with who watches: bounded, without locks.

Who writes never waits for who reads, unless it is asked to, and overwrites the oldest; what was overwritten before it
was read is counted. There is no lock that a killed process could leave locked: each slot carries its frame's number
before and after the pixels, and whoever reads a slot looks at both.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_JPEG_BYTES = 512 * 1024
_SPARE_SLOTS = 2
"""Slots more than are kept: the writer may be at one while the reader copies the oldest that is kept."""
_POLL_SECONDS = 0.002

_COUNTERS_DTYPE = np.dtype(
    [("written", "i8"), ("taken", "i8"), ("session", "i8"), ("decoded", "i8"), ("skipped", "i8"), ("beat", "f8")]
)
"""`beat`: the monotonic second of the reader's last sign of life; `skipped`: packets passed over to catch up."""


@dataclass(frozen=True)
class RingSlot:
    """A frame on its way; `arrived` by the monotonic clock, `wall` in seconds since 1970."""

    session: int
    seconds: float
    wall: float
    arrived: float
    pixels: NDArray[np.uint8]  # (S, S, 3)
    jpeg: bytes = b""


def _slot_dtype(size: int, *, with_jpeg: bool) -> np.dtype[Any]:
    fields: list[Any] = [
        ("before", "i8"), ("session", "i8"), ("seconds", "f8"), ("wall", "f8"), ("arrived", "f8"),
        ("length", "i8"), ("jpeg", "u1", (MAX_JPEG_BYTES if with_jpeg else 0,)), ("pixels", "u1", (size, size, 3)),
        ("after", "i8"),
    ]  # fmt: skip
    return np.dtype(fields, align=True)


def ring_bytes(size: int, capacity: int, *, with_jpeg: bool) -> int:
    """The memory that a ring takes."""
    return _COUNTERS_DTYPE.itemsize + (capacity + _SPARE_SLOTS) * _slot_dtype(size, with_jpeg=with_jpeg).itemsize


class FrameRing:
    """A view of the shared memory; one process puts, one takes. At most `kept` frames wait."""

    def __init__(self, memory: Any, *, size: int, capacity: int, with_jpeg: bool) -> None:
        kind = _slot_dtype(size, with_jpeg=with_jpeg)
        self._counters = np.frombuffer(memory, _COUNTERS_DTYPE, 1)
        self._slots = np.frombuffer(memory, kind, capacity + _SPARE_SLOTS, offset=_COUNTERS_DTYPE.itemsize)
        self._capacity = capacity

    def read_counter(self, name: str) -> int:
        """One of the counters."""
        return int(self._counters[name][0])

    def increment_counter(self, name: str) -> int:
        """Counts one more; only the reader process may."""
        self._counters[name][0] += 1
        return self.read_counter(name)

    @property
    def heartbeat(self) -> float:
        """When the reader process was last known to live; 0 before it began."""
        return float(self._counters["beat"][0])

    @heartbeat.setter
    def heartbeat(self, now: float) -> None:
        self._counters["beat"][0] = now

    def put(self, slot: RingSlot) -> None:
        """Over the oldest frame, read or not."""
        number = self.read_counter("written")
        place = self._slots[number % len(self._slots)]
        place["before"] = -1
        place["after"] = -1
        place["session"], place["seconds"] = slot.session, slot.seconds
        place["wall"], place["arrived"] = slot.wall, slot.arrived
        length = len(slot.jpeg) if len(slot.jpeg) <= len(place["jpeg"]) else 0
        place["length"] = length
        place["jpeg"][:length] = np.frombuffer(slot.jpeg[:length], np.uint8)
        place["pixels"] = slot.pixels
        place["after"] = number + 1
        place["before"] = number + 1
        self._counters["written"][0] = number + 1

    def put_when_free(self, slot: RingSlot, report_alive: Callable[[], None]) -> None:
        """Once fewer than `kept` frames wait: none is lost."""
        while self.read_counter("written") - self.read_counter("taken") >= self._capacity:
            report_alive()
            time.sleep(_POLL_SECONDS)
        self.put(slot)

    def take(self) -> tuple[list[RingSlot], int]:
        """The frames that wait, oldest first, and how many are lost since the last time."""
        written, taken = self.read_counter("written"), self.read_counter("taken")
        first = max(taken, written - self._capacity)
        slots = [slot for number in range(first, written) if (slot := self._copy_slot(number)) is not None]
        self._counters["taken"][0] = written
        return slots, written - taken - len(slots)

    def _copy_slot(self, number: int) -> RingSlot | None:
        place = self._slots[number % len(self._slots)]
        if place["before"] != number + 1:
            return None
        slot = RingSlot(
            session=int(place["session"]),
            seconds=float(place["seconds"]),
            wall=float(place["wall"]),
            arrived=float(place["arrived"]),
            pixels=place["pixels"].copy(),
            jpeg=place["jpeg"][: int(place["length"])].tobytes(),
        )
        return slot if place["after"] == number + 1 and place["before"] == number + 1 else None
