"""What a worker process does to one clip: read it, decode it and, on a CPU, encode it."""

import hashlib
import os
import time
from collections.abc import Callable
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
from features.openvino_runtime import openvino_encoder
from features.spec import FeatureSpec
from features.transform import prepare, thumbnail
from features.types import Clip, Failure, FeatureTrack, FrameBatch
from features.video import read_frames

T = TypeVar("T")


@dataclass(frozen=True)
class Decoded:
    """A clip's frames, and what it took to get them."""

    clip: Clip
    frames: FrameBatch
    decode_seconds: float


@dataclass(frozen=True)
class Extracted:
    """A clip's raw features, and what it took to get them."""

    track: FeatureTrack
    decode_seconds: float
    encode_seconds: float
    pictures: tuple[bytes, ...] = ()  # small JPEGs, one a frame


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
        stamped = _stamp(clip)
        if clip.digest and clip.digest == stamped.digest:
            return Unchanged(stamped)
        frames = read_frames(
            clip.file,
            self.spec.sampling,
            lambda image: prepare(image, self.spec.preprocessing),
            picture=thumbnail if self.with_pictures else lambda image: b"",
            alive=alive,
        )
        return Decoded(stamped, frames, time.process_time() - began)


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


def track_of(decoded: Decoded, features: NDArray[np.float16], encode_seconds: float) -> Extracted:
    """A decoded clip and its features (N, D)."""
    track = FeatureTrack(
        clip=decoded.clip,
        features=features,
        times=decoded.frames.times,
        duration=decoded.frames.duration,
        decoded_share=decoded.frames.decoded_share,
    )
    return Extracted(track, decoded.decode_seconds, encode_seconds, decoded.frames.pictures)


def _encoded(decoded: Decoded, encoder: Encoder, began: float) -> Extracted:
    features = encoder.encode(decoded.frames.data)
    return track_of(decoded, features, time.process_time() - began)


def _caught(clip: Clip, work: Callable[[], T]) -> T | Failure:
    """A clip that fails is a Failure, whatever the reason: it must never end the job."""
    try:
        return work()
    except ClipError as error:
        return Failure(_stamped_or_not(clip), error.stage, error.reason)
    except MemoryError:
        return Failure(_stamped_or_not(clip), "decode", "out of memory")
    except Exception as error:
        return Failure(_stamped_or_not(clip), "internal", f"{type(error).__name__}: {error}".splitlines()[0])


def _stamp(clip: Clip) -> Clip:
    """The clip with its file's digest, size and time. Raises ClipError where the file cannot be read."""
    try:
        status = os.stat(clip.file)
        if not os.path.isfile(clip.file):
            raise ClipError("open", "not a regular file")
        with open(clip.file, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ClipError("open", (error.strerror or str(error)).lower()) from None
    return replace(clip, digest=digest, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def _stamped_or_not(clip: Clip) -> Clip:
    try:
        return _stamp(clip)
    except ClipError:
        return replace(clip, digest="")
