"""A bounded ring of frames in memory shared by a reader process and its parent, without locks.

The writer overwrites the oldest frame and never waits for the parent, except in `put_when_free`. Frames overwritten
before they were taken are counted. A killed process cannot leave a lock behind: each slot holds its frame's number
before and after the pixels, and a frame is taken only if both match.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_JPEG_BYTES = 512 * 1024
_SPARE_SLOTS = 2
"""Slots beyond the capacity: the writer may fill one while the oldest waiting frame is copied."""
_POLL_SECONDS = 0.002

_COUNTERS_DTYPE = np.dtype(
    [("written", "i8"), ("taken", "i8"), ("session", "i8"), ("decoded", "i8"), ("skipped", "i8"), ("heartbeat", "f8")]
)
"""`heartbeat`: monotonic time of the reader's last sign of life; `skipped`: packets skipped to catch up."""


@dataclass(frozen=True)
class RingSlot:
    """A frame in the ring. `arrived` is the time of the monotonic clock, `wall` is in seconds since 1970."""

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
    """Return the memory that a ring takes, in bytes."""
    return _COUNTERS_DTYPE.itemsize + (capacity + _SPARE_SLOTS) * _slot_dtype(size, with_jpeg=with_jpeg).itemsize


class FrameRing:
    """A view of the shared memory. One process puts frames, one takes them. At most `capacity` frames wait."""

    def __init__(self, memory: Any, *, size: int, capacity: int, with_jpeg: bool) -> None:
        slot_dtype = _slot_dtype(size, with_jpeg=with_jpeg)
        self._counters = np.frombuffer(memory, _COUNTERS_DTYPE, 1)
        self._slots = np.frombuffer(memory, slot_dtype, capacity + _SPARE_SLOTS, offset=_COUNTERS_DTYPE.itemsize)
        self._capacity = capacity

    def read_counter(self, name: str) -> int:
        """Return one of the counters."""
        return int(self._counters[name][0])

    def increment_counter(self, name: str) -> int:
        """Add one to a counter and return it. Only the reader process may call this."""
        self._counters[name][0] += 1
        return self.read_counter(name)

    @property
    def heartbeat(self) -> float:
        """Monotonic time of the last sign of life of the reader process; 0 before it started."""
        return float(self._counters["heartbeat"][0])

    @heartbeat.setter
    def heartbeat(self, now: float) -> None:
        self._counters["heartbeat"][0] = now

    def put(self, slot: RingSlot) -> None:
        """Write a frame over the oldest one, whether it was taken or not."""
        number = self.read_counter("written")
        record = self._slots[number % len(self._slots)]
        record["before"] = -1
        record["after"] = -1
        record["session"], record["seconds"] = slot.session, slot.seconds
        record["wall"], record["arrived"] = slot.wall, slot.arrived
        length = len(slot.jpeg) if len(slot.jpeg) <= len(record["jpeg"]) else 0
        record["length"] = length
        record["jpeg"][:length] = np.frombuffer(slot.jpeg[:length], np.uint8)
        record["pixels"] = slot.pixels
        record["after"] = number + 1
        record["before"] = number + 1
        self._counters["written"][0] = number + 1

    def put_when_free(self, slot: RingSlot, report_alive: Callable[[], None]) -> None:
        """Wait until fewer than `capacity` frames wait, then write a frame: none is lost."""
        while self.read_counter("written") - self.read_counter("taken") >= self._capacity:
            report_alive()
            time.sleep(_POLL_SECONDS)
        self.put(slot)

    def take(self) -> tuple[list[RingSlot], int]:
        """Return the waiting frames, oldest first, and the number of frames lost since the last call."""
        written, taken = self.read_counter("written"), self.read_counter("taken")
        first = max(taken, written - self._capacity)
        slots = [slot for number in range(first, written) if (slot := self._copy_slot(number)) is not None]
        self._counters["taken"][0] = written
        return slots, written - taken - len(slots)

    def _copy_slot(self, number: int) -> RingSlot | None:
        record = self._slots[number % len(self._slots)]
        if record["before"] != number + 1:
            return None
        slot = RingSlot(
            session=int(record["session"]),
            seconds=float(record["seconds"]),
            wall=float(record["wall"]),
            arrived=float(record["arrived"]),
            pixels=record["pixels"].copy(),
            jpeg=record["jpeg"][: int(record["length"])].tobytes(),
        )
        return slot if record["after"] == number + 1 and record["before"] == number + 1 else None
