"""VIEWS: augmentation views, cached beside the clip as it is. Stage two samples among them in training alone."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from features.config import nearest
from features.errors import SettingsError

PLAIN = "none"
"""The clip as it is: always there, and the only view in evaluation and inference."""

Pixels = Callable[[torch.Tensor], torch.Tensor]  # uint8 (N, 3, S, S) to the same, one draw for all frames of a clip


@dataclass(frozen=True)
class View:
    """What a view changes: the pixels of a clip's frames, or which instants are read."""

    pixels: Callable[[], Pixels] | None = None
    jitters_time: bool = False


def _flip() -> Pixels:
    from torchvision.transforms.v2.functional import horizontal_flip

    return horizontal_flip


def _crop() -> Pixels:
    from torchvision.transforms import v2

    def crop(frames: torch.Tensor) -> torch.Tensor:
        return v2.RandomResizedCrop(list(frames.shape[-2:]), scale=(0.5, 0.9), ratio=(0.9, 1.1), antialias=True)(frames)

    return crop


def _colour() -> Pixels:
    from torchvision.transforms import v2

    return v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.03)


def _rotate() -> Pixels:
    from torchvision.transforms import InterpolationMode, v2

    return v2.RandomRotation(10, interpolation=InterpolationMode.BILINEAR)


VIEWS: dict[str, View] = {
    PLAIN: View(),
    "flip": View(_flip),
    "crop": View(_crop),
    "colour": View(_colour),
    "rotate": View(_rotate),
    "jitter": View(jitters_time=True),
}
"""Joined by `+`; `:2` at the end draws anew, as in `flip+crop:2`."""


def check_views(names: Sequence[str]) -> tuple[str, ...]:
    """The views with the plain one first, each once. Raises SettingsError for an unknown name."""
    for name in names:
        for part in _parts(name):
            if part not in VIEWS:
                raise SettingsError(f"unknown view '{part}' in '{name}'; {nearest(part, VIEWS)}")
        variant = name.partition(":")[2]
        if ":" in name and not variant.isdecimal():
            raise SettingsError(f"view '{name}' must end in a number after the colon, as in crop:2")
    return tuple(dict.fromkeys([PLAIN, *names]))


def view_seed(name: str, digest: str) -> int:
    """The same for the same view of the same clip, everywhere."""
    return int.from_bytes(hashlib.sha256(f"{name} {digest}".encode()).digest()[:6])


def time_seed(name: str, digest: str) -> int | None:
    """The seed of a view's temporal jitter; None where it reads the usual instants."""
    return view_seed(name, digest) if any(VIEWS[part].jitters_time for part in _parts(name)) else None


def apply_view(name: str, frames: NDArray[np.uint8], digest: str) -> NDArray[np.uint8]:
    """Frames (N, S, S, 3) of one clip as a view shows them; all frames are changed alike."""
    changes = [VIEWS[part].pixels for part in _parts(name)]
    if not any(changes):
        return frames
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(view_seed(name, digest))
        tensor = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (N, 3, S, S)
        for change in changes:
            tensor = change()(tensor) if change else tensor
    return np.ascontiguousarray(tensor.permute(0, 2, 3, 1).numpy())


def _parts(name: str) -> list[str]:
    return name.partition(":")[0].split("+")
