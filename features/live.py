"""Many live cameras at once: one reader process each, watched, killed where it hangs, and connected again.

A decoder that hangs cannot be ended as a thread, only as a process. Frames come through shared memory, in which the
newest few wait for whoever takes them: what is not taken in time is dropped and counted, so that a slow consumer sees
the present, never a growing past.
"""

import logging
import os
import random as randomness
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess

import numpy as np
from numpy.typing import NDArray

from features.errors import EnvironmentStopped, SettingsError
from features.live_reader import OPEN, ReaderPlan, serve_camera
from features.live_ring import Slot, ring_bytes
from features.live_rules import CameraEvent, CameraNews, CameraState, Health, next_wait, step
from features.live_source import PATIENCE, Camera, Patience
from features.pool import START_SECONDS, exit_name, worker_context
from features.spec import Preprocessing

KEPT = 8
"""Frames of each camera that wait at most."""
SILENCE_SECONDS = 20.0
_TICK_SECONDS = 0.25

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LiveFrame:
    """One frame of a camera, ready for the backbone.

    `seconds` are the stream's own, since the first frame of its `session`: a number that grows with each connection,
    and with each leap of the stream's clock. Windows never reach across sessions.
    """

    camera: str
    session: int
    seconds: float
    wall: datetime  # UTC, when it came
    arrived: float  # by the monotonic clock of this machine
    pixels: NDArray[np.uint8]  # (S, S, 3) RGB, as `features.transform.prepare` gives it
    jpeg: bytes = b""
    """The whole picture, small; empty where none was asked for."""


@dataclass(frozen=True)
class Notice:
    """What is told of a camera, once: it is `offline`, it is `back`, or its file has `ended`."""

    camera: str
    kind: CameraNews
    at: datetime  # UTC
    since: datetime | None
    """When the last frame came before; None: never."""
    reason: str = ""
    """Why it is offline; of a replay that ended, `played to its end` or why not."""


@dataclass(frozen=True)
class CameraCounters:
    """A camera in numbers, counted since watching began."""

    state: CameraState
    decoded: int
    """Frames that came."""
    picked: int
    """Frames at the wanted rate: those that were taken, that wait, and that were dropped."""
    dropped: int
    """Picked frames that nobody took in time."""
    skipped: int
    """Packets passed over undecoded because the reader had fallen behind."""
    reconnects: int
    last_frame_age: float | None
    """Seconds since the newest frame that was taken came; None: there was none."""
    reason: str
    """Why the last connection ended."""


