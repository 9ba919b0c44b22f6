"""Jobs of the worker processes: decode one clip at a time and, on a CPU, encode it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import av.logging
import cv2
import numpy as np
from numpy.typing import NDArray

from features.encoders.base import FrameEncoder
from features.encoders.openvino_encoder import make_openvino_encoder
from features.encoders.streaming import StreamingEncoder
from features.errors import ClipError
from features.spec import ORIGINAL_VIEW, FeatureSpec
from features.types import (
    Clip,
    ExtractedClip,
    Failure,
    FeatureTrack,
    FrameBatch,
    Thumbnail,
    UnchangedClip,
    WindowTracks,
)
from features.utils.file_identity import identify
from features.video.preprocess import make_thumbnail, preprocess_frame
from features.video.reader import read_clip
from features.video.sampling import make_row_sampler
from features.video.views import apply_view, changes_pixels, jitter_seed
from features.video.windows import Windowing, make_window_sampler

T = TypeVar("T")

PRELOAD = ("features.extraction.jobs",)
"""Modules that every worker imports."""

ALL_WINDOWS = "windows"
"""Name of the `ViewFrames` that hold all windows of a video."""


@dataclass(frozen=True)
class ViewFrames:
    """Input of the backbone for one view of a clip, or for all windows of a video."""

    view: str
    frames: NDArray[Any]  # uint8 (R, S, S, 3), or (R, L, S, S, 3) for snippets; frame numbers (R,) if streamed
    times: NDArray[np.float64]  # (R,) seconds
    spans: NDArray[np.float64] | None = None  # (B, 2) of windows
    window_rows: tuple[NDArray[np.int64], ...] = ()  # B arrays: the rows of each window


@dataclass(frozen=True)
class DecodedClip:
    """The frames of a clip, how much of it could be decoded, and the CPU seconds that took."""

    clip: Clip
    views: tuple[ViewFrames, ...]
    duration: float
    decoded_share: float
    decode_seconds: float
    thumbnails: tuple[Thumbnail, ...] = ()


@dataclass(frozen=True)
class DecodeJob:
    """Decodes clips; another process encodes them."""

    spec: FeatureSpec
    with_thumbnails: bool = False
    windows: Windowing | None = None
    """How long videos are split; None keeps each clip whole."""

    def start(self) -> Callable[[Clip, Callable[[], None]], DecodedClip | Failure | UnchangedClip]:
        """Configure the libraries and return the function that decodes a clip. It returns errors as failures."""
        self.configure_libraries()
        return lambda clip, report_alive: _run_or_fail(clip, lambda: self.decode(clip, report_alive))

    def configure_libraries(self, *, with_torch: bool = False) -> None:
        """Make the libraries quiet and single-threaded: there is one process per core."""
        av.logging.set_level(None)
        cv2.setNumThreads(1)
        if with_torch or self.needs_torch:
            import torch

            torch.set_num_threads(1)

    @property
    def needs_torch(self) -> bool:
        """Whether decoding needs torch, for augmentation views."""
        return any(changes_pixels(view) for view in self.spec.views)

    @property
    def preload(self) -> tuple[str, ...]:
        """Modules that are imported once, before the workers are forked."""
        return (*PRELOAD, "torchvision.transforms.v2") if self.needs_torch else PRELOAD

    @property
    def can_stream_frames(self) -> bool:
        """Whether each frame gives a feature by itself, so that its pixels need not be kept."""
        return self.spec.sampling.kind != "snippets" and self.spec.views == (ORIGINAL_VIEW,)

    def decode(
        self, clip: Clip, report_alive: Callable[[], None], streaming_encoder: StreamingEncoder | None = None
    ) -> DecodedClip | UnchangedClip:
        """Decode a clip. With a `streaming_encoder` the frames are encoded at once, and only their numbers are kept.

        Returns an UnchangedClip if the digest of the file is the known one. Raises ClipError.
        """
        began = time.process_time()
        identified = identify(clip)
        if clip.digest and clip.digest == identified.digest:
            return UnchangedClip(identified)
        seeds = {view: jitter_seed(view, identified.digest) for view in self.spec.views}
        preprocessing = self.spec.preprocessing
        batch = read_clip(
            identified,
            make_window_sampler(self.spec.sampling, self.windows)
            if self.windows
            else make_row_sampler(self.spec.sampling, seeds),
            (lambda image: streaming_encoder.add_frame(preprocess_frame(image, preprocessing)))
            if streaming_encoder
            else (lambda image: preprocess_frame(image, preprocessing)),
            make_thumbnail=make_thumbnail if self.with_thumbnails else lambda image: b"",
            folder_fps=self.spec.sampling.folder_fps,
            report_alive=report_alive,
        )
        is_snippets = self.spec.sampling.kind == "snippets"
        views = tuple(
            _make_view_frames(batch, view, identified.digest, is_snippets=is_snippets)
            for view in self.spec.views
            if view in batch.rows
        )
        if any(not isinstance(name, str) for name in batch.rows):
            views = (*views, _make_window_frames(batch, is_snippets=is_snippets))
        seconds = time.process_time() - began - (streaming_encoder.cpu_seconds if streaming_encoder else 0.0)
        return DecodedClip(identified, views, batch.duration, batch.decoded_share, seconds, _make_thumbnails(batch))


def _make_view_frames(batch: FrameBatch, view: str, digest: str, *, is_snippets: bool) -> ViewFrames:
    rows = batch.rows[view]  # (R, L)
    used, positions = np.unique(rows, return_inverse=True)
    data = batch.data if len(used) == len(batch.data) else batch.data[used]  # copying frames takes time
    viewed = data if view == ORIGINAL_VIEW else apply_view(view, data, digest)
    frames = viewed[positions.reshape(rows.shape) if is_snippets else ...]
    return ViewFrames(view, frames, batch.times[rows].mean(axis=1))


def _make_window_frames(batch: FrameBatch, *, is_snippets: bool) -> ViewFrames:
    """Return the unique rows of all windows: a row that windows share is encoded only once."""
    spans = [name for name in batch.rows if not isinstance(name, str)]
    rows_by_window = [batch.rows[span] for span in spans]  # B arrays (R, L)
    rows, positions = np.unique(np.concatenate(rows_by_window), axis=0, return_inverse=True)  # (N, L) in order of time
    window_rows = np.split(positions.ravel(), np.cumsum([len(window) for window in rows_by_window])[:-1])
    frames = batch.data[rows if is_snippets else rows[:, 0]]
    return ViewFrames(ALL_WINDOWS, frames, batch.times[rows].mean(axis=1), np.array(spans), tuple(window_rows))


def _make_thumbnails(batch: FrameBatch) -> tuple[Thumbnail, ...]:
    pairs = zip(batch.times.tolist(), batch.thumbnails, strict=True)
    return tuple(Thumbnail(seconds, jpeg) for seconds, jpeg in pairs if jpeg)


@dataclass(frozen=True)
class ExtractJob:
    """Decodes and encodes clips in one process, the fastest layout on a CPU."""

    decoder: DecodeJob
    weights: Path | None
    converted: Path | None = None
    """The network as an OpenVINO model, if that is the runtime."""
    batch_size: int | None = None

    def start(self) -> Callable[[Clip, Callable[[], None]], ExtractedClip | Failure | UnchangedClip]:
        """Load the backbone and return the function that extracts a clip. It returns errors as failures."""
        self.decoder.configure_libraries(with_torch=self.converted is None)
        encoder = self.make_encoder()
        return lambda clip, report_alive: _run_or_fail(clip, lambda: self._extract(clip, report_alive, encoder))

    def _extract(
        self, clip: Clip, report_alive: Callable[[], None], encoder: FrameEncoder
    ) -> ExtractedClip | UnchangedClip:
        streaming_encoder = StreamingEncoder(encoder) if self.decoder.can_stream_frames else None
        decoded = self.decoder.decode(clip, report_alive, streaming_encoder)
        if isinstance(decoded, UnchangedClip):
            return decoded
        began = time.process_time()
        encode = streaming_encoder.get_features if streaming_encoder else encoder.encode
        features = [encode(view.frames) for view in decoded.views]
        streaming_seconds = streaming_encoder.cpu_seconds if streaming_encoder else 0.0
        return make_extracted_clip(decoded, features, streaming_seconds + time.process_time() - began)

    def make_encoder(self) -> FrameEncoder:
        """Return an encoder of the backbone on the chosen runtime."""
        if self.converted is not None:
            return make_openvino_encoder(self.converted, self.decoder.spec, batch_size=self.batch_size)
        from features.encoders.torch_encoder import build_encoder

        return build_encoder(self.decoder.spec, self.weights, batch_size=self.batch_size)

    @property
    def preload(self) -> tuple[str, ...]:
        """Modules that are imported once, before the workers are forked: torch only if it runs the backbone.

        OpenVINO is never among them. Its telemetry starts a thread on import, and a process forked then may wait
        forever for a lock that this thread held.
        """
        runtime = ("features.encoders.torch_encoder", "torchvision.models") if self.converted is None else ()
        return (*self.decoder.preload, *runtime)


def make_extracted_clip(
    decoded: DecodedClip, features: Sequence[NDArray[np.float16]], encode_seconds: float
) -> ExtractedClip:
    """Combine a decoded clip with the features (R, D) of each of its views."""
    common = {"clip": decoded.clip, "duration": decoded.duration, "decoded_share": decoded.decoded_share}
    tracks: list[FeatureTrack] = []
    windows = None
    for view, rows in zip(decoded.views, features, strict=True):
        if view.spans is not None:
            windows = WindowTracks(
                features=rows,
                times=view.times,
                spans=view.spans,
                rows=view.window_rows,
                **common,  # type: ignore[arg-type]
            )
        else:
            tracks.append(FeatureTrack(features=rows, times=view.times, view=view.view, **common))  # type: ignore[arg-type]
    return ExtractedClip(tuple(tracks), decoded.decode_seconds, encode_seconds, decoded.thumbnails, windows)


def _run_or_fail(clip: Clip, work: Callable[[], T]) -> T | Failure:
    try:
        return work()
    except Exception as error:
        return Failure.from_error(_try_identify(clip), error)


def _try_identify(clip: Clip) -> Clip:
    try:
        return identify(clip)
    except ClipError:
        return replace(clip, digest="")
