"""Controls the process of one camera: starts it, receives its messages, kills it if it hangs, tells it to reconnect."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from features.errors import RuntimeEnvironmentError
from features.live.frame_ring import RingSlot, ring_bytes
from features.live.health import CameraHealth, ConnectionEvent, backoff_seconds, update_health
from features.live.reader import OPEN_COMMAND, ReaderPlan, serve_camera
from features.live.recorder import ClipRequest, ClipResult
from features.live.types import CameraCounters, LiveFrame, StatusChange
from features.utils.files import remove_stale_temporaries
from features.utils.worker_pool import START_TIMEOUT_SECONDS, describe_exit

if TYPE_CHECKING:  # Windows has no ForkServerContext
    from multiprocessing.context import ForkServerContext, SpawnContext

MAX_PENDING_CLIPS = 4
"""Most clips of a camera that wait to be written. Each one holds its packets in memory."""

log = logging.getLogger(__name__)


class CameraProcess:
    """One camera, its process and its state."""

    def __init__(
        self,
        plan: ReaderPlan,
        context: "ForkServerContext | SpawnContext",
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
        self._retry_at: float | None = None  # None while connected or connecting
        self._dropped_count = self._connection_count = 0
        self._last_wall: datetime | None = None
        self._last_arrived: float | None = None
        self._reason = ""
        self._pending_clips: list[Path] = []
        self._start_process()
        self._connect()

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The connection to wait on; empty while no message is expected."""
        return () if self._retry_at is not None or self.health.state == "ended" else (self._connection,)

    @property
    def is_writing(self) -> bool:
        """True while results of requested clips are outstanding."""
        return bool(self._pending_clips)

    def record(self, file: Path, *, since: float, until: float) -> None:
        """Request a clip without waiting for it."""
        file = file.absolute()
        if len(self._pending_clips) == MAX_PENDING_CLIPS:
            self._log_missing_clip(file, f"{MAX_PENDING_CLIPS} other clips are still waiting to be written")
            return
        try:
            self._connection.send(ClipRequest(file, since, until))
            self._pending_clips.append(file)
        except OSError:
            self._log_missing_clip(file, "the reader process has ended")

    def poll(self) -> list[LiveFrame | StatusChange]:
        """Return what is new, and reconnect if it is time to.

        Checks for frames, the end of a connection, silence and a hung process.
        """
        ended = self._read_messages()  # before the frames, so that all frames put before the end are taken
        items = [item for slot in self._take_slots() for item in self._handle_slot(slot)]
        if ended:
            items += self._handle_connection_end(*ended)
        items += self._update_health("tick", time.monotonic())
        if self._retry_at is not None and time.monotonic() >= self._retry_at:
            self._connect()
        return items

    def counters(self) -> CameraCounters:
        """Return the counters of the camera."""
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
        """Kill the process, even if it hangs, and report its unfinished clips as missing."""
        self._process.kill()
        self._process.join()
        self._connection.close()
        self._drop_pending_clips()

    def _start_process(self) -> None:
        self._ring.heartbeat, self._started_at = 0.0, time.monotonic()
        self._connection, child_connection = self._context.Pipe()
        arguments = (self._plan, child_connection, self._wake, self._memory)
        self._process: BaseProcess = self._context.Process(target=serve_camera, args=arguments, daemon=True)
        self._process.start()
        child_connection.close()

    def _connect(self) -> None:
        self._retry_at = None
        self._connection_count += 1
        if self._ring.heartbeat:
            self._ring.heartbeat = time.monotonic()  # an idle process sends no heartbeat
        with suppress(BrokenPipeError, ConnectionResetError):  # `_read_messages` reports why
            self._connection.send(OPEN_COMMAND)

    def _read_messages(self) -> tuple[ConnectionEvent, str] | None:
        """Handle the messages of the process.

        Returns the end of a connection, or of the process, and its reason; otherwise None.
        """
        is_idle = self._retry_at is not None or self.health.state == "ended"
        with suppress(EOFError, ConnectionResetError):
            while self._connection.poll():
                message = self._connection.recv()
                if not isinstance(message, ClipResult):
                    return message
                self._handle_clip_result(message)
            return None if is_idle else self._check_hang()
        if is_idle:  # the process is replaced at the next connection
            self._drop_pending_clips()
            return None
        self._process.join(5)
        if not self._ring.heartbeat:
            raise RuntimeEnvironmentError(
                f"a reader process ended while starting ({describe_exit(self._process.exitcode)})"
            )
        return self._restart_process(f"the decoder crashed ({describe_exit(self._process.exitcode)})")

    def _handle_clip_result(self, result: ClipResult) -> None:
        self._pending_clips.remove(result.file)
        if result.reason:
            self._log_missing_clip(result.file, result.reason)
        else:
            facts = {"camera": self.name, "clip": str(result.file), "seconds": round(result.seconds, 3)}
            log.info("camera %s: clip %s saved (%.1f s)", self.name, result.file, result.seconds, extra=facts)

    def _log_missing_clip(self, file: Path, reason: str) -> None:
        facts = {"camera": self.name, "clip": str(file), "reason": reason}
        log.warning("camera %s: clip %s not saved: %s", self.name, file, reason, extra=facts)

    def _drop_pending_clips(self) -> None:
        """Report the clips of a process that ended as missing, and remove their temporary files."""
        while self._pending_clips:
            file = self._pending_clips.pop()
            with suppress(OSError):
                remove_stale_temporaries(file.parent)
            self._log_missing_clip(file, "the reader process ended before the clip was written")

    def _check_hang(self) -> tuple[ConnectionEvent, str] | None:
        now, heartbeat = time.monotonic(), self._ring.heartbeat
        if not heartbeat:
            if now - self._started_at > START_TIMEOUT_SECONDS:
                raise RuntimeEnvironmentError(
                    f"a reader process did not start within {START_TIMEOUT_SECONDS:.0f} s; run the command again"
                )
            return None
        is_hung = now - heartbeat > self._plan.timeouts.hang_seconds
        return self._restart_process(f"the reader process hung for {now - heartbeat:.0f} s") if is_hung else None

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
        changes = self._update_health("frame", slot.arrived, wall)
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
        return [*changes, frame]

    def _handle_connection_end(self, event: ConnectionEvent, reason: str) -> list[LiveFrame | StatusChange]:
        self._reason = reason
        changes = self._update_health(event, time.monotonic())
        if event == "closed":
            seconds = backoff_seconds(self.health.failed_attempts, self._random)
            self._retry_at = time.monotonic() + seconds
            facts = {"camera": self.name, "reason": reason, "wait_seconds": round(seconds, 3)}
            log.info("camera %s: %s; connecting again in %.1f s", self.name, reason, seconds, extra=facts)
        return changes

    def _update_health(
        self, event: ConnectionEvent, now: float, at: datetime | None = None
    ) -> list[LiveFrame | StatusChange]:
        self.health, kinds = update_health(self.health, event, now, silence_seconds=self._silence_seconds)
        at, reason = at or datetime.now(UTC), self._reason or "no frames"
        return [StatusChange(self.name, kind, at, self._last_wall, "" if kind == "back" else reason) for kind in kinds]
