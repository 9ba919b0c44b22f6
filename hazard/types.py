"""Types shared by all of stage two; the shape letters are those of `features.types`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.spec import ORIGINAL_VIEW

StepFeatures = NDArray[np.float16] | NDArray[np.float32]
"""Features of steps: float16, as a cache holds them, until a batch becomes float32 to be computed with."""


@dataclass(frozen=True)
class SequenceView:
    """An augmentation view of the clips of `Sequences`: the same rows and the same shape."""

    name: str
    x: StepFeatures  # (B, T, D)
    mask: NDArray[np.bool_]  # (B, T) True = real


@dataclass(frozen=True)
class Sequences:
    """The tracks of a cache, padded to one length and held in memory. A row is one clip, however many views it has."""

    x: StepFeatures  # (B, T, D)
    mask: NDArray[np.bool_]  # (B, T) True = real
    y: NDArray[np.int64]  # (B,), -1 = no label
    groups: NDArray[np.str_]  # (B,)
    paths: NDArray[np.str_]  # (B,)
    splits: NDArray[np.str_]  # (B,) "" = none
    labels: tuple[str, ...]  # K names, y indexes them
    views: tuple[SequenceView, ...] = ()
    """Augmentation views besides the plain tracks, for training only."""
    durations: NDArray[np.float64] | None = None
    """(B,) seconds, NaN for a clip of unknown duration; None if no duration is known."""

    def __post_init__(self) -> None:
        if self.x.ndim != 3 or self.mask.shape != self.x.shape[:2] or self.mask.dtype != np.bool_:
            raise ValueError(f"expected x (B, T, D) and mask bool (B, T), got {self.x.shape} and {self.mask.shape}")
        for name in ("y", "groups", "paths", "splits"):
            if getattr(self, name).shape != self.x.shape[:1]:
                raise ValueError(f"expected {name} ({len(self.x)},), got {getattr(self, name).shape}")
        if self.durations is not None and self.durations.shape != self.x.shape[:1]:
            raise ValueError(f"expected durations ({len(self.x)},), got {self.durations.shape}")
        for view in self.views:
            if view.x.shape != self.x.shape or view.mask.shape != self.mask.shape:
                raise ValueError(f"expected a view {self.x.shape}, got {view.x.shape} and {view.mask.shape}")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def view_names(self) -> tuple[str, ...]:
        """Names of all views, the plain one first."""
        return (ORIGINAL_VIEW, *(view.name for view in self.views))

    @property
    def clips_without_group(self) -> int:
        """Number of clips that name no group. Each of them is its own group, named by its path."""
        return int((self.groups == self.paths).sum())

    @property
    def groups_known(self) -> bool:
        """True if every clip names its group, so that a split by groups cannot leak."""
        return self.clips_without_group == 0

    def take(self, index: NDArray[np.int64]) -> "Sequences":
        """Return the rows that `index` selects, in that order."""
        columns = {name: getattr(self, name)[index] for name in ("x", "mask", "y", "groups", "paths", "splits")}
        views = tuple(SequenceView(view.name, view.x[index], view.mask[index]) for view in self.views)
        durations = None if self.durations is None else self.durations[index]
        return Sequences(**columns, labels=self.labels, views=views, durations=durations)


@dataclass(frozen=True)
class Event:
    """A segment of video in which a label was probable."""

    label: str
    start: float  # seconds
    end: float
    peak: float
    """Highest probability of its windows."""
    mean: float
    """Mean probability of its windows."""


@dataclass(frozen=True)
class WindowPredictions:
    """Probabilities of the windows of one video, in time order. A short clip is one window."""

    spans: NDArray[np.float64]  # (B, 2) seconds from the clip's start
    probs: NDArray[np.float64]  # (B, K)

    def __post_init__(self) -> None:
        if self.spans.ndim != 2 or self.spans.shape[1] != 2 or self.probs.shape[:1] != self.spans.shape[:1]:
            raise ValueError(f"expected spans (B, 2) and probs (B, K), got {self.spans.shape} and {self.probs.shape}")

    def __len__(self) -> int:
        return len(self.spans)


@dataclass(frozen=True)
class ClipPrediction:
    """The result for one clip, as reports show it. A failed clip has a reason and never a label."""

    path: str
    status: str  # ok | partial | failed
    reason: str = ""
    label: str = ""
    probs: tuple[float, ...] = ()  # K, in the order of the model's labels
    truth: str = ""
    duration: float = 0.0
    thumbnails: Sequence[bytes] = ()  # JPEG, in time order
    thumbnail_times: Sequence[float] = ()
    windows: WindowPredictions | None = None
    """None if the clip failed."""
    events: tuple[Event, ...] = ()
    attention: tuple[float, ...] = ()
    """Weight of each step of the peak window, if the head has attention weights; sums to one."""
    attention_times: tuple[float, ...] = ()
    """Time of each of those steps, in seconds."""
    unknown_score: float | None = None
    """Distance from all training clips; higher is less familiar. None if the model has no open-set detector."""
    is_unknown: bool = False
    """True if the clip is so unlike the training clips that its label means little."""
    zero_shot: tuple[tuple[str, float], ...] = ()
    """Names that CLIP suggests for an unknown clip, with their probabilities, the most likely first."""
    file: str = ""
    """Path of the video on this machine, if it is a local file."""
