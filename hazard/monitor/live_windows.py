"""hazard.monitor.live_windows."""

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
"""A window whose frames span so many times its length has a hole: nothing is said of it."""


@dataclass(frozen=True)
class WindowGrid:
    """Which frames of a camera make a window."""

    fps: float
    """Frames that are looked at, a second."""
    window_frames: int
    """Frames of a window."""
    stride_frames: int
    """Frames from one window to the next."""

    @property
    def max_missing_frames(self) -> int:
        """So many instants without a frame of their own are no hole."""
        return max(1, math.floor((MAX_SPAN_RATIO - 1) * self.window_frames))


def make_window_grid(source: ModelInputSpec, windows: Windowing) -> WindowGrid:
    """The grid on which a model's windows lie. Raises SettingsError for models that do not look at single frames."""
    sampling = source.spec.sampling
    if sampling.kind == "even":
        rows = sampling.frames or 1
        fps = rows / windows.window_seconds
    elif sampling.kind == "rate":
        fps = sampling.fps or 1.0
        rows = max(1, round(windows.window_seconds * fps))
    else:
        raise SettingsError(
            f"the model looks at '{sampling.kind}' frames, which live cameras do not give; train one with "
            "--frames N or --fps F"
        )
    return WindowGrid(fps, rows, max(1, round(windows.stride_seconds * fps)))


@dataclass(frozen=True)
class LiveWindow:
    """Frames of a camera that the model judges together."""

    span: tuple[float, float]  # seconds of the camera's session
    core: tuple[float, float]
    """The stretch that it speaks for, as `decide.window_cores` has it."""
    steps: NDArray[np.float16]  # (T, D)


@dataclass
class WindowBuffer:
    """The last frames of one camera's session."""

    grid: WindowGrid
    times: deque[float] = field(default_factory=deque)
    steps: deque[NDArray[np.float16]] = field(default_factory=deque)
    instant_count: int = 0
    """Instants that were seen."""

    def add(self, seconds: float, features: NDArray[np.float16]) -> list[LiveWindow]:
        """One frame (D,) more, and the windows that it completes.

        What counts is the instant that the frame was picked for, as in reports: by the frames' own times windows would
        lie a little apart or overlap, and the rules would see other gaps between them. Of a camera that gives fewer
        frames than are looked at, a frame stands for all the instants at which it was on the screen.
        """
        windows = []
        missing = self._count_missing(seconds)
        for _ in range(missing if missing <= self.grid.max_missing_frames else 0):
            windows += self._append(self.times[-1] + 1 / self.grid.fps, self.steps[-1])
        return [*windows, *self._append(next_sample_instant(seconds, self.grid.fps), features)]

    def _count_missing(self, seconds: float) -> int:
        """Instants between the last one and that of a frame."""
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
        middle, reach = (start + end) / 2, self.grid.stride_frames / self.grid.fps / 2
        is_first = self.instant_count == self.grid.window_frames
        return LiveWindow((start, end), (start if is_first else middle - reach, middle + reach), self._stack_frames())

    def _stack_frames(self) -> NDArray[np.float16]:
        """(T, D): each frame once, as the rows of a report's window are, however many instants it stands for."""
        steps = list(self.steps)
        return np.stack([steps[0], *(step for last, step in pairwise(steps) if step is not last)])
