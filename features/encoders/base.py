"""Encoder: preprocessed frames to features through one frozen backbone, whatever runs it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from features.errors import ClipError, RuntimeEnvironmentError
from features.spec import FeatureSpec

Forward = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # (B, S, S, 3) to (B, D)


class BatchTooLargeError(Exception):
    """A GPU's memory does not hold a batch; a smaller one may fit."""


class FrameEncoder:
    """`encode` turns preprocessed frames, or snippets, into pooled, unreduced features, always the same ones."""

    def __init__(self, forward: Forward, *, batch_size: int, pads_batches: bool = False) -> None:
        self.batch_size = batch_size
        self._forward = forward
        self._pads_batches = pads_batches  # whether `forward` takes batches of exactly `batch_size`

    def encode(self, frames: NDArray[np.uint8]) -> NDArray[np.float16]:
        """uint8 (N, S, S, 3), or snippets (N, L, S, S, 3), to float16 (N, D).

        Raises ClipError where a feature is not finite. A batch that the GPU's memory does not hold is halved, for good.
        """
        batches, at = [], 0
        while at < len(frames):
            try:
                batches.append(self._encode_batch(frames[at : at + self.batch_size]))
                at += self.batch_size
            except BatchTooLargeError:
                if self.batch_size == 1:
                    raise RuntimeEnvironmentError(
                        "the GPU's memory does not hold a single frame (of a 3D network: snippet); free some of it"
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


def frames_per_row(spec: FeatureSpec) -> int:
    """How many frames make a row: a snippet's, or one."""
    return spec.sampling.frames or 1 if spec.sampling.kind == "snippets" else 1
