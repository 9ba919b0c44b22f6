"""Encoding of frames as they are decoded, so that the pixels of a long video are never all in memory."""

import time

import numpy as np
from numpy.typing import NDArray

from features.encoders.base import FrameEncoder


class StreamingEncoder:
    """Takes one preprocessed frame at a time and numbers it; `get_features` looks features up by these numbers.

    Frames go through the encoder in batches of its own size, in the order in which they were added.
    """

    def __init__(self, encoder: FrameEncoder) -> None:
        self._encoder = encoder
        self._pending_frames: list[NDArray[np.uint8]] = []
        self._encoded: list[NDArray[np.float16]] = []  # (n, D) each
        self._count = 0
        self.cpu_seconds = 0.0
        """CPU seconds spent on encoding."""

    def add_frame(self, frame: NDArray[np.uint8]) -> np.int64:
        """Add a frame (S, S, 3) and return its number. Raises ClipError if a feature is not finite."""
        self._pending_frames.append(frame)
        self._count += 1
        if len(self._pending_frames) >= self._encoder.batch_size:
            self._encode_pending()
        return np.int64(self._count - 1)

    def get_features(self, numbers: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return the features (N, D) of the frames with these numbers (N,)."""
        self._encode_pending()
        self._encoded = [np.concatenate(self._encoded)]
        return self._encoded[0][numbers]

    def _encode_pending(self) -> None:
        if not self._pending_frames:
            return
        began = time.process_time()
        self._encoded.append(self._encoder.encode(np.stack(self._pending_frames)))
        self._pending_frames.clear()
        self.cpu_seconds += time.process_time() - began
