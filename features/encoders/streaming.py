"""Frames encoded as they come, so that however long a video is, its pixels are never held."""

import time

import numpy as np
from numpy.typing import NDArray

from features.encoders.base import Encoder


class Streamed:
    """Takes one preprocessed frame at a time and gives it a number; its features are had by that number at the end.

    Frames go through the encoder in batches of its own size, in the order they come.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._waiting: list[NDArray[np.uint8]] = []
        self._done: list[NDArray[np.float16]] = []  # (n, D) each
        self._count = 0
        self.seconds = 0.0
        """CPU seconds spent on encoding."""

    def take(self, frame: NDArray[np.uint8]) -> np.int64:
        """The number of a frame (S, S, 3). Raises ClipError where a feature is not finite."""
        self._waiting.append(frame)
        self._count += 1
        if len(self._waiting) >= self._encoder.batch_size:
            self._encode()
        return np.int64(self._count - 1)

    def features(self, numbers: NDArray[np.int64]) -> NDArray[np.float16]:
        """(N, D) of the frames of these numbers."""
        self._encode()
        self._done = [np.concatenate(self._done)]
        return self._done[0][numbers]

    def _encode(self) -> None:
        if not self._waiting:
            return
        began = time.process_time()
        self._done.append(self._encoder.encode(np.stack(self._waiting)))
        self._waiting.clear()
        self.seconds += time.process_time() - began
