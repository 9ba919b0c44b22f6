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

from features.live.frame_ring import Ring, Slot
from features.live.pacing import is_picked
from features.live.packet_buffer import Keeper
from features.live.recorder import ClipAnswer, ClipOrder, Recorder
from features.live.source import PATIENCE, Camera, Moment, Patience, SourceLost, mask_credentials, moments
from features.spec import Preprocessing
from features.utils.worker_pool import end_with_parent
from features.video.decoder import Image
from features.video.preprocess import prepare, thumbnail, zoned

OPEN = "open"
"""What the process is told; it answers (`closed` or `ended`, the reason) when there is nothing more to read. A
ClipOrder may come at any time, and so may the ClipAnswer."""


@dataclass(frozen=True)
class ReaderPlan:
    """What a camera's process needs to know."""

    camera: Camera
    preprocessing: Preprocessing
    fps: float
    """Frames that are picked a second of the stream's own time."""
    kept: int
    """Frames that wait at most."""
    picture_width: int = 0
    """Width of the small JPEG of each frame; 0: none."""
    patience: Patience = PATIENCE
    is_paced: bool = True
    """Files are played at their own pace; otherwise as fast as their frames are taken, and none is dropped."""
    clip_seconds: float = 0.0
    """How much of the stream is kept for clips; nothing of what is played faster than it happened."""

    def ring(self, memory: Any) -> Ring:
        """The ring in the memory that is shared."""
        return Ring(memory, size=self.preprocessing.size, kept=self.kept, with_jpeg=self.picture_width > 0)

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
    ring = plan.ring(memory)
    ring.beat = time.monotonic()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _serve(plan, ring, connection, lambda: _wake(wake))


def _serve(plan: ReaderPlan, ring: Ring, connection: Connection, told: Callable[[], None]) -> None:
    sending = threading.Lock()  # clips are told of by another thread

    def answer(message: tuple[str, str] | ClipAnswer) -> None:
        with sending:
            connection.send(message)
        told()

    keeper = Keeper(0.0 if plan.is_lossless else plan.clip_seconds)
    recorder = Recorder(keeper, answer)

    def look() -> None:
        while connection.poll():
            _take(connection.recv(), recorder)

    while True:
        if _take(connection.recv(), recorder) == OPEN:
            answer(_read(plan, ring, keeper, told, look))


def _take(message: object, recorder: Recorder) -> object:
    if isinstance(message, ClipOrder):
        recorder.take(message)
    return message


def _read(
    plan: ReaderPlan, ring: Ring, keeper: Keeper, told: Callable[[], None], look: Callable[[], None]
) -> tuple[str, str]:
    """One connection, from its start to its end, and why it ended."""
    beat = _beating(ring, look)
    try:
        for slot in _slots(plan, ring, keeper, beat):
            if plan.is_lossless:
                ring.put_when_free(slot, beat)
            else:
                ring.put(slot)
            told()
    except SourceLost as error:
        return "ended" if plan.is_lossless else "closed", str(error)
    except Exception as error:  # whatever a camera sends, the others are watched on
        return "closed", mask_credentials(f"{type(error).__name__}: {error}")
    return "ended", "played to its end"


def _beating(ring: Ring, look: Callable[[], None]) -> Callable[[], None]:
    def beat() -> None:
        ring.beat = time.monotonic()
        look()

    beat()
    return beat


def _wake(wake: Connection) -> None:
    with suppress(BlockingIOError):  # it is full: whoever waits there is awake already
        os.write(wake.fileno(), b"\0")


def _slots(plan: ReaderPlan, ring: Ring, keeper: Keeper, beat: Callable[[], None]) -> Iterator[Slot]:
    """The picked frames, prepared."""
    reformatter = VideoReformatter()
    for moment in _picked(plan, ring, keeper, beat):
        image = upright(moment, reformatter)
        shown = zoned(image, plan.camera.zone, plan.preprocessing) if plan.camera.zone else image
        yield Slot(
            session=ring.count("session"),
            seconds=moment.seconds,
            wall=moment.wall,
            arrived=moment.arrived,
            pixels=prepare(shown, plan.preprocessing),
            jpeg=thumbnail(image, width=plan.picture_width) if plan.picture_width else b"",
        )


def _picked(plan: ReaderPlan, ring: Ring, keeper: Keeper, beat: Callable[[], None]) -> Iterator[Moment]:
    """A frame is picked when the next one comes, or at the end: only then is it known how long it was shown."""
    held: Moment | None = None
    for moment in moments(
        plan.camera,
        patience=plan.patience,
        is_paced=plan.is_paced,
        beat=beat,
        skipped=lambda: ring.add("skipped"),
        keeper=keeper,
    ):
        ring.add("decoded")
        if held and is_picked(held.seconds, held.seconds + held.lasts if moment.is_first else moment.seconds, plan.fps):
            yield held
        if moment.is_first:
            ring.add("session")
        held = moment
    if held and is_picked(held.seconds, held.seconds + held.lasts, plan.fps):
        yield held


def upright(moment: Moment, reformatter: VideoReformatter) -> Image:
    """A frame's pixels as `features.video` gives them."""
    converted = reformatter.reformat(moment.frame, format="rgb24", threads=1)
    image = np.asarray(converted.to_ndarray(), np.uint8)  # (H, W, 3)
    turns = round(moment.frame.rotation / 90)
    return np.ascontiguousarray(np.rot90(image, k=turns)) if turns else image
