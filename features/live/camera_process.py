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

from features.errors import RuntimeEnvironmentError
from features.live.frame_ring import RingSlot, ring_bytes
from features.live.health import CameraHealth, ConnectionEvent, backoff_seconds, update_health
from features.live.reader import OPEN_COMMAND, ReaderPlan, serve_camera
from features.live.recorder import ClipRequest, ClipResult
from features.live.types import CameraCounters, LiveFrame, StatusChange
from features.utils.files import remove_stale_temporaries
from features.utils.worker_pool import START_TIMEOUT_SECONDS, describe_exit

MAX_PENDING_CLIPS = 4
"""Clips of a camera that wait to be written at most: each holds on to its packets."""

log = logging.getLogger(__name__)


class CameraProcess:
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
        size = ring_bytes(plan.preprocessing.size, plan.ring_frames, with_jpeg=plan.thumbnail_width > 0)
        self._memory = context.RawArray("B", size)
        self._ring = plan.open_ring(self._memory)
        self.health = CameraHealth(time.monotonic(), "offline" if is_offline else "connecting")
        self._retry_at: float | None = None  # None: connected, or on the way
        self._dropped_count = self._connection_count = 0
        self._last_wall: datetime | None = None
        self._last_arrived: float | None = None
        self._reason = ""
        self._pending_clips: list[Path] = []
        self._start_process()
        self._connect()

    @property
    def connections(self) -> tuple[Connection, ...]:
        """What there may be news on."""
        return () if self._retry_at is not None or self.health.state == "ended" else (self._connection,)

    @property
    def is_writing(self) -> bool:
        """Whether there are clips that were asked for and not told of yet."""
        return bool(self._pending_clips)

    def record(self, file: Path, *, since: float, until: float) -> None:
        """Asks for a clip, without waiting."""
        file = file.absolute()
        if len(self._pending_clips) == MAX_PENDING_CLIPS:
            self._log_missing_clip(file, f"{MAX_PENDING_CLIPS} others are not written yet")
            return
        try:
            self._connection.send(ClipRequest(file, since, until))
            self._pending_clips.append(file)
        except OSError:
            self._log_missing_clip(file, "its reader is gone")

    def poll(self) -> list[LiveFrame | StatusChange]:
        """One look at everything: frames, the end of a connection, silence, a connection that is due."""
        ended = self._read_messages()  # before the frames: all that was put before the end is then seen too
        found = [item for slot in self._take_slots() for item in self._handle_slot(slot)]
        if ended:
            found += self._handle_connection_end(*ended)
        found += self._update_health("tick", time.monotonic())
        if self._retry_at is not None and time.monotonic() >= self._retry_at:
            self._connect()
        return found

    def counters(self) -> CameraCounters:
        """The camera in numbers."""
        return CameraCounters(
            state=self.health.state,
            decoded=self._ring.read_counter("decoded"),
            picked=self._ring.read_counter("written"),
            dropped=self._dropped_count,
            skipped=self._ring.read_counter("skipped"),
            reconnects=max(0, self._connection_count - 1),
            last_frame_age=None if self._last_arrived is None else time.monotonic() - self._last_arrived,
            reason=self._reason,
        )

    def kill(self) -> None:
        """Ends the process, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self._connection.close()
        self._drop_pending_clips()

    def _start_process(self) -> None:
        self._ring.heartbeat, self._started_at = 0.0, time.monotonic()
        self._connection, theirs = self._context.Pipe()
        arguments = (self._plan, theirs, self._wake, self._memory)
        self._process: BaseProcess = self._context.Process(target=serve_camera, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def _connect(self) -> None:
        self._retry_at = None
        self._connection_count += 1
        if self._ring.heartbeat:
            self._ring.heartbeat = time.monotonic()  # until now it had nothing to do
        with suppress(BrokenPipeError, ConnectionResetError):  # `_read_messages` finds out why
            self._connection.send(OPEN_COMMAND)

    def _read_messages(self) -> tuple[ConnectionEvent, str] | None:
        """The end of a connection, or of the process, and its reason."""
        is_resting = self._retry_at is not None or self.health.state == "ended"
        with suppress(EOFError, ConnectionResetError):
            while self._connection.poll():
                message = self._connection.recv()
                if not isinstance(message, ClipResult):
                    return message
                self._handle_clip_result(message)
            return None if is_resting else self._check_hang()
        if is_resting:  # it is replaced once it has something to do
            self._drop_pending_clips()
            return None
        self._process.join(5)
        if not self._ring.heartbeat:
            raise RuntimeEnvironmentError(f"a reader died while starting ({describe_exit(self._process.exitcode)})")
        return self._restart_process(f"the decoder crashed ({describe_exit(self._process.exitcode)})")

    def _handle_clip_result(self, result: ClipResult) -> None:
        self._pending_clips.remove(result.file)
        if result.reason:
            self._log_missing_clip(result.file, result.reason)
        else:
            facts = {"camera": self.name, "clip": str(result.file), "seconds": round(result.seconds, 3)}
            log.info("camera %s: clip %s of %.1f s", self.name, result.file, result.seconds, extra=facts)

    def _log_missing_clip(self, file: Path, reason: str) -> None:
        facts = {"camera": self.name, "clip": str(file), "reason": reason}
        log.warning("camera %s: no clip %s: %s", self.name, file, reason, extra=facts)

    def _drop_pending_clips(self) -> None:
        """Of a process that is gone."""
        while self._pending_clips:
            file = self._pending_clips.pop()
            with suppress(OSError):
                remove_stale_temporaries(file.parent)
            self._log_missing_clip(file, "its reader ended before it was written")

    def _check_hang(self) -> tuple[ConnectionEvent, str] | None:
        now, beat = time.monotonic(), self._ring.heartbeat
        if not beat:
            if now - self._started_at > START_TIMEOUT_SECONDS:
                raise RuntimeEnvironmentError(
                    f"a reader did not start within {START_TIMEOUT_SECONDS:.0f} s; run the command again"
                )
            return None
        is_hung = now - beat > self._plan.timeouts.hang_seconds
        return self._restart_process(f"the reader hung for {now - beat:.0f} s") if is_hung else None

    def _restart_process(self, reason: str) -> tuple[ConnectionEvent, str]:
        self.kill()
        self._start_process()
        return "closed", reason

    def _take_slots(self) -> list[RingSlot]:
        slots, dropped = self._ring.take()
        self._dropped_count += dropped
        return slots

    def _handle_slot(self, slot: RingSlot) -> list[LiveFrame | StatusChange]:
        wall = datetime.fromtimestamp(slot.wall, UTC)
        told = self._update_health("frame", slot.arrived, wall)
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

    def _handle_connection_end(self, event: ConnectionEvent, reason: str) -> list[LiveFrame | StatusChange]:
        self._reason = reason
        told = self._update_health(event, time.monotonic())
        if event == "closed":
            seconds = backoff_seconds(self.health.failed_attempts, self._random)
            self._retry_at = time.monotonic() + seconds
            facts = {"camera": self.name, "reason": reason, "wait_seconds": round(seconds, 3)}
            log.info("camera %s: %s; connecting again in %.1f s", self.name, reason, seconds, extra=facts)
        return told

    def _update_health(
        self, event: ConnectionEvent, now: float, at: datetime | None = None
    ) -> list[LiveFrame | StatusChange]:
        self.health, news = update_health(self.health, event, now, silence_seconds=self._silence_seconds)
        at, reason = at or datetime.now(UTC), self._reason or "no frames"
        return [StatusChange(self.name, kind, at, self._last_wall, "" if kind == "back" else reason) for kind in news]
