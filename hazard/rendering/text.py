"""Letters and panels for pictures: drawn once, kept, and laid over frame after frame."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

INK: Colour = (245, 248, 250)
SOFT: Colour = (183, 194, 205)
PANEL: Colour = (14, 20, 27)
HOT: Colour = (213, 85, 12)
BANNER: Colour = (190, 70, 6)
COOL: Colour = (84, 158, 209)
RAIL: Colour = (74, 86, 98)

MIN_TEXT_PIXELS = 10
"""Below this letters cannot be read, however small the picture."""


@dataclass(frozen=True, eq=False)
class Patch:
    """A piece of the overlay, ready to be laid over a picture: picture * keep / 255 + paint."""

    paint: NDArray[np.uint8]  # (H, W, 3), multiplied by its opacity
    keep: NDArray[np.uint8]  # (H, W, 3), 255 = transparent


def text_pixels(width: int, height: int) -> int:
    """The size of letters on a picture of this size."""
    return max(MIN_TEXT_PIXELS, round(4 + 0.029 * min(height, 0.75 * width)))


def clock_text(seconds: float) -> str:
    """`0:04.2`, from an hour on `1:02:03.4`."""
    tenths = max(0, int(seconds * 10 + 1e-6))
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest // 10:02}.{rest % 10}"
    return f"{hours}:{minutes:02}:{tail}" if hours else f"{minutes}:{tail}"


def percent_text(share: float) -> str:
    """A whole per cent that never rounds to certainty."""
    if 0 < share < 0.01 or 0.99 < share < 1:
        return "<1 %" if share < 0.5 else ">99 %"
    return f"{100 * share:.0f} %"


def text_patch(text: str, size: int, *, colour: Colour = INK, bold: bool = False, most: int | None = None) -> Patch:
    """One line of text on nothing, 1.6 times as high as its size; at most so many pixels wide, then `…`."""
    font = font_of(size, bold)
    kept = elided(text, font, most)
    picture = Image.new("L", (max(1, round(font.getlength(kept)) + 1), round(1.6 * size)))
    ImageDraw.Draw(picture).text((0, baseline(picture.height, size)), kept, fill=255, font=font, anchor="ls")
    alpha = np.asarray(picture, np.float32)[..., None] / np.float32(255)  # (H, W, 1)
    return patch_of(alpha * np.array(colour, np.float32), alpha)


def text_width(text: str, size: int, *, bold: bool = False) -> int:
    """The pixels that a line of text takes."""
    return round(font_of(size, bold).getlength(text)) + 1


def blend(image: NDArray[np.uint8], patch: Patch, top: int, left: int) -> None:
    """Lays a patch over a picture (H, W, 3), in place; what hangs over its edges is cut off."""
    above = max(0, -top)
    place = image[max(0, top) : top + len(patch.paint), left : left + patch.paint.shape[1]]  # (h, w, 3)
    height, width = place.shape[:2]
    if height <= 0 or width <= 0:
        return
    keep, paint = (layer[above : above + height, :width] for layer in (patch.keep, patch.paint))
    place[:] = cv2.add(cv2.multiply(place, keep, scale=1 / 255), paint)


@lru_cache(maxsize=64)
def line_of(text: str, size: int) -> Patch:
    """A line in plain letters, kept: clocks and captions repeat."""
    return text_patch(text, size)


@lru_cache(maxsize=32)
def font_of(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along. It is found without importing matplotlib, which takes its time."""
    spec = find_spec("matplotlib")
    folder = Path((spec.submodule_search_locations or [""])[0]) if spec else Path()
    return ImageFont.truetype(str(folder / "mpl-data/fonts/ttf" / f"DejaVuSans{'-Bold' if bold else ''}.ttf"), size)


def baseline(height: int, size: int) -> int:
    """Where letters stand so that capitals are in the middle of a line of this height."""
    return round(height / 2 + 0.365 * size)


def elided(text: str, font: ImageFont.FreeTypeFont, most: int | None) -> str:
    """Text no wider than `most` pixels, its end an ellipsis where it was cut."""
    if most is None or font.getlength(text) <= most:
        return text
    kept = _longest(text, font, most)
    return f"{kept.rstrip()}…" if kept else ""


def _longest(text: str, font: ImageFont.FreeTypeFont, most: int) -> str:
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(f"{text[:middle]}…") <= most else (low, middle - 1)
    return text[:low]


def from_picture(picture: Image.Image) -> Patch:
    """Of a picture with alpha."""
    rgba = np.asarray(picture, np.float32)  # (H, W, 4)
    alpha = rgba[..., 3:] / np.float32(255)
    return patch_of(rgba[..., :3] * alpha, alpha)


def patch_of(paint: NDArray[np.float32], alpha: NDArray[np.float32]) -> Patch:
    """Of colours (H, W, 3) multiplied by their opacity, and that opacity (H, W, 1) in 0 … 1."""
    keep = np.broadcast_to(255 * (1 - alpha), paint.shape)
    return Patch(np.round(paint).astype(np.uint8), np.ascontiguousarray(np.round(keep).astype(np.uint8)))
