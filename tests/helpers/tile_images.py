"""Colors, sizes and checks of pixels, for tests of the desktop window."""

from datetime import UTC, datetime

import numpy as np

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SIZE = (1280, 720)
GREEN, RED = (30, 160, 60), (190, 40, 40)


def middle(image: np.ndarray) -> np.ndarray:
    """Return the mean color of a square left of the middle, where a tile shows only its frame."""
    height, width = image.shape[:2]
    return image[height // 2 - 5 : height // 2 + 5, width // 4 : width // 4 + 10].mean(axis=(0, 1))


def is_orange(pixels: np.ndarray) -> bool:
    red, _, blue = pixels.reshape(-1, 3).astype(int).mean(axis=0)
    return bool(red - blue > 100)
