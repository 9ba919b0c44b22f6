"""One camera as its process's parent sees it: started, heard, killed where it hangs, told to connect again."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from features.errors import EnvironmentStopped
from features.live.frame_ring import Slot, ring_bytes
from features.live.health import CameraEvent, Health, next_wait, step
from features.live.reader import OPEN, ReaderPlan, serve_camera
from features.live.recorder import ClipAnswer, ClipOrder
from features.live.types import CameraCounters, LiveFrame, Notice
from features.utils.files import sweep_temporary
from features.utils.worker_pool import START_SECONDS, exit_name

MOST_ORDERS = 4
"""Clips of a camera that wait to be written at most: each holds on to its packets."""

log = logging.getLogger(__name__)


class Watched:
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
        self._orders: list[Path] = []
        self._start()
        self._open()

    @property
    def connections(self) -> tuple[Connection, ...]:
        """What there may be news on."""
        return () if self._retry_at is not None or self.health.state == "ended" else (self._connection,)

    @property
    def is_writing(self) -> bool:
        """Whether there are clips that were asked for and not told of yet."""
        return bool(self._orders)

    def record(self, file: Path, *, since: float, until: float) -> None:
        """Asks for a clip, without waiting."""
        file = file.absolute()
        if len(self._orders) == MOST_ORDERS:
            self._refused(file, f"{MOST_ORDERS} others are not written yet")
            return
        try:
            self._connection.send(ClipOrder(file, since, until))
            self._orders.append(file)
        except OSError:
            self._refused(file, "its reader is gone")

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
        self._lose_clips()

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
        is_resting = self._retry_at is not None or self.health.state == "ended"
        with suppress(EOFError, ConnectionResetError):
            while self._connection.poll():
                message = self._connection.recv()
                if not isinstance(message, ClipAnswer):
                    return message
                self._answered(message)
            return None if is_resting else self._hung()
        if is_resting:  # it is replaced once it has something to do
            self._lose_clips()
            return None
        self._process.join(5)
        if not self._ring.beat:
            raise EnvironmentStopped(f"a reader died while starting ({exit_name(self._process.exitcode)})")
        return self._replaced(f"the decoder crashed ({exit_name(self._process.exitcode)})")

    def _answered(self, answer: ClipAnswer) -> None:
        self._orders.remove(answer.file)
        if answer.reason:
            self._refused(answer.file, answer.reason)
        else:
            facts = {"camera": self.name, "clip": str(answer.file), "seconds": round(answer.seconds, 3)}
            log.info("camera %s: clip %s of %.1f s", self.name, answer.file, answer.seconds, extra=facts)

    def _refused(self, file: Path, reason: str) -> None:
        facts = {"camera": self.name, "clip": str(file), "reason": reason}
        log.warning("camera %s: no clip %s: %s", self.name, file, reason, extra=facts)

    def _lose_clips(self) -> None:
        """Of a process that is gone."""
        while self._orders:
            file = self._orders.pop()
            with suppress(OSError):
                sweep_temporary(file.parent)
            self._refused(file, "its reader ended before it was written")

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
