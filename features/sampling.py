"""Which instants of a clip to read. Pure functions on timestamps."""

import numpy as np
from numpy.typing import NDArray

from features.spec import Sampling


def instants(start: float, end: float, sampling: Sampling) -> NDArray[np.float64]:
    """The wanted instants in seconds, in `[start, end)`.

    `even` takes the middle of each of `frames` equal segments (as in Temporal Segment Networks, Wang et al. 2016);
    `rate` takes one instant every `1 / fps` seconds, half a step in, and at least one.
    """
    if sampling.kind == "even":
        count = sampling.frames or 1
        step = (end - start) / count
    else:
        step = 1.0 / (sampling.fps or 1.0)
        count = max(1, int((end - start) / step + 1e-6))
    return np.asarray(start + (np.arange(count) + 0.5) * step, np.float64)


def select(times: NDArray[np.float64], end: float, sampling: Sampling) -> NDArray[np.int64]:
    """Indices of the frames that are on screen at the wanted instants, ascending, each once.

    `times` (N,) are the ascending timestamps of the frames; a frame is on screen until the next one. A clip of fewer
    frames than wanted instants gives each of its frames once.
    """
    wanted = instants(float(times[0]), end, sampling)
    shown = np.searchsorted(times, wanted + 1e-9, side="right") - 1
    return np.unique(shown.clip(0))
