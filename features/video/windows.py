"""Long videos as overlapping windows: each is a part of the video, sampled as a clip of that length would be."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.spec import ORIGINAL_VIEW, Sampling
from features.types import Span
from features.video.sampling import Indices, Rows, RowSampler, Times, select_rows, sliding_window_starts

TIME_DECIMALS = 6
"""Windows begin and end on whole microseconds, as the paths of parts say."""


@dataclass(frozen=True)
class Windowing:
    """How long videos are cut. Raises ValueError for lengths that cut nothing."""

    window_seconds: float
    stride_seconds: float
    whole_seconds: float
    """A clip no longer than this is one window, sampled as training samples it."""
    with_whole: bool = False
    """Whether the whole of a long video is sampled too, as a cache of clips would hold it."""

    def __post_init__(self) -> None:
        if not (self.window_seconds > 0 and self.stride_seconds > 0 and self.whole_seconds > 0):
            raise ValueError(f"expected lengths above 0, got {self}")

    def splits_into_windows(self, seconds: float) -> bool:
        """Whether a clip of that length is more than one window; what rounding leaves over makes no second one."""
        return seconds > self.whole_seconds + 0.1 * self.stride_seconds and seconds > self.window_seconds


def choose_window_and_stride(
    sampling: Sampling, seconds: float, stride_seconds: float | None = None
) -> tuple[float, float]:
    """Window and stride, about `seconds` and half of it, such that windows share their frames.

    Each frame of a window is then a frame of the next ones too: their instants lie on one grid.
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
    """Rounded so that no window loses its last instant."""
    scale = 10**TIME_DECIMALS
    return math.ceil(seconds * scale - 1e-3) / scale


def window_spans(start: float, end: float, windows: Windowing) -> NDArray[np.float64]:
    """(B, 2) seconds; the last window ends with the video."""
    starts = sliding_window_starts(start, end, windows.window_seconds, windows.stride_seconds)
    return np.round(np.stack([starts, np.minimum(starts + windows.window_seconds, end)], axis=1), TIME_DECIMALS)


def make_window_sampler(sampling: Sampling, windows: Windowing) -> RowSampler:
    """The rows of each window by its span; of a clip that is not cut, those of the plain view."""

    def pick(times: Times, start: float, end: float) -> Rows:
        rows: dict[str | Span, Indices] = {}
        if not windows.splits_into_windows(end - start) or windows.with_whole:
            rows[ORIGINAL_VIEW] = select_rows(times, start, end, sampling)
        if windows.splits_into_windows(end - start):
            for first, last in window_spans(start, end, windows).tolist():
                rows[first, last] = select_rows(times, first, last, sampling)
        return rows

    return pick
