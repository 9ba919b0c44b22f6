"""Augmentation views, cached beside the unchanged clip. Only training in stage two samples among them."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from features.errors import SettingsError
from features.spec import ORIGINAL_VIEW, Sampling
from features.utils.text import suggest_name

if TYPE_CHECKING:  # torch takes seconds to import, and the original view does not need it
    from torch import Tensor

MAX_ROTATION_DEGREES = 10.0
"""Largest rotation to either side."""

PixelTransform: TypeAlias = "Callable[[Tensor], Tensor]"
"""uint8 (N, 3, S, S) to the same shape, with one random draw for all frames of a clip."""


@dataclass(frozen=True)
class AugmentationView:
    """What a view changes: the pixels of the frames, or the sampled instants."""

    make_transform: "Callable[[], PixelTransform] | None" = None
    jitters_time: bool = False


def _make_flip() -> PixelTransform:
    from torchvision.transforms.v2.functional import horizontal_flip

    return horizontal_flip


def _make_crop() -> PixelTransform:
    from torchvision.transforms import v2

    def crop(frames: "Tensor") -> "Tensor":
        return v2.RandomResizedCrop(list(frames.shape[-2:]), scale=(0.5, 0.9), ratio=(0.9, 1.1), antialias=True)(frames)

    return crop


def _make_color_jitter() -> PixelTransform:
    from torchvision.transforms import v2

    return v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.03)


def _make_rotation() -> PixelTransform:
    """Return a rotation that enlarges the frame just enough to show no empty corners, which no camera produces."""
    import torch
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import affine

    def rotate(frames: "Tensor") -> "Tensor":
        degrees = float(torch.empty(1).uniform_(-MAX_ROTATION_DEGREES, MAX_ROTATION_DEGREES))
        scale = math.cos(math.radians(degrees)) + math.sin(math.radians(abs(degrees)))  # for a square
        return affine(frames, degrees, [0, 0], scale, [0.0, 0.0], interpolation=InterpolationMode.BILINEAR)

    return rotate


VIEWS: dict[str, AugmentationView] = {
    ORIGINAL_VIEW: AugmentationView(),
    "flip": AugmentationView(_make_flip),
    "crop": AugmentationView(_make_crop),
    "colour": AugmentationView(_make_color_jitter),
    "rotate": AugmentationView(_make_rotation),
    "jitter": AugmentationView(jitters_time=True),
}
"""Views by name. Names are joined by `+`; a number at the end, as in `flip+crop:2`, gives another random draw."""


def check_views(names: Sequence[str], sampling: Sampling) -> tuple[str, ...]:
    """Return the original view and then the others, each once and sorted by name.

    Raises SettingsError for an unknown name and for a view that would change nothing.
    """
    for name in names:
        for part in _split_view_name(name):
            if part not in VIEWS:
                where = f" in '{name}'" if part != name else ""
                raise SettingsError(f"unknown view '{part}'{where}; {suggest_name(part, VIEWS)}")
        if ORIGINAL_VIEW in _split_view_name(name) and name != ORIGINAL_VIEW:
            raise SettingsError(f"view '{name}': '{ORIGINAL_VIEW}' is the unchanged clip and cannot be combined")
        variant = name.partition(":")[2]
        if ":" in name and not variant.isdecimal():
            raise SettingsError(f"view '{name}' must end in a number after the colon, as in crop:2")
        if sampling.kind == "all" and any(VIEWS[part].jitters_time for part in _split_view_name(name)):
            raise SettingsError(f"view '{name}' shifts the sampled instants, but all_frames reads every frame already")
    return (ORIGINAL_VIEW, *sorted(set(names) - {ORIGINAL_VIEW}))


def view_seed(name: str, digest: str) -> int:
    """Return the random seed of a view of the clip with this sha256 digest. It is the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{name} {digest}".encode()).digest()[:6])


def jitter_seed(name: str, digest: str) -> int | None:
    """Return the seed of a view's temporal jitter, or None if the view does not shift the instants."""
    return view_seed(name, digest) if any(VIEWS[part].jitters_time for part in _split_view_name(name)) else None


def changes_pixels(name: str) -> bool:
    """Return whether a view changes pixels, which needs torch."""
    return any(VIEWS[part].make_transform for part in _split_view_name(name))


def apply_view(name: str, frames: NDArray[np.uint8], digest: str) -> NDArray[np.uint8]:
    """Apply a view to the frames (N, S, S, 3) of one clip. All frames are changed in the same way."""
    factories = [VIEWS[part].make_transform for part in _split_view_name(name)]
    if not any(factories):
        return frames
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(view_seed(name, digest))
        tensor = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (N, 3, S, S)
        for make_transform in factories:
            tensor = make_transform()(tensor) if make_transform else tensor
    return np.ascontiguousarray(tensor.permute(0, 2, 3, 1).numpy())


def _split_view_name(name: str) -> list[str]:
    return name.partition(":")[0].split("+")
