"""Preprocessing on the CPU: an upright RGB frame to the small square that the backbone takes."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from features.spec import Preprocessing


def preprocess_frame(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Crop and resize an RGB frame (H, W, 3) to (S, S, 3)."""
    if preprocessing.fit == "crop":
        image = _crop_middle_square(image, preprocessing.size / preprocessing.resize)
    return _shrink(image, preprocessing.size, preprocessing.size)


Corner = tuple[float, float]
"""x and y of a point, as shares of the frame's width and height."""


def crop_to_zone(
    image: NDArray[np.uint8], corners: Sequence[Corner], preprocessing: Preprocessing
) -> NDArray[np.uint8]:
    """Crop a frame (H, W, 3) to the bounding box of a polygon and fill what lies outside it.

    The fill is the mean colour of the backbone's training data. `preprocess_frame` then shows the whole zone: if it
    crops the middle square, the box is padded to a square that is larger by the same factor.
    """
    height, width = image.shape[:2]
    points = np.round(np.array(corners) * (width, height)).astype(np.int32)  # (P, 2)
    left, top = points.min(axis=0).clip(0, (width - 1, height - 1))
    right, bottom = np.maximum(points.max(axis=0).clip(0, (width, height)), (left + 1, top + 1))
    mask = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillPoly(mask, [points - (left, top)], 1)
    fill = np.round(np.array(preprocessing.mean) * 255).astype(np.uint8)
    zone = np.where(mask[..., None] > 0, image[top:bottom, left:right], fill)
    return (
        _pad_to_square(zone, fill, preprocessing.resize / preprocessing.size) if preprocessing.fit == "crop" else zone
    )


def _pad_to_square(image: NDArray[np.uint8], fill: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """Place an image in the middle of a square whose side is `share` times the longer side of the image."""
    height, width = image.shape[:2]
    side = math.ceil(max(height, width) * share)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.broadcast_to(fill, (side, side, 3)).copy()
    square[top : top + height, left : left + width] = image
    return square


def make_thumbnail(image: NDArray[np.uint8], *, width: int = 160) -> bytes:
    """Return an upright frame (H, W, 3) as a small JPEG of the same aspect ratio, at most twice as high as `width`."""
    scale = min(width / image.shape[1], 2 * width / image.shape[0])
    shape = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = _shrink(image, *shape)
    return cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def _shrink(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Shrink (H, W, 3) to (`height`, `width`, 3): halve while at least twice too large, then interpolate bilinearly."""
    while min(image.shape[0] / height, image.shape[1] / width) >= 2:
        half_height, half_width = image.shape[0] // 2, image.shape[1] // 2
        even = image[: 2 * half_height, : 2 * half_width]  # OpenCV is fast only for exact halves
        image = np.asarray(cv2.resize(even, (half_width, half_height), interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _crop_middle_square(image: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """Crop the middle square, its side `share` of the short side. Cropping before the resize is less work."""
    height, width = image.shape[:2]
    side = max(1, round(min(height, width) * share))
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]
