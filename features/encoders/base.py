"""FrameEncoder: preprocessed frames to features through one frozen backbone, on any runtime."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from features.errors import ClipError, RuntimeEnvironmentError
from features.spec import FeatureSpec

Forward = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""A forward pass: frames (B, S, S, 3), or snippets (B, L, S, S, 3), to features (B, D)."""


class BatchTooLargeError(Exception):
    """A batch does not fit into the GPU's memory; a smaller one may."""


class FrameEncoder:
    """Turns preprocessed frames or snippets into pooled, unreduced features, always the same for the same frame."""

    def __init__(self, forward: Forward, *, batch_size: int, pads_batches: bool = False) -> None:
        self.batch_size = batch_size
        self._forward = forward
        self._pads_batches = pads_batches  # whether `forward` takes batches of exactly `batch_size`

    def encode(self, frames: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Encode frames uint8 (N, S, S, 3), or snippets (N, L, S, S, 3), to features float16 (N, D).

        If a batch does not fit into the GPU's memory, the batch size is halved and stays so. Raises ClipError if a
        feature is not finite, RuntimeEnvironmentError if not even a single row fits.
        """
        batches, start = [], 0
        while start < len(frames):
            try:
                batches.append(self._encode_batch(frames[start : start + self.batch_size]))
                start += self.batch_size
            except BatchTooLargeError:
                if self.batch_size == 1:
                    raise RuntimeEnvironmentError(
                        "the free GPU memory is too small for a single frame or snippet; free some memory"
                    ) from None
                self.batch_size //= 2
        with np.errstate(over="ignore"):
            features = np.concatenate(batches).astype(np.float16)  # (N, D)
        if not np.isfinite(features).all():
            raise ClipError("encode", "the features hold NaN or infinity")
        return features

    def _encode_batch(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        missing = self.batch_size - len(frames) if self._pads_batches else 0
        if missing:
            frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
        features = self._forward(frames)
        return features[:-missing] if missing else features


def count_frames_per_row(spec: FeatureSpec) -> int:
    """Return the frames of a row: those of a snippet, otherwise one."""
    return spec.sampling.frames or 1 if spec.sampling.kind == "snippets" else 1
