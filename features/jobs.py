"""What a worker process does to one clip: read it, decode it and, on a CPU, encode it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import av.logging
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from features.encoder import Encoder, build_encoder
from features.errors import ClipError
from features.footage import read_clip
from features.openvino_runtime import openvino_encoder
from features.sampling import pick_rows
from features.spec import PLAIN, FeatureSpec
from features.stamp import stamped
from features.transform import prepare, thumbnail
from features.types import Clip, Failure, FeatureTrack, FrameBatch
from features.views import apply_view, time_seed

T = TypeVar("T")


@dataclass(frozen=True)
class ViewFrames:
    """What a backbone is fed for one view of a clip."""

    view: str
    frames: NDArray[np.uint8]  # (R, S, S, 3), or (R, L, S, S, 3) where a row is a snippet
    times: NDArray[np.float64]  # (R,) seconds


@dataclass(frozen=True)
class Decoded:
    """A clip's frames, and what it took to get them."""

    clip: Clip
    views: tuple[ViewFrames, ...]
    duration: float
    decoded_share: float
    decode_seconds: float
    pictures: tuple[bytes, ...] = ()  # small JPEGs, one a row of the plain view


@dataclass(frozen=True)
class Extracted:
    """A clip's raw features, one track a view, the plain one first, and what it took to get them."""

    tracks: tuple[FeatureTrack, ...]
    decode_seconds: float
    encode_seconds: float
    pictures: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Unchanged:
    """A clip whose file was touched but whose content is what it was."""

    clip: Clip


@dataclass(frozen=True)
class DecodeJob:
    """Decodes clips; somebody else encodes them."""

    spec: FeatureSpec
    with_pictures: bool = False

    def start(self) -> Callable[[Clip, Callable[[], None]], Decoded | Failure | Unchanged]:
        """Quiet, single-threaded libraries: parallelism is one process a core."""
        av.logging.set_level(None)
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        return lambda clip, alive: _caught(clip, lambda: self._decode(clip, alive))

    def _decode(self, clip: Clip, alive: Callable[[], None]) -> Decoded | Unchanged:
        began = time.process_time()
        now = stamped(clip)
        if clip.digest and clip.digest == now.digest:
            return Unchanged(now)
        seeds = {view: time_seed(view, now.digest) for view in self.spec.views}
        batch = read_clip(
            now,
            pick_rows(self.spec.sampling, seeds),
            lambda image: prepare(image, self.spec.preprocessing),
            picture=thumbnail if self.with_pictures else lambda image: b"",
            folder_fps=self.spec.sampling.folder_fps,
            alive=alive,
        )
        is_snippets = self.spec.sampling.kind == "snippets"
        views = tuple(_view_frames(batch, view, now.digest, is_snippets=is_snippets) for view in self.spec.views)
        middles = [int(row[len(row) // 2]) for row in batch.rows[PLAIN]]
        pictures = tuple(batch.pictures[i] for i in middles)
        return Decoded(now, views, batch.duration, batch.decoded_share, time.process_time() - began, pictures)


def _view_frames(batch: FrameBatch, view: str, digest: str, *, is_snippets: bool) -> ViewFrames:
    rows = batch.rows[view]  # (R, L)
    used, places = np.unique(rows, return_inverse=True)
    data = batch.data if len(used) == len(batch.data) else batch.data[used]  # copying pictures takes its time
    frames = apply_view(view, data, digest)[places.reshape(rows.shape) if is_snippets else ...]
    return ViewFrames(view, frames, batch.times[rows].mean(axis=1))


@dataclass(frozen=True)
class ExtractJob:
    """Decodes and encodes clips in one process, the fastest layout on a CPU."""

    decode: DecodeJob
    weights: Path | None
    converted: Path | None = None
    """The network as an OpenVINO model, where that is the runtime."""
    batch_size: int | None = None

    def start(self) -> Callable[[Clip, Callable[[], None]], Extracted | Failure | Unchanged]:
        """Loads the backbone once."""
        decode = self.decode.start()
        encoder = self._encoder()

        def extract(clip: Clip, alive: Callable[[], None]) -> Extracted | Failure | Unchanged:
            decoded = decode(clip, alive)
            if not isinstance(decoded, Decoded):
                return decoded
            began = time.process_time()
            return _caught(clip, lambda: _encoded(decoded, encoder, began))

        return extract

    def _encoder(self) -> Encoder:
        if self.converted is not None:
            return openvino_encoder(self.converted, self.decode.spec, batch_size=self.batch_size)
        return build_encoder(self.decode.spec, self.weights, batch_size=self.batch_size)


def tracks_of(decoded: Decoded, features: Sequence[NDArray[np.float16]], encode_seconds: float) -> Extracted:
    """A decoded clip and the features (R, D) of each of its views."""
    tracks = tuple(
        FeatureTrack(
            clip=decoded.clip,
            features=rows,
            times=view.times,
            duration=decoded.duration,
            view=view.view,
            decoded_share=decoded.decoded_share,
        )
        for view, rows in zip(decoded.views, features, strict=True)
    )
    return Extracted(tracks, decoded.decode_seconds, encode_seconds, decoded.pictures)


def _encoded(decoded: Decoded, encoder: Encoder, began: float) -> Extracted:
    features = [encoder.encode(view.frames) for view in decoded.views]
    return tracks_of(decoded, features, time.process_time() - began)


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
