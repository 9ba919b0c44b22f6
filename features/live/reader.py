"""What the process of one camera does: connect when told to, decode, pick, prepare, hand over."""

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
"""What the process is told; it answers (`closed` or `ended`, the reason) when there is nothing more to read. A
ClipOrder may come at any time, and so may the ClipAnswer."""


@dataclass(frozen=True)
class ReaderPlan:
    """What a camera's process needs to know."""

    camera: Camera
    preprocessing: Preprocessing
    fps: float
    """Frames that are picked a second of the stream's own time."""
    ring_frames: int
    """Frames that wait at most."""
    thumbnail_width: int = 0
    """Width of the small JPEG of each frame; 0: none."""
    timeouts: Timeouts = DEFAULT_TIMEOUTS
    is_paced: bool = True
    """Files are played at their own pace; otherwise as fast as their frames are taken, and none is dropped."""
    clip_seconds: float = 0.0
    """How much of the stream is kept for clips; nothing of what is played faster than it happened."""

    def open_ring(self, memory: Any) -> FrameRing:
        """The ring in the memory that is shared."""
        return FrameRing(
            memory, size=self.preprocessing.size, capacity=self.ring_frames, with_jpeg=self.thumbnail_width > 0
        )

    @property
    def is_lossless(self) -> bool:
        """Whether no frame is dropped."""
        return self.camera.kind == "file" and not self.is_paced


def serve_camera(plan: ReaderPlan, connection: Connection, wake: Connection, memory: Any) -> None:
    """The process's whole life: it ends when its parent closes the connection or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=end_with_parent, daemon=True).start()
    av.logging.set_level(None)  # FFmpeg's own lines show addresses with their passwords
    cv2.setNumThreads(1)
    logging.captureWarnings(True)  # nobody reads them here, and they would spoil lines of JSON
    ring = plan.open_ring(memory)
    ring.heartbeat = time.monotonic()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _serve_commands(plan, ring, connection, lambda: _wake_parent(wake))


def _serve_commands(
    plan: ReaderPlan, ring: FrameRing, connection: Connection, notify_parent: Callable[[], None]
) -> None:
    sending = threading.Lock()  # clips are told of by another thread

    def answer(message: tuple[str, str] | ClipResult) -> None:
        with sending:
            connection.send(message)
        notify_parent()

    keeper = PacketTap(0.0 if plan.is_lossless else plan.clip_seconds)
    recorder = ClipRecorder(keeper, answer)

    def look() -> None:
        while connection.poll():
            _handle_message(connection.recv(), recorder)

    while True:
        if _handle_message(connection.recv(), recorder) == OPEN_COMMAND:
            answer(_read_connection(plan, ring, keeper, notify_parent, look))


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
    """One connection, from its start to its end, and why it ended."""
    beat = _make_heartbeat(ring, poll_messages)
    try:
        for slot in _make_slots(plan, ring, packet_tap, beat):
            if plan.is_lossless:
                ring.put_when_free(slot, beat)
            else:
                ring.put(slot)
            notify_parent()
    except SourceLost as error:
        return "ended" if plan.is_lossless else "closed", str(error)
    except Exception as error:  # whatever a camera sends, the others are watched on
        return "closed", mask_credentials(f"{type(error).__name__}: {error}")
    return "ended", "played to its end"


def _make_heartbeat(ring: FrameRing, poll_messages: Callable[[], None]) -> Callable[[], None]:
    def beat() -> None:
        ring.heartbeat = time.monotonic()
        poll_messages()

    beat()
    return beat


def _wake_parent(wake: Connection) -> None:
    with suppress(BlockingIOError):  # it is full: whoever waits there is awake already
        os.write(wake.fileno(), b"\0")


def _make_slots(
    plan: ReaderPlan, ring: FrameRing, packet_tap: PacketTap, report_alive: Callable[[], None]
) -> Iterator[RingSlot]:
    """The picked frames, prepared."""
    reformatter = VideoReformatter()
    for moment in _pick_frames(plan, ring, packet_tap, report_alive):
        image = make_upright_image(moment, reformatter)
        shown = crop_to_zone(image, plan.camera.zone, plan.preprocessing) if plan.camera.zone else image
        yield RingSlot(
            session=ring.read_counter("session"),
            seconds=moment.seconds,
            wall=moment.wall,
            arrived=moment.arrived,
            pixels=preprocess_frame(shown, plan.preprocessing),
            jpeg=make_thumbnail(image, width=plan.thumbnail_width) if plan.thumbnail_width else b"",
        )


def _pick_frames(
    plan: ReaderPlan, ring: FrameRing, packet_tap: PacketTap, report_alive: Callable[[], None]
) -> Iterator[TimedFrame]:
    """A frame is picked when the next one comes, or at the end: only then is it known how long it was shown."""
    held: TimedFrame | None = None
    for moment in read_timed_frames(
        plan.camera,
        timeouts=plan.timeouts,
        is_paced=plan.is_paced,
        report_alive=report_alive,
        on_skip=lambda: ring.increment_counter("skipped"),
        packet_tap=packet_tap,
    ):
        ring.increment_counter("decoded")
        if held and is_picked(
            held.seconds, held.seconds + held.duration if moment.is_first else moment.seconds, plan.fps
        ):
            yield held
        if moment.is_first:
            ring.increment_counter("session")
        held = moment
    if held and is_picked(held.seconds, held.seconds + held.duration, plan.fps):
        yield held


def make_upright_image(timed_frame: TimedFrame, reformatter: VideoReformatter) -> Image:
    """A frame's pixels as `features.video` gives them."""
    converted = reformatter.reformat(timed_frame.frame, format="rgb24", threads=1)
    image = np.asarray(converted.to_ndarray(), np.uint8)  # (H, W, 3)
    turns = round(timed_frame.frame.rotation / 90)
    return np.ascontiguousarray(np.rot90(image, k=turns)) if turns else image
