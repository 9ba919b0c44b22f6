"""What a worker process does to one clip: read it, decode it and, on a CPU, encode it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import av.logging
import cv2
import numpy as np
from numpy.typing import NDArray

from features.encoders.base import Encoder
from features.encoders.openvino_encoder import openvino_encoder
from features.encoders.streaming import Streamed
from features.errors import ClipError
from features.spec import PLAIN, FeatureSpec
from features.types import Clip, Extracted, Failure, FeatureTrack, FrameBatch, Picture, Unchanged, WindowTracks
from features.utils.file_identity import stamped
from features.video.preprocess import prepare, thumbnail
from features.video.reader import read_clip
from features.video.sampling import pick_rows
from features.video.views import apply_view, changes_pixels, time_seed
from features.video.windows import Windows, pick_windows

T = TypeVar("T")

PRELOAD = ("features.extraction.jobs",)
"""What every worker imports."""

WINDOWS = "windows"
"""What stands for a view's name where all windows of a video are meant."""


@dataclass(frozen=True)
class ViewFrames:
    """What a backbone is fed for one view of a clip, or for all windows of a video."""

    view: str
    frames: NDArray[Any]  # uint8 (R, S, S, 3), or (R, L, S, S, 3) where a row is a snippet; numbers (R,) if streamed
    times: NDArray[np.float64]  # (R,) seconds
    spans: NDArray[np.float64] | None = None  # (B, 2) of windows
    window_rows: tuple[NDArray[np.int64], ...] = ()  # B of them: which rows are a window's


@dataclass(frozen=True)
class Decoded:
    """A clip's frames, and what it took to get them."""

    clip: Clip
    views: tuple[ViewFrames, ...]
    duration: float
    decoded_share: float
    decode_seconds: float
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class DecodeJob:
    """Decodes clips; somebody else encodes them."""

    spec: FeatureSpec
    with_pictures: bool = False
    windows: Windows | None = None
    """How long videos are cut; None takes each clip as one."""

    def start(self) -> Callable[[Clip, Callable[[], None]], Decoded | Failure | Unchanged]:
        """Quiet, single-threaded libraries: parallelism is one process a core."""
        self.quieten()
        return lambda clip, alive: _caught(clip, lambda: self.decode(clip, alive))

    def quieten(self, *, with_torch: bool = False) -> None:
        """What each worker process sets once."""
        av.logging.set_level(None)
        cv2.setNumThreads(1)
        if with_torch or self.needs_torch:
            import torch

            torch.set_num_threads(1)

    @property
    def needs_torch(self) -> bool:
        """Whether decoding takes torch, for the views."""
        return any(changes_pixels(view) for view in self.spec.views)

    @property
    def preload(self) -> tuple[str, ...]:
        """What workers import before they part."""
        return (*PRELOAD, "torchvision.transforms.v2") if self.needs_torch else PRELOAD

    @property
    def takes_frames_alone(self) -> bool:
        """Whether each frame makes a feature of its own, so that nobody needs its pixels afterwards."""
        return self.spec.sampling.kind != "snippets" and self.spec.views == (PLAIN,)

    def decode(self, clip: Clip, alive: Callable[[], None], streamed: Streamed | None = None) -> Decoded | Unchanged:
        """The clip's frames, or their numbers where they are `streamed` into an encoder. Raises ClipError."""
        began = time.process_time()
        now = stamped(clip)
        if clip.digest and clip.digest == now.digest:
            return Unchanged(now)
        seeds = {view: time_seed(view, now.digest) for view in self.spec.views}
        preprocessing = self.spec.preprocessing
        batch = read_clip(
            now,
            pick_windows(self.spec.sampling, self.windows) if self.windows else pick_rows(self.spec.sampling, seeds),
            (lambda image: streamed.take(prepare(image, preprocessing)))
            if streamed
            else (lambda image: prepare(image, preprocessing)),
            picture=thumbnail if self.with_pictures else lambda image: b"",
            folder_fps=self.spec.sampling.folder_fps,
            alive=alive,
        )
        is_snippets = self.spec.sampling.kind == "snippets"
        views = tuple(
            _view_frames(batch, view, now.digest, is_snippets=is_snippets)
            for view in self.spec.views
            if view in batch.rows
        )
        if any(not isinstance(name, str) for name in batch.rows):
            views = (*views, _window_frames(batch, is_snippets=is_snippets))
        seconds = time.process_time() - began - (streamed.seconds if streamed else 0.0)
        return Decoded(now, views, batch.duration, batch.decoded_share, seconds, _pictures(batch))


