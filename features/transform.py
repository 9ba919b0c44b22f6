"""The only place that touches pixels before the backbone's device: an upright RGB frame becomes a small square."""

import cv2
import numpy as np
from numpy.typing import NDArray

from features.spec import Preprocessing


def prepare(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The one resize: RGB (H, W, 3) to (S, S, 3)."""
    if preprocessing.fit == "crop":
        image = _middle_square(image, preprocessing.size / preprocessing.resize)
    return _shrunk(image, preprocessing.size, preprocessing.size)


def thumbnail(image: NDArray[np.uint8], *, width: int = 160) -> bytes:
    """An upright frame (H, W, 3) as a small JPEG of its own aspect ratio, at most twice as high as wide."""
    scale = min(width / image.shape[1], 2 * width / image.shape[0])
    shape = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = _shrunk(image, *shape)
    return cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def _shrunk(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Halved until less than a half is left to do, then interpolated; (H, W, 3) to (`height`, `width`, 3)."""
    while min(image.shape[0] / height, image.shape[1] / width) >= 2:
        half_height, half_width = image.shape[0] // 2, image.shape[1] // 2
        even = image[: 2 * half_height, : 2 * half_width]  # exact halves: OpenCV has a fast way for them alone
        image = np.asarray(cv2.resize(even, (half_width, half_height), interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _middle_square(image: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """Cropping before resizing shows the same as resizing before cropping, for less work."""
    height, width = image.shape[:2]
    side = max(1, round(min(height, width) * share))
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]
