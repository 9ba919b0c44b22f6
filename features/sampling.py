"""Which instants of a clip to read. Pure functions on timestamps."""

import numpy as np
from numpy.typing import NDArray

from features.spec import Sampling


def instants(start: float, end: float, sampling: Sampling) -> NDArray[np.float64]:
    """The wanted instants in seconds, ascending, in `[start, end)`.

    `even` takes the middle of each of `frames` equal segments (as in Temporal Segment Networks, Wang et al. 2016);
    `rate` takes one instant every `1 / fps` seconds, half a step in, and at least one; `windows` takes `even` instants
    in each window, an instant that windows share once.
    """
    if sampling.kind == "windows":
        starts = window_starts(start, end, sampling)
        length = min(sampling.window_seconds or end - start, end - start)
        return np.unique(np.round(starts[:, None] + _middles(length, sampling.frames or 1), 6))
    if sampling.kind == "even":
        return start + _middles(end - start, sampling.frames or 1)
    step = 1.0 / (sampling.fps or 1.0)
    count = max(1, int((end - start) / step + 1e-6))
    return np.asarray(start + (np.arange(count) + 0.5) * step, np.float64)


def window_starts(start: float, end: float, sampling: Sampling) -> NDArray[np.float64]:
    """Where each window begins, in seconds; the last one ends with the video. A shorter video is one window."""
    window = sampling.window_seconds or end - start
    last = max(start, end - window)
    starts = np.arange(start, last + 1e-6, sampling.stride_seconds or window)
    return np.append(starts, last) if last - starts[-1] > 1e-6 else starts


def _middles(length: float, count: int) -> NDArray[np.float64]:
    return np.asarray((np.arange(count) + 0.5) * (length / count), np.float64)


def select(times: NDArray[np.float64], end: float, sampling: Sampling) -> NDArray[np.int64]:
    """Indices of the frames that are on screen at the wanted instants, ascending, each once.

    `times` (N,) are the ascending timestamps of the frames; a frame is on screen until the next one. A clip of fewer
    frames than wanted instants gives each of its frames once.
    """
    wanted = instants(float(times[0]), end, sampling)
    shown = np.searchsorted(times, wanted + 1e-9, side="right") - 1
    return np.unique(shown.clip(0))
