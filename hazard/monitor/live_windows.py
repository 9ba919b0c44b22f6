"""hazard.monitor.live_windows."""

import math
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from features.errors import SettingsError
from features.live.pacing import instant
from features.video.windows import Windows
from hazard.models.input_spec import ModelSource

GAP = 1.5
"""A window whose frames span so many times its length has a hole: nothing is said of it."""


@dataclass(frozen=True)
class Grid:
    """Which frames of a camera make a window."""

    fps: float
    """Frames that are looked at, a second."""
    rows: int
    """Frames of a window."""
    stride: int
    """Frames from one window to the next."""

    @property
    def most_missing(self) -> int:
        """So many instants without a frame of their own are no hole."""
        return max(1, math.floor((GAP - 1) * self.rows))


def live_grid(source: ModelSource, windows: Windows) -> Grid:
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
    return Grid(fps, rows, max(1, round(windows.stride_seconds * fps)))


@dataclass(frozen=True)
class Window:
    """Frames of a camera that the model judges together."""

    span: tuple[float, float]  # seconds of the camera's session
    core: tuple[float, float]
    """The stretch that it speaks for, as `decide.window_cores` has it."""
    steps: NDArray[np.float16]  # (T, D)


@dataclass
class Stream:
    """The last frames of one camera's session."""

    grid: Grid
    times: deque[float] = field(default_factory=deque)
    steps: deque[NDArray[np.float16]] = field(default_factory=deque)
    count: int = 0
    """Instants that were seen."""

    def add(self, seconds: float, features: NDArray[np.float16]) -> list[Window]:
        """One frame (D,) more, and the windows that it completes.

        What counts is the instant that the frame was picked for, as in reports: by the frames' own times windows would
        lie a little apart or overlap, and the rules would see other gaps between them. Of a camera that gives fewer
        frames than are looked at, a frame stands for all the instants at which it was on the screen.
        """
        windows = []
        missing = self._missing(seconds)
        for _ in range(missing if missing <= self.grid.most_missing else 0):
            windows += self._put(self.times[-1] + 1 / self.grid.fps, self.steps[-1])
        return [*windows, *self._put(instant(seconds, self.grid.fps), features)]

    def _missing(self, seconds: float) -> int:
        """Instants between the last one and that of a frame."""
        if not self.times:
            return 0
        return round((instant(seconds, self.grid.fps) - self.times[-1]) * self.grid.fps) - 1

    def _put(self, at: float, features: NDArray[np.float16]) -> list[Window]:
        self.times.append(at)
        self.steps.append(features)
        self.count += 1
        while len(self.times) > self.grid.rows:
            self.times.popleft()
            self.steps.popleft()
        is_due = self.count >= self.grid.rows and (self.count - self.grid.rows) % self.grid.stride == 0
        window = self._window() if is_due else None
        return [window] if window else []

    def _window(self) -> Window | None:
        half, length = 0.5 / self.grid.fps, self.grid.rows / self.grid.fps
        start, end = max(0.0, self.times[0] - half), self.times[-1] + half
        if end - start > GAP * length:
            return None
        middle, reach = (start + end) / 2, self.grid.stride / self.grid.fps / 2
        is_first = self.count == self.grid.rows
        return Window((start, end), (start if is_first else middle - reach, middle + reach), self._frames())

    def _frames(self) -> NDArray[np.float16]:
        """(T, D): each frame once, as the rows of a report's window are, however many instants it stands for."""
        steps = list(self.steps)
        return np.stack([steps[0], *(step for last, step in pairwise(steps) if step is not last)])