def _view_frames(batch: FrameBatch, view: str, digest: str, *, is_snippets: bool) -> ViewFrames:
    rows = batch.rows[view]  # (R, L)
    used, places = np.unique(rows, return_inverse=True)
    data = batch.data if len(used) == len(batch.data) else batch.data[used]  # copying pictures takes its time
    changed = data if view == PLAIN else apply_view(view, data, digest)
    frames = changed[places.reshape(rows.shape) if is_snippets else ...]
    return ViewFrames(view, frames, batch.times[rows].mean(axis=1))


def _window_frames(batch: FrameBatch, *, is_snippets: bool) -> ViewFrames:
    """The rows of all windows, each once: those that windows share are encoded once."""
    spans = [name for name in batch.rows if not isinstance(name, str)]
    each = [batch.rows[span] for span in spans]  # B of (R, L)
    rows, places = np.unique(np.concatenate(each), axis=0, return_inverse=True)  # (N, L) in order of time
    of_window = np.split(places.ravel(), np.cumsum([len(one) for one in each])[:-1])
    frames = batch.data[rows if is_snippets else rows[:, 0]]
    return ViewFrames(WINDOWS, frames, batch.times[rows].mean(axis=1), np.array(spans), tuple(of_window))


def _pictures(batch: FrameBatch) -> tuple[Picture, ...]:
    each = zip(batch.times.tolist(), batch.pictures, strict=True)
    return tuple(Picture(seconds, jpeg) for seconds, jpeg in each if jpeg)


@dataclass(frozen=True)
class ExtractJob:
    """Decodes and encodes clips in one process, the fastest layout on a CPU."""

    decoder: DecodeJob
    weights: Path | None
    converted: Path | None = None
    """The network as an OpenVINO model, where that is the runtime."""
    batch_size: int | None = None

    def start(self) -> Callable[[Clip, Callable[[], None]], Extracted | Failure | Unchanged]:
        """Loads the backbone once."""
        self.decoder.quieten(with_torch=self.converted is None)
        encoder = self.encoder()
        return lambda clip, alive: _caught(clip, lambda: self._extract(clip, alive, encoder))

    def _extract(self, clip: Clip, alive: Callable[[], None], encoder: Encoder) -> Extracted | Unchanged:
        streamed = Streamed(encoder) if self.decoder.takes_frames_alone else None
        decoded = self.decoder.decode(clip, alive, streamed)
        if isinstance(decoded, Unchanged):
            return decoded
        began = time.process_time()
        encode = streamed.features if streamed else encoder.encode
        features = [encode(view.frames) for view in decoded.views]
        before = streamed.seconds if streamed else 0.0
        return tracks_of(decoded, features, before + time.process_time() - began)

    def encoder(self) -> Encoder:
        """The backbone on the runtime that was chosen."""
        if self.converted is not None:
            return openvino_encoder(self.converted, self.decoder.spec, batch_size=self.batch_size)
        from features.encoders.torch_encoder import build_encoder

        return build_encoder(self.decoder.spec, self.weights, batch_size=self.batch_size)

    @property
    def preload(self) -> tuple[str, ...]:
        """What workers import before they part: torch where it runs the backbone, and only there.

        Never openvino: its telemetry starts a thread when it is imported, and who is forked then may wait for ever for
        a lock that this thread held.
        """
        runtime = ("features.encoders.torch_encoder", "torchvision.models") if self.converted is None else ()
        return (*self.decoder.preload, *runtime)


def tracks_of(decoded: Decoded, features: Sequence[NDArray[np.float16]], encode_seconds: float) -> Extracted:
    """A decoded clip and the features (R, D) of each of its views."""
    about = {"clip": decoded.clip, "duration": decoded.duration, "decoded_share": decoded.decoded_share}
    tracks: list[FeatureTrack] = []
    windows = None
    for view, rows in zip(decoded.views, features, strict=True):
        if view.spans is not None:
            windows = WindowTracks(
                features=rows,
                times=view.times,
                spans=view.spans,
                rows=view.window_rows,
                **about,  # type: ignore[arg-type]
            )
        else:
            tracks.append(FeatureTrack(features=rows, times=view.times, view=view.view, **about))  # type: ignore[arg-type]
    return Extracted(tuple(tracks), decoded.decode_seconds, encode_seconds, decoded.pictures, windows)


def _caught(clip: Clip, work: Callable[[], T]) -> T | Failure:
    try:
        return work()
    except Exception as error:
        return Failure.of(_stamped_or_not(clip), error)


def _stamped_or_not(clip: Clip) -> Clip:
    try:
        return stamped(clip)
    except ClipError:
        return replace(clip, digest="")
