"""VIEWS: augmentation views, cached beside the clip as it is. Stage two samples among them in training alone."""

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

if TYPE_CHECKING:  # who looks at clips as they are does without torch, which takes seconds to import
    from torch import Tensor

MAX_ROTATION_DEGREES = 10.0
"""A rotation is of at most so many degrees to either side."""

PixelTransform: TypeAlias = (
    "Callable[[Tensor], Tensor]"  # uint8 (N, 3, S, S) to the same, one draw for all frames of a clip
)


@dataclass(frozen=True)
class AugmentationView:
    """What a view changes: the pixels of a clip's frames, or which instants are read."""

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
    """Enlarged just so much that no empty corner shows: black triangles are nothing that a camera sees."""
    import torch
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import affine

    def rotate(frames: "Tensor") -> "Tensor":
        degrees = float(torch.empty(1).uniform_(-MAX_ROTATION_DEGREES, MAX_ROTATION_DEGREES))
        scale = math.cos(math.radians(degrees)) + math.sin(math.radians(abs(degrees)))  # of a square
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
"""Joined by `+`; `:2` at the end draws anew, as in `flip+crop:2`."""


def check_views(names: Sequence[str], sampling: Sampling) -> tuple[str, ...]:
    """The plain view, then the others by name, each once: their order means nothing.

    Raises SettingsError for an unknown name, and for a view that would change nothing.
    """
    for name in names:
        for part in _split_view_name(name):
            if part not in VIEWS:
                where = f" in '{name}'" if part != name else ""
                raise SettingsError(f"unknown view '{part}'{where}; {suggest_name(part, VIEWS)}")
        if ORIGINAL_VIEW in _split_view_name(name) and name != ORIGINAL_VIEW:
            raise SettingsError(f"view '{name}': '{ORIGINAL_VIEW}' stands alone, it is the clip as it is")
        variant = name.partition(":")[2]
        if ":" in name and not variant.isdecimal():
            raise SettingsError(f"view '{name}' must end in a number after the colon, as in crop:2")
        if sampling.kind == "all" and any(VIEWS[part].jitters_time for part in _split_view_name(name)):
            raise SettingsError(f"view '{name}' reads other instants, but all_frames reads every one already")
    return (ORIGINAL_VIEW, *sorted(set(names) - {ORIGINAL_VIEW}))


def view_seed(name: str, digest: str) -> int:
    """The same for the same view of the same clip, everywhere."""
    return int.from_bytes(hashlib.sha256(f"{name} {digest}".encode()).digest()[:6])


def jitter_seed(name: str, digest: str) -> int | None:
    """The seed of a view's temporal jitter; None where it reads the usual instants."""
    return view_seed(name, digest) if any(VIEWS[part].jitters_time for part in _split_view_name(name)) else None


def changes_pixels(name: str) -> bool:
    """Whether a view shows other pixels than the clip's own; that is torch's work."""
    return any(VIEWS[part].make_transform for part in _split_view_name(name))


def apply_view(name: str, frames: NDArray[np.uint8], digest: str) -> NDArray[np.uint8]:
    """Frames (N, S, S, 3) of one clip as a view shows them; all frames are changed alike."""
    changes = [VIEWS[part].make_transform for part in _split_view_name(name)]
    if not any(changes):
        return frames
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(view_seed(name, digest))
        tensor = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (N, 3, S, S)
        for change in changes:
            tensor = change()(tensor) if change else tensor
    return np.ascontiguousarray(tensor.permute(0, 2, 3, 1).numpy())


def _split_view_name(name: str) -> list[str]:
    return name.partition(":")[0].split("+")
