"""Reads many live cameras at once, with one reader process each that is restarted if it hangs.

A decoder that hangs can only be stopped if it runs in a process of its own. Frames arrive through shared memory, which
holds the newest few. Frames that are not taken in time are dropped and counted, so that a slow consumer sees recent
frames instead of a growing backlog.
"""

import os
import random as randomness
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path

from features.errors import SettingsError
from features.live.camera_process import CameraProcess
from features.live.reader import ReaderPlan
from features.live.source import DEFAULT_TIMEOUTS, Camera, Timeouts
from features.live.types import CameraCounters, LiveFrame, StatusChange
from features.spec import Preprocessing
from features.utils.worker_pool import make_worker_context

RING_FRAMES = 8
"""Most frames of a camera that wait to be taken."""
SILENCE_SECONDS = 20.0
_POLL_SECONDS = 0.25


class LiveCameras:
    """The cameras of one `open_cameras` block."""

    def __init__(self, processes: Sequence[CameraProcess], wake: Connection) -> None:
        self._processes, self._wake = processes, wake

    def poll(self, timeout_seconds: float) -> list[LiveFrame | StatusChange]:
        """Return all frames and status changes since the last call, one camera after another.

        If there are none, waits up to `timeout_seconds` for the first one.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            self._drain_wake_pipe()
            items = [item for process in self._processes for item in process.poll()]
            left_seconds = deadline - time.monotonic()
            if items or left_seconds <= 0:
                return items
            connections = [connection for process in self._processes for connection in process.connections]
            wait([self._wake, *connections], timeout=min(left_seconds, _POLL_SECONDS))

    @property
    def is_over(self) -> bool:
        """True if all sources are files that were played to their end."""
        return all(process.health.state == "ended" for process in self._processes)

    def record(self, camera: str, file: Path, *, since: float, until: float) -> None:
        """Request an MP4 file of what a camera sent between two past times of the monotonic clock.

        The clip starts at the last keyframe before `since`, or at the oldest one in the buffer. The camera's process
        writes the whole file or none. This call does not wait for it. A clip that cannot be written is a warning in the
        log.
        """
        {process.name: process for process in self._processes}[camera].record(file, since=since, until=until)

    @property
    def is_writing(self) -> bool:
        """True while a requested clip is being written. Unfinished clips are lost when the block ends."""
        return any(process.is_writing for process in self._processes)

    def counters(self) -> dict[str, CameraCounters]:
        """Return the counters of each camera by its name."""
        return {process.name: process.counters() for process in self._processes}

    def _drain_wake_pipe(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._wake.fileno(), 65536)


@contextmanager
def open_cameras(
    cameras: Sequence[Camera],
    preprocessing: Preprocessing,
    fps: float,
    *,
    is_paced: bool = True,
    thumbnail_width: int = 0,
    ring_frames: int = RING_FRAMES,
    silence_seconds: float = SILENCE_SECONDS,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
    clip_seconds: float = 0.0,
    preload: Sequence[str] = (),
    offline_cameras: Collection[str] = (),
    random: Callable[[], float] = randomness.random,
) -> Iterator[LiveCameras]:
    """Read cameras until the block ends, picking `fps` frames per second of each as sampling at a rate does.

    Files are played at their own pace. With `is_paced=False` they are played as fast as frames are taken, and none is
    dropped. With `thumbnail_width` each frame comes with a small JPEG. The last `clip_seconds` of each camera are
    buffered for clips, except for files that are not paced. Cameras in `offline_cameras` were already reported as
    offline: only their return is reported. `preload` names modules to import in the fork server that the reader
    processes share with other processes of this program. Raises SettingsError for two cameras with the same name and
    for an unknown kind of source.
    """
    names = [camera.name for camera in cameras]
    if len(set(names)) < len(names) or not names:
        raise SettingsError(f"expected cameras with different names, got: {', '.join(names) or 'none'}")
    plans = [
        ReaderPlan(camera, preprocessing, fps, ring_frames, thumbnail_width, timeouts, is_paced, clip_seconds)
        for camera in cameras
        if camera.kind  # raises SettingsError here rather than in the reader process
    ]
    context = make_worker_context(("features.live.reader", *preload))
    wake_reader, wake_writer = context.Pipe(duplex=False)
    os.set_blocking(wake_reader.fileno(), False)
    os.set_blocking(wake_writer.fileno(), False)
    processes = [
        CameraProcess(plan, context, wake_writer, silence_seconds, random, plan.camera.name in offline_cameras)
        for plan in plans
    ]
    try:
        yield LiveCameras(processes, wake_reader)
    finally:
        for process in processes:
            process.kill()
        wake_reader.close()
        wake_writer.close()
