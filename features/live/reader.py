"""The process of one camera: connects on command, decodes, picks and preprocesses frames, and passes them on."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import av.logging
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from features.live.frame_ring import FrameRing, RingSlot
from features.live.pacing import is_picked
from features.live.packet_buffer import PacketTap
from features.live.recorder import ClipRecorder, ClipRequest, ClipResult
from features.live.source import (
    DEFAULT_TIMEOUTS,
    Camera,
    SourceLost,
    TimedFrame,
    Timeouts,
    mask_credentials,
    read_timed_frames,
)
from features.spec import Preprocessing
from features.utils.worker_pool import end_with_parent
from features.video.decoder import Image
from features.video.preprocess import crop_to_zone, make_thumbnail, preprocess_frame

OPEN_COMMAND = "open"
"""The command to connect. The process answers with (`closed` or `ended`, reason) when there is nothing more to read.
A ClipRequest may be sent at any time, and a ClipResult may come back at any time."""


@dataclass(frozen=True)
class ReaderPlan:
    """The settings of a camera's reader process."""

    camera: Camera
    preprocessing: Preprocessing
    fps: float
    """Frames picked per second of the stream's own time."""
    ring_frames: int
    """Most frames that wait to be taken."""
    thumbnail_width: int = 0
    """Width in pixels of the JPEG thumbnail of each frame; 0 for none."""
    timeouts: Timeouts = DEFAULT_TIMEOUTS
    is_paced: bool = True
    """True to play files at their own pace. Otherwise they play as fast as frames are taken, and none is dropped."""
    clip_seconds: float = 0.0
    """Seconds of the stream buffered for clips. Files that are not paced are never buffered."""

    def open_ring(self, memory: Any) -> FrameRing:
        """Return the frame ring in the shared memory."""
        return FrameRing(
            memory, size=self.preprocessing.size, capacity=self.ring_frames, with_jpeg=self.thumbnail_width > 0
        )

    @property
    def is_lossless(self) -> bool:
        """True if no frame is ever dropped: for files that are not paced."""
        return self.camera.kind == "file" and not self.is_paced


def serve_camera(plan: ReaderPlan, connection: Connection, wake: Connection, memory: Any) -> None:
    """Run the process until its parent closes the connection or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=end_with_parent, daemon=True).start()
    av.logging.set_level(None)  # FFmpeg's log lines show URLs with their passwords
    cv2.setNumThreads(1)
    logging.captureWarnings(True)  # nobody reads them here, and they would break JSON log lines
    ring = plan.open_ring(memory)
    ring.heartbeat = time.monotonic()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _serve_commands(plan, ring, connection, lambda: _wake_parent(wake))


def _serve_commands(
    plan: ReaderPlan, ring: FrameRing, connection: Connection, notify_parent: Callable[[], None]
) -> None:
    send_lock = threading.Lock()  # another thread sends the results of clips

    def send(message: tuple[str, str] | ClipResult) -> None:
        with send_lock:
            connection.send(message)
        notify_parent()

    packet_tap = PacketTap(0.0 if plan.is_lossless else plan.clip_seconds)
    recorder = ClipRecorder(packet_tap, send)

    def poll_messages() -> None:
        while connection.poll():
            _handle_message(connection.recv(), recorder)

    while True:
        if _handle_message(connection.recv(), recorder) == OPEN_COMMAND:
            send(_read_connection(plan, ring, packet_tap, notify_parent, poll_messages))


def _handle_message(message: object, recorder: ClipRecorder) -> object:
    if isinstance(message, ClipRequest):
        recorder.submit(message)
    return message


def _read_connection(
    plan: ReaderPlan,
    ring: FrameRing,
    packet_tap: PacketTap,
    notify_parent: Callable[[], None],
    poll_messages: Callable[[], None],
) -> tuple[str, str]:
    """Read one connection from start to end.

    Returns `closed` or `ended`, and the reason.
    """
    report_alive = _make_heartbeat(ring, poll_messages)
    try:
        for slot in _make_slots(plan, ring, packet_tap, report_alive):
            if plan.is_lossless:
                ring.put_when_free(slot, report_alive)
            else:
                ring.put(slot)
            notify_parent()
    except SourceLost as error:
        return "ended" if plan.is_lossless else "closed", str(error)
    except Exception as error:  # one camera's error must not stop the others
        return "closed", mask_credentials(f"{type(error).__name__}: {error}")
    return "ended", "played to its end"


def _make_heartbeat(ring: FrameRing, poll_messages: Callable[[], None]) -> Callable[[], None]:
    def report_alive() -> None:
        ring.heartbeat = time.monotonic()
        poll_messages()

    report_alive()
    return report_alive


def _wake_parent(wake: Connection) -> None:
    with suppress(BlockingIOError):  # the pipe is full: the parent is already awake
        os.write(wake.fileno(), b"\0")


def _make_slots(
    plan: ReaderPlan, ring: FrameRing, packet_tap: PacketTap, report_alive: Callable[[], None]
) -> Iterator[RingSlot]:
    """Yield the picked frames, preprocessed."""
    reformatter = VideoReformatter()
    for timed_frame in _pick_frames(plan, ring, packet_tap, report_alive):
        image = make_upright_image(timed_frame, reformatter)
        visible = crop_to_zone(image, plan.camera.zone, plan.preprocessing) if plan.camera.zone else image
        yield RingSlot(
            session=ring.read_counter("session"),
            seconds=timed_frame.seconds,
            wall=timed_frame.wall,
            arrived=timed_frame.arrived,
            pixels=preprocess_frame(visible, plan.preprocessing),
            jpeg=make_thumbnail(image, width=plan.thumbnail_width) if plan.thumbnail_width else b"",
        )


def _pick_frames(
    plan: ReaderPlan, ring: FrameRing, packet_tap: PacketTap, report_alive: Callable[[], None]
) -> Iterator[TimedFrame]:
    """Yield the picked frames.

    Each is decided when the next frame arrives, or at the end: only then is it known how long it was shown.
    """
    previous: TimedFrame | None = None
    for timed_frame in read_timed_frames(
        plan.camera,
        timeouts=plan.timeouts,
        is_paced=plan.is_paced,
        report_alive=report_alive,
        on_skip=lambda: ring.increment_counter("skipped"),
        packet_tap=packet_tap,
    ):
        ring.increment_counter("decoded")
        if previous and is_picked(
            previous.seconds,
            previous.seconds + previous.duration if timed_frame.is_first else timed_frame.seconds,
            plan.fps,
        ):
            yield previous
        if timed_frame.is_first:
            ring.increment_counter("session")
        previous = timed_frame
    if previous and is_picked(previous.seconds, previous.seconds + previous.duration, plan.fps):
        yield previous


def make_upright_image(timed_frame: TimedFrame, reformatter: VideoReformatter) -> Image:
    """Return a frame's pixels (H, W, 3), RGB and upright, as `features.video` does."""
    converted = reformatter.reformat(timed_frame.frame, format="rgb24", threads=1)
    image = np.asarray(converted.to_ndarray(), np.uint8)  # (H, W, 3)
    turns = round(timed_frame.frame.rotation / 90)
    return np.ascontiguousarray(np.rot90(image, k=turns)) if turns else image
