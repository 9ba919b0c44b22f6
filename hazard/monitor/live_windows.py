"""Windows of a live camera: the same grid of windows as in reports, built frame by frame."""

import math
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from features.errors import SettingsError
from features.live.pacing import next_sample_instant
from features.video.windows import Windowing
from hazard.models.input_spec import ModelInputSpec

MAX_SPAN_RATIO = 1.5
"""A window whose frames span more than this many times its length has a gap, and is not predicted."""


@dataclass(frozen=True)
class WindowGrid:
    """Frame rate, length and stride of a camera's windows."""

    fps: float
    """Frames per second that the model sees."""
    window_frames: int
    """Frames in a window."""
    stride_frames: int
    """Frames from one window to the next."""

    @property
    def max_missing_frames(self) -> int:
        """Largest number of sampling instants without a new frame that is not a gap."""
        return max(1, math.floor((MAX_SPAN_RATIO - 1) * self.window_frames))


def make_window_grid(source: ModelInputSpec, windows: Windowing) -> WindowGrid:
    """Return the window grid of a model. Raises SettingsError if the model does not work on single frames."""
    sampling = source.spec.sampling
    if sampling.kind == "even":
        rows = sampling.frames or 1
        fps = rows / windows.window_seconds
    elif sampling.kind == "rate":
        fps = sampling.fps or 1.0
        rows = max(1, round(windows.window_seconds * fps))
    else:
        raise SettingsError(
            f"the model needs frames sampled as '{sampling.kind}', which live cameras do not support; "
            "train a model with --frames N or --fps F"
        )
    return WindowGrid(fps, rows, max(1, round(windows.stride_seconds * fps)))


@dataclass(frozen=True)
class LiveWindow:
    """One window of a camera."""

    span: tuple[float, float]  # seconds of the camera's session
    core: tuple[float, float]
    """Part of the span that the prediction counts for, as in `hazard.events.decision.window_cores`."""
    steps: NDArray[np.float16]  # (T, D)


@dataclass
class WindowBuffer:
    """The last frames of one camera's session, as long as a window."""

    grid: WindowGrid
    times: deque[float] = field(default_factory=deque)
    steps: deque[NDArray[np.float16]] = field(default_factory=deque)
    instant_count: int = 0
    """Sampling instants since the session began."""

    def add(self, seconds: float, features: NDArray[np.float16]) -> list[LiveWindow]:
        """Add the features (D,) of a frame, and return the windows that it completes.

        A frame gets the time of the sampling instant that it was picked for, as in reports. With the frames' own times
        there would be small gaps or overlaps between windows, and the event rule would see other gaps. If a camera
        delivers fewer frames than the model samples, a frame counts for all instants at which it was on the screen.
        """
        windows = []
        missing = self._count_missing(seconds)
        for _ in range(missing if missing <= self.grid.max_missing_frames else 0):
            windows += self._append(self.times[-1] + 1 / self.grid.fps, self.steps[-1])
        return [*windows, *self._append(next_sample_instant(seconds, self.grid.fps), features)]

    def _count_missing(self, seconds: float) -> int:
        """Return the number of sampling instants between the last frame and a new one."""
        if not self.times:
            return 0
        return round((next_sample_instant(seconds, self.grid.fps) - self.times[-1]) * self.grid.fps) - 1

    def _append(self, seconds: float, features: NDArray[np.float16]) -> list[LiveWindow]:
        self.times.append(seconds)
        self.steps.append(features)
        self.instant_count += 1
        while len(self.times) > self.grid.window_frames:
            self.times.popleft()
            self.steps.popleft()
        is_due = (
            self.instant_count >= self.grid.window_frames
            and (self.instant_count - self.grid.window_frames) % self.grid.stride_frames == 0
        )
        window = self._make_window() if is_due else None
        return [window] if window else []

    def _make_window(self) -> LiveWindow | None:
        half, length = 0.5 / self.grid.fps, self.grid.window_frames / self.grid.fps
        start, end = max(0.0, self.times[0] - half), self.times[-1] + half
        if end - start > MAX_SPAN_RATIO * length:
            return None
        middle, half_core = (start + end) / 2, self.grid.stride_frames / self.grid.fps / 2
        is_first = self.instant_count == self.grid.window_frames
        return LiveWindow(
            (start, end), (start if is_first else middle - half_core, middle + half_core), self._stack_frames()
        )

    def _stack_frames(self) -> NDArray[np.float16]:
        """Return the window's features (T, D). A frame that counts for several instants is one row, as in reports."""
        steps = list(self.steps)
        return np.stack([steps[0], *(step for previous, step in pairwise(steps) if step is not previous)])