class LiveSet:
    """The cameras of one `open_cameras` block."""

    def __init__(self, watched: Sequence["_Watched"], wake: Connection) -> None:
        self._watched, self._wake = watched, wake

    def poll(self, timeout_seconds: float) -> list[LiveFrame | Notice]:
        """What has come since the last call, of each camera in order; waits for the first of it, at most so long."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            self._drain()
            found = [item for watched in self._watched for item in watched.turn()]
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            wait([self._wake, *(one for w in self._watched for one in w.connections)], timeout=min(left, _TICK_SECONDS))

    @property
    def is_over(self) -> bool:
        """Whether all sources are files that were played to their end."""
        return all(watched.health.state == "ended" for watched in self._watched)

    def counters(self) -> dict[str, CameraCounters]:
        """Each camera in numbers, by its name."""
        return {watched.name: watched.counters() for watched in self._watched}

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._wake.fileno(), 65536)


@contextmanager
def open_cameras(
    cameras: Sequence[Camera],
    preprocessing: Preprocessing,
    fps: float,
    *,
    is_paced: bool = True,
    picture_width: int = 0,
    kept: int = KEPT,
    silence_seconds: float = SILENCE_SECONDS,
    patience: Patience = PATIENCE,
    offline: Collection[str] = (),
    random: Callable[[], float] = randomness.random,
) -> Iterator[LiveSet]:
    """Watches cameras, `fps` frames a second of each on the grid that sampling at a rate has, until the block ends.

    Files are played at their own pace, or with `is_paced=False` as fast as frames are taken, then without dropping any.
    `picture_width` asks for a small JPEG of each frame. A camera in `offline` was known to be so before: it is told of
    only when it is back. Raises SettingsError for two cameras of one name and for sources of an unknown kind.
    """
    names = [camera.name for camera in cameras]
    if len(set(names)) < len(names) or not names:
        raise SettingsError(f"expected cameras of different names, got: {', '.join(names) or 'none'}")
    plans = [
        ReaderPlan(camera, preprocessing, fps, kept, picture_width, patience, is_paced)
        for camera in cameras
        if camera.kind  # refused here rather than in its process
    ]
    context = worker_context(("features.live_reader",))
    woken, wake = context.Pipe(duplex=False)
    os.set_blocking(woken.fileno(), False)
    os.set_blocking(wake.fileno(), False)
    watched = [_Watched(plan, context, wake, silence_seconds, random, plan.camera.name in offline) for plan in plans]
    try:
        yield LiveSet(watched, woken)
    finally:
        for one in watched:
            one.kill()
        woken.close()
        wake.close()


class _Watched:
    """One camera, its process, and what is known of both."""

    def __init__(
        self,
        plan: ReaderPlan,
        context: ForkServerContext | SpawnContext,
        wake: Connection,
        silence_seconds: float,
        random: Callable[[], float],
        is_offline: bool,
    ) -> None:
        self.name = plan.camera.name
        self._plan, self._context, self._wake, self._random = plan, context, wake, random
        self._silence_seconds = silence_seconds
        size = ring_bytes(plan.preprocessing.size, plan.kept, with_jpeg=plan.picture_width > 0)
        self._memory = context.RawArray("B", size)
        self._ring = plan.ring(self._memory)
        self.health = Health(time.monotonic(), "offline" if is_offline else "connecting")
        self._retry_at: float | None = None  # None: connected, or on the way
        self._dropped = self._opened = 0
        self._last_wall: datetime | None = None
        self._last_arrived: float | None = None
        self._reason = ""
        self._start()
        self._open()

    @property
    def connections(self) -> tuple[Connection, ...]:
        """What there may be news on."""
        return () if self._retry_at is not None or self.health.state == "ended" else (self._connection,)

    def turn(self) -> list[LiveFrame | Notice]:
        """One look at everything: frames, the end of a connection, silence, a connection that is due."""
        ended = self._heard()  # before the frames: all that was put before the end is then seen too
        found = [item for slot in self._taken() for item in self._with(slot)]
        if ended:
            found += self._lost(*ended)
        found += self._told("tick", time.monotonic())
        if self._retry_at is not None and time.monotonic() >= self._retry_at:
            self._open()
        return found

    def counters(self) -> CameraCounters:
        """The camera in numbers."""
        return CameraCounters(
            state=self.health.state,
            decoded=self._ring.count("decoded"),
            picked=self._ring.count("written"),
            dropped=self._dropped,
            skipped=self._ring.count("skipped"),
            reconnects=max(0, self._opened - 1),
            last_frame_age=None if self._last_arrived is None else time.monotonic() - self._last_arrived,
            reason=self._reason,
        )

    def kill(self) -> None:
        """Ends the process, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _start(self) -> None:
        self._ring.beat, self._started = 0.0, time.monotonic()
        self._connection, theirs = self._context.Pipe()
        arguments = (self._plan, theirs, self._wake, self._memory)
        self._process: BaseProcess = self._context.Process(target=serve_camera, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def _open(self) -> None:
        self._retry_at = None
        self._opened += 1
        if self._ring.beat:
            self._ring.beat = time.monotonic()  # until now it had nothing to do
        with suppress(BrokenPipeError, ConnectionResetError):  # `_heard` finds out why
            self._connection.send(OPEN)

    def _heard(self) -> tuple[CameraEvent, str] | None:
        """The end of a connection, or of the process, and its reason."""
        if self._retry_at is not None or self.health.state == "ended":
            return None
        with suppress(EOFError, ConnectionResetError):
            return self._connection.recv() if self._connection.poll() else self._hung()
        self._process.join(5)
        if not self._ring.beat:
            raise EnvironmentStopped(f"a reader died while starting ({exit_name(self._process.exitcode)})")
        return self._replaced(f"the decoder crashed ({exit_name(self._process.exitcode)})")

    def _hung(self) -> tuple[CameraEvent, str] | None:
        now, beat = time.monotonic(), self._ring.beat
        if not beat:
            if now - self._started > START_SECONDS:
                raise EnvironmentStopped(f"a reader did not start within {START_SECONDS:.0f} s; run the command again")
            return None
        is_hung = now - beat > self._plan.patience.hang_seconds
        return self._replaced(f"the reader hung for {now - beat:.0f} s") if is_hung else None

    def _replaced(self, reason: str) -> tuple[CameraEvent, str]:
        self.kill()
        self._start()
        return "closed", reason

    def _taken(self) -> list[Slot]:
        slots, dropped = self._ring.take()
        self._dropped += dropped
        return slots

    def _with(self, slot: Slot) -> list[LiveFrame | Notice]:
        wall = datetime.fromtimestamp(slot.wall, UTC)
        told = self._told("frame", slot.arrived, wall)
        self._last_wall, self._last_arrived = wall, slot.arrived
        frame = LiveFrame(
            camera=self.name,
            session=slot.session,
            seconds=slot.seconds,
            wall=wall,
            arrived=slot.arrived,
            pixels=slot.pixels,
            jpeg=slot.jpeg,
        )
        return [*told, frame]

    def _lost(self, event: CameraEvent, reason: str) -> list[LiveFrame | Notice]:
        self._reason = reason
        told = self._told(event, time.monotonic())
        if event == "closed":
            seconds = next_wait(self.health.attempts, self._random)
            self._retry_at = time.monotonic() + seconds
            facts = {"camera": self.name, "reason": reason, "wait_seconds": round(seconds, 3)}
            log.info("camera %s: %s; connecting again in %.1f s", self.name, reason, seconds, extra=facts)
        return told

    def _told(self, event: CameraEvent, now: float, at: datetime | None = None) -> list[LiveFrame | Notice]:
        self.health, news = step(self.health, event, now, silence_seconds=self._silence_seconds)
        at, reason = at or datetime.now(UTC), self._reason or "no frames"
        return [Notice(self.name, kind, at, self._last_wall, "" if kind == "back" else reason) for kind in news]
