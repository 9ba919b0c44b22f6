"""Overlapping windows of long videos. Each window is sampled like a clip of the same length."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.spec import ORIGINAL_VIEW, Sampling
from features.types import Span
from features.video.sampling import Indices, Rows, RowSampler, Times, select_rows, sliding_window_starts

TIME_DECIMALS = 6
"""Decimals of window times: whole microseconds, as in the paths of parts."""


@dataclass(frozen=True)
class Windowing:
    """How long videos are split into windows. Raises ValueError if a length is not positive."""

    window_seconds: float
    stride_seconds: float
    whole_seconds: float
    """Length up to which a clip is a single window, sampled as in training."""
    with_whole: bool = False
    """Whether the whole of a long video is sampled as well, as for a clip in a cache."""

    def __post_init__(self) -> None:
        if not (self.window_seconds > 0 and self.stride_seconds > 0 and self.whole_seconds > 0):
            raise ValueError(f"expected lengths above 0, got {self}")

    def splits_into_windows(self, seconds: float) -> bool:
        """Return whether a clip of this length has more than one window. A rounding error makes no second one."""
        return seconds > self.whole_seconds + 0.1 * self.stride_seconds and seconds > self.window_seconds


def choose_window_and_stride(
    sampling: Sampling, seconds: float, stride_seconds: float | None = None
) -> tuple[float, float]:
    """Return window and stride in seconds, about `seconds` and half of it, chosen so that windows share frames.

    The sampled instants of all windows lie on one grid, so that a frame of a window is also a frame of the next one.
    """
    if sampling.kind == "even":
        count = sampling.frames or 1
        step = max(0.001, round(seconds / count, 3))
    elif sampling.kind == "rate":
        step = 1.0 / (sampling.fps or 1.0)
        count = max(1, round(seconds / step))
    else:
        return round(seconds, TIME_DECIMALS), stride_seconds or round(seconds / 2, TIME_DECIMALS)
    return _round_up(count * step), stride_seconds or _round_up(max(1, count // 2) * step)


def _round_up(seconds: float) -> float:
    """Round up to TIME_DECIMALS, so that no window loses its last instant."""
    scale = 10**TIME_DECIMALS
    return math.ceil(seconds * scale - 1e-3) / scale


def window_spans(start: float, end: float, windows: Windowing) -> NDArray[np.float64]:
    """Return the spans (B, 2) of the windows in seconds. The last one ends with the video."""
    starts = sliding_window_starts(start, end, windows.window_seconds, windows.stride_seconds)
    return np.round(np.stack([starts, np.minimum(starts + windows.window_seconds, end)], axis=1), TIME_DECIMALS)


def make_window_sampler(sampling: Sampling, windows: Windowing) -> RowSampler:
    """Return a sampler of the rows of each window, or of the original view for a clip that is not split."""

    def sample(times: Times, start: float, end: float) -> Rows:
        rows: dict[str | Span, Indices] = {}
        if not windows.splits_into_windows(end - start) or windows.with_whole:
            rows[ORIGINAL_VIEW] = select_rows(times, start, end, sampling)
        if windows.splits_into_windows(end - start):
            for first, last in window_spans(start, end, windows).tolist():
                rows[first, last] = select_rows(times, first, last, sampling)
        return rows

    return sample
