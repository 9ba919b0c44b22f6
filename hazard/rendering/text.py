"""Text and panels for overlays: drawn once, cached, and blended onto frames."""

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
"""Smallest font size: smaller text cannot be read."""


@dataclass(frozen=True, eq=False)
class OverlayPatch:
    """A piece of the overlay, to be blended: image * transparency / 255 + premultiplied_color."""

    premultiplied_color: NDArray[np.uint8]  # (H, W, 3), multiplied by its opacity
    transparency: NDArray[np.uint8]  # (H, W, 3), 255 = transparent


def font_size_pixels(width: int, height: int) -> int:
    """Return the font size in pixels for an image of this size."""
    return max(MIN_TEXT_PIXELS, round(4 + 0.029 * min(height, 0.75 * width)))


def format_timecode(seconds: float) -> str:
    """Format seconds as `0:04.2`, from an hour on as `1:02:03.4`. Tenths are cut, not rounded."""
    tenths = max(0, int(seconds * 10 + 1e-6))
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest // 10:02}.{rest % 10}"
    return f"{hours}:{minutes:02}:{tail}" if hours else f"{minutes}:{tail}"


def format_percent(share: float) -> str:
    """Format a share as a whole per cent that never rounds to 0 % or 100 %."""
    if 0 < share < 0.01 or 0.99 < share < 1:
        return "<1 %" if share < 0.5 else ">99 %"
    return f"{100 * share:.0f} %"


def render_text(
    text: str, size: int, *, color: Color = TEXT_COLOR, bold: bool = False, max_pixels: int | None = None
) -> OverlayPatch:
    """Render one line of text on a transparent background, 1.6 times as high as `size`.

    Text wider than `max_pixels` ends with `…`.
    """
    font = load_font(size, bold)
    text = elide_text(text, font, max_pixels)
    image = Image.new("L", (max(1, round(font.getlength(text)) + 1), round(1.6 * size)))
    ImageDraw.Draw(image).text((0, text_baseline(image.height, size)), text, fill=255, font=font, anchor="ls")
    alpha = np.asarray(image, np.float32)[..., None] / np.float32(255)  # (H, W, 1)
    return make_patch(alpha * np.array(color, np.float32), alpha)


def measure_text_width(text: str, size: int, *, bold: bool = False) -> int:
    """Return the width of a line of text in pixels."""
    return round(load_font(size, bold).getlength(text)) + 1


def blend(image: NDArray[np.uint8], patch: OverlayPatch, top: int, left: int) -> None:
    """Blend a patch onto an image (H, W, 3), in place. Parts beyond the edges are cut off."""
    above = max(0, -top)
    region = image[
        max(0, top) : top + len(patch.premultiplied_color), left : left + patch.premultiplied_color.shape[1]
    ]  # (h, w, 3)
    height, width = region.shape[:2]
    if height <= 0 or width <= 0:
        return
    layers = (patch.transparency, patch.premultiplied_color)
    transparency, color = (layer[above : above + height, :width] for layer in layers)
    region[:] = cv2.add(cv2.multiply(region, transparency, scale=1 / 255), color)


@lru_cache(maxsize=64)
def render_cached_text(text: str, size: int) -> OverlayPatch:
    """Render a line in the regular font, with a cache: clocks and captions repeat."""
    return render_text(text, size)


@lru_cache(maxsize=32)
def load_font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans, which matplotlib ships. It is found without importing matplotlib, which is slow."""
    spec = find_spec("matplotlib")
    folder = Path((spec.submodule_search_locations or [""])[0]) if spec else Path()
    return ImageFont.truetype(str(folder / "mpl-data/fonts/ttf" / f"DejaVuSans{'-Bold' if bold else ''}.ttf"), size)


def text_baseline(height: int, size: int) -> int:
    """Return the y of the baseline that centres capitals in a line of this height."""
    return round(height / 2 + 0.365 * size)


def elide_text(text: str, font: ImageFont.FreeTypeFont, max_pixels: int | None) -> str:
    """Return the text, or as much of it as fits into `max_pixels` with `…` at its end."""
    if max_pixels is None or font.getlength(text) <= max_pixels:
        return text
    prefix = _longest_prefix_that_fits(text, font, max_pixels)
    return f"{prefix.rstrip()}…" if prefix else ""


def _longest_prefix_that_fits(text: str, font: ImageFont.FreeTypeFont, max_pixels: int) -> str:
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(f"{text[:middle]}…") <= max_pixels else (low, middle - 1)
    return text[:low]


def patch_from_image(image: Image.Image) -> OverlayPatch:
    """Make a patch from an RGBA image."""
    rgba = np.asarray(image, np.float32)  # (H, W, 4)
    alpha = rgba[..., 3:] / np.float32(255)
    return make_patch(rgba[..., :3] * alpha, alpha)


def make_patch(premultiplied_color: NDArray[np.float32], alpha: NDArray[np.float32]) -> OverlayPatch:
    """Make a patch from colors (H, W, 3), already multiplied by their opacity, and that opacity (H, W, 1) in 0 … 1."""
    transparency = np.broadcast_to(255 * (1 - alpha), premultiplied_color.shape)
    return OverlayPatch(
        np.round(premultiplied_color).astype(np.uint8), np.ascontiguousarray(np.round(transparency).astype(np.uint8))
    )
