"""Letters and panels for pictures: drawn once, kept, and laid over frame after frame."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]

TEXT_COLOR: Color = (245, 248, 250)
MUTED_TEXT_COLOR: Color = (183, 194, 205)
PANEL_COLOR: Color = (14, 20, 27)
ALARM_COLOR: Color = (213, 85, 12)
BANNER_COLOR: Color = (190, 70, 6)
CALM_COLOR: Color = (84, 158, 209)
METER_COLOR: Color = (74, 86, 98)

MIN_TEXT_PIXELS = 10
"""Below this letters cannot be read, however small the picture."""


@dataclass(frozen=True, eq=False)
class OverlayPatch:
    """A piece of the overlay, ready to be laid over a picture: picture * keep / 255 + paint."""

    premultiplied_color: NDArray[np.uint8]  # (H, W, 3), multiplied by its opacity
    transparency: NDArray[np.uint8]  # (H, W, 3), 255 = transparent


def font_size_pixels(width: int, height: int) -> int:
    """The size of letters on a picture of this size."""
    return max(MIN_TEXT_PIXELS, round(4 + 0.029 * min(height, 0.75 * width)))


def format_timecode(seconds: float) -> str:
    """`0:04.2`, from an hour on `1:02:03.4`."""
    tenths = max(0, int(seconds * 10 + 1e-6))
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest // 10:02}.{rest % 10}"
    return f"{hours}:{minutes:02}:{tail}" if hours else f"{minutes}:{tail}"


def format_percent(share: float) -> str:
    """A whole per cent that never rounds to certainty."""
    if 0 < share < 0.01 or 0.99 < share < 1:
        return "<1 %" if share < 0.5 else ">99 %"
    return f"{100 * share:.0f} %"


def render_text(
    text: str, size: int, *, color: Color = TEXT_COLOR, bold: bool = False, max_pixels: int | None = None
) -> OverlayPatch:
    """One line of text on nothing, 1.6 times as high as its size; at most so many pixels wide, then `…`."""
    font = load_font(size, bold)
    kept = elide_text(text, font, max_pixels)
    picture = Image.new("L", (max(1, round(font.getlength(kept)) + 1), round(1.6 * size)))
    ImageDraw.Draw(picture).text((0, text_baseline(picture.height, size)), kept, fill=255, font=font, anchor="ls")
    alpha = np.asarray(picture, np.float32)[..., None] / np.float32(255)  # (H, W, 1)
    return make_patch(alpha * np.array(color, np.float32), alpha)


def measure_text_width(text: str, size: int, *, bold: bool = False) -> int:
    """The pixels that a line of text takes."""
    return round(load_font(size, bold).getlength(text)) + 1


def blend(image: NDArray[np.uint8], patch: OverlayPatch, top: int, left: int) -> None:
    """Lays a patch over a picture (H, W, 3), in place; what hangs over its edges is cut off."""
    above = max(0, -top)
    place = image[
        max(0, top) : top + len(patch.premultiplied_color), left : left + patch.premultiplied_color.shape[1]
    ]  # (h, w, 3)
    height, width = place.shape[:2]
    if height <= 0 or width <= 0:
        return
    keep, paint = (layer[above : above + height, :width] for layer in (patch.transparency, patch.premultiplied_color))
    place[:] = cv2.add(cv2.multiply(place, keep, scale=1 / 255), paint)


@lru_cache(maxsize=64)
def render_cached_text(text: str, size: int) -> OverlayPatch:
    """A line in plain letters, kept: clocks and captions repeat."""
    return render_text(text, size)


@lru_cache(maxsize=32)
def load_font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along. It is found without importing matplotlib, which takes its time."""
    spec = find_spec("matplotlib")
    folder = Path((spec.submodule_search_locations or [""])[0]) if spec else Path()
    return ImageFont.truetype(str(folder / "mpl-data/fonts/ttf" / f"DejaVuSans{'-Bold' if bold else ''}.ttf"), size)


def text_baseline(height: int, size: int) -> int:
    """Where letters stand so that capitals are in the middle of a line of this height."""
    return round(height / 2 + 0.365 * size)


def elide_text(text: str, font: ImageFont.FreeTypeFont, max_pixels: int | None) -> str:
    """Text no wider than `most` pixels, its end an ellipsis where it was cut."""
    if max_pixels is None or font.getlength(text) <= max_pixels:
        return text
    kept = _longest_prefix_that_fits(text, font, max_pixels)
    return f"{kept.rstrip()}…" if kept else ""


def _longest_prefix_that_fits(text: str, font: ImageFont.FreeTypeFont, max_pixels: int) -> str:
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(f"{text[:middle]}…") <= max_pixels else (low, middle - 1)
    return text[:low]


def patch_from_image(image: Image.Image) -> OverlayPatch:
    """Of a picture with alpha."""
    rgba = np.asarray(image, np.float32)  # (H, W, 4)
    alpha = rgba[..., 3:] / np.float32(255)
    return make_patch(rgba[..., :3] * alpha, alpha)


def make_patch(premultiplied_color: NDArray[np.float32], alpha: NDArray[np.float32]) -> OverlayPatch:
    """Of colours (H, W, 3) multiplied by their opacity, and that opacity (H, W, 1) in 0 … 1."""
    keep = np.broadcast_to(255 * (1 - alpha), premultiplied_color.shape)
    return OverlayPatch(
        np.round(premultiplied_color).astype(np.uint8), np.ascontiguousarray(np.round(keep).astype(np.uint8))
    )
