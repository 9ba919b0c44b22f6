"""Many live cameras at once: one reader process each, watched, killed where it hangs, and connected again.

A decoder that hangs cannot be ended as a thread, only as a process. Frames come through shared memory, in which the
newest few wait for whoever takes them: what is not taken in time is dropped and counted, so that a slow consumer sees
the present, never a growing past.
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
"""Frames of each camera that wait at most."""
SILENCE_SECONDS = 20.0
_POLL_SECONDS = 0.25


class LiveCameras:
    """The cameras of one `open_cameras` block."""

    def __init__(self, processes: Sequence[CameraProcess], wake: Connection) -> None:
        self._processes, self._wake = processes, wake

    def poll(self, timeout_seconds: float) -> list[LiveFrame | StatusChange]:
        """What has come since the last call, of each camera in order; waits for the first of it, at most so long."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            self._drain_wake_pipe()
            found = [item for watched in self._processes for item in watched.poll()]
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            wait(
                [self._wake, *(one for w in self._processes for one in w.connections)], timeout=min(left, _POLL_SECONDS)
            )

    @property
    def is_over(self) -> bool:
        """Whether all sources are files that were played to their end."""
        return all(watched.health.state == "ended" for watched in self._processes)

    def record(self, camera: str, file: Path, *, since: float, until: float) -> None:
        """Asks for an MP4 file of what came of a camera between two moments of the monotonic clock, both gone by.

        It begins with the last keyframe before `since`, or with what is still kept. The camera's process writes it,
        whole or not at all; nothing is waited for here. A clip that is not to be had is a warning in the log.
        """
        {watched.name: watched for watched in self._processes}[camera].record(file, since=since, until=until)

    @property
    def is_writing(self) -> bool:
        """Whether a clip is on its way. It is lost when the block ends."""
        return any(watched.is_writing for watched in self._processes)

    def counters(self) -> dict[str, CameraCounters]:
        """Each camera in numbers, by its name."""
        return {watched.name: watched.counters() for watched in self._processes}

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
    """Watches cameras, `fps` frames a second of each on the grid that sampling at a rate has, until the block ends.

    Files are played at their own pace, or with `is_paced=False` as fast as frames are taken, then without dropping any.
    `thumbnail_width` asks for a small JPEG of each frame. Of the last `clip_seconds` of each camera clips can be had, not
    of files that are not paced. A camera in `offline` was known to be so before: it is told of only when it is back.
    `preload` names modules that other processes of this one need, of the same fork server. Raises SettingsError for two
    cameras of one name and for sources of an unknown kind.
    """
    names = [camera.name for camera in cameras]
    if len(set(names)) < len(names) or not names:
        raise SettingsError(f"expected cameras of different names, got: {', '.join(names) or 'none'}")
    plans = [
        ReaderPlan(camera, preprocessing, fps, ring_frames, thumbnail_width, timeouts, is_paced, clip_seconds)
        for camera in cameras
        if camera.kind  # refused here rather than in its process
    ]
    context = make_worker_context(("features.live.reader", *preload))
    woken, wake = context.Pipe(duplex=False)
    os.set_blocking(woken.fileno(), False)
    os.set_blocking(wake.fileno(), False)
    watched = [
        CameraProcess(plan, context, wake, silence_seconds, random, plan.camera.name in offline_cameras)
        for plan in plans
    ]
    try:
        yield LiveCameras(watched, woken)
    finally:
        for one in watched:
            one.kill()
        woken.close()
        wake.close()
