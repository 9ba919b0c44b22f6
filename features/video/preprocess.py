"""The only place that touches pixels before the backbone's device: an upright RGB frame becomes a small square."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from features.spec import Preprocessing


def preprocess_frame(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The one resize: RGB (H, W, 3) to (S, S, 3)."""
    if preprocessing.fit == "crop":
        image = _crop_middle_square(image, preprocessing.size / preprocessing.resize)
    return _shrink(image, preprocessing.size, preprocessing.size)


Corner = tuple[float, float]
"""Across and down, as shares of a picture's width and height."""


def crop_to_zone(
    image: NDArray[np.uint8], corners: Sequence[Corner], preprocessing: Preprocessing
) -> NDArray[np.uint8]:
    """What of a picture (H, W, 3) lies in a polygon, cut to its bounding box; the rest has the mean colour of training.

    `prepare` then shows all of the zone: where it would cut a square out of the middle, the box is framed by a square
    that is larger by as much.
    """
    height, width = image.shape[:2]
    points = np.round(np.array(corners) * (width, height)).astype(np.int32)  # (P, 2)
    left, top = points.min(axis=0).clip(0, (width - 1, height - 1))
    right, bottom = np.maximum(points.max(axis=0).clip(0, (width, height)), (left + 1, top + 1))
    inside = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillPoly(inside, [points - (left, top)], 1)
    fill = np.round(np.array(preprocessing.mean) * 255).astype(np.uint8)
    shown = np.where(inside[..., None] > 0, image[top:bottom, left:right], fill)
    return (
        _pad_to_square(shown, fill, preprocessing.resize / preprocessing.size) if preprocessing.fit == "crop" else shown
    )


def _pad_to_square(image: NDArray[np.uint8], fill: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """In the middle of a square whose side is `share` of the picture's longer one."""
    height, width = image.shape[:2]
    side = math.ceil(max(height, width) * share)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.broadcast_to(fill, (side, side, 3)).copy()
    square[top : top + height, left : left + width] = image
    return square


def make_thumbnail(image: NDArray[np.uint8], *, width: int = 160) -> bytes:
    """An upright frame (H, W, 3) as a small JPEG of its own aspect ratio, at most twice as high as wide."""
    scale = min(width / image.shape[1], 2 * width / image.shape[0])
    shape = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = _shrink(image, *shape)
    return cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def _shrink(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Halved until less than a half is left to do, then interpolated; (H, W, 3) to (`height`, `width`, 3)."""
    while min(image.shape[0] / height, image.shape[1] / width) >= 2:
        half_height, half_width = image.shape[0] // 2, image.shape[1] // 2
        even = image[: 2 * half_height, : 2 * half_width]  # exact halves: OpenCV has a fast way for them alone
        image = np.asarray(cv2.resize(even, (half_width, half_height), interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _crop_middle_square(image: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """Cropping before resizing shows the same as resizing before cropping, for less work."""
    height, width = image.shape[:2]
    side = max(1, round(min(height, width) * share))
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]
