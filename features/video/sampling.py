"""Which instants of a clip to read, and which frames make a row of features. Pure functions on timestamps."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from features.spec import Sampling
from features.types import Span

Times = NDArray[np.float64]
Indices = NDArray[np.int64]


Rows = Mapping[str | Span, Indices]
"""Frame numbers (R, L) of the rows of each view, by its name, or of each window, by its span."""

RowSampler = Callable[[Times, float, float], Rows]
"""From the times of all frames and the part [start, end) that is meant to the rows wanted of it."""


def make_row_sampler(
    sampling: Sampling, seeds: Mapping[str, int | None] = MappingProxyType({"none": None})
) -> RowSampler:
    """The rows of each view that `seeds` names; a view whose seed is None is not jittered."""
    return lambda times, start, end: {
        view: select_rows(times, start, end, sampling, seed=seed) for view, seed in seeds.items()
    }


def select_rows(times: Times, start: float, end: float, sampling: Sampling, *, seed: int | None = None) -> Indices:
    """Indices (R, L) of the frames that make each row, L being 1 but for snippets; ascending by time.

    `times` (N,) are the ascending timestamps of the frames; a frame is on screen until the next one. A clip of fewer
    frames than wanted instants gives each of its frames once; a snippet repeats frames instead. With a `seed` each
    instant moves at random within the room that is its own: the temporal jitter of an augmentation view.
    """
    if sampling.kind in ("every", "all"):
        return _select_every_nth(times, start, end, sampling.every or 1, seed)[:, None]
    wanted = sample_instants(start, end, sampling, seed=seed)  # (R,) or (R, L)
    shown = (np.searchsorted(times, wanted + 1e-9, side="right") - 1).clip(0)
    return shown if shown.ndim == 2 else np.unique(shown)[:, None]


def sample_instants(start: float, end: float, sampling: Sampling, *, seed: int | None = None) -> Times:
    """The wanted instants in seconds, ascending, in `[start, end)`: (R,), or (R, L) for snippets.

    `even` takes the middle of each of `frames` equal segments, with a seed any point of each (as in Temporal Segment
    Networks, Wang et al. 2016); `rate` takes one instant every `1 / fps` seconds, half a step in, and at least one;
    `windows` takes `even` instants in each window, an instant that windows share once; `snippets` takes `frames` at
    `fps`, from every start that fits, the last one ending with the clip.
    """
    random = np.random.default_rng(seed) if seed is not None else None
    if sampling.kind == "snippets":
        steps = (np.arange(sampling.frames or 1) + 0.5) / (sampling.fps or 1.0)
        starts = sliding_window_starts(
            start, end, (sampling.frames or 1) / (sampling.fps or 1.0), sampling.stride_seconds
        )
        moved = (
            starts
            if random is None
            else _jitter_starts(starts, start, end - (sampling.frames or 1) / (sampling.fps or 1.0), random)
        )
        return np.minimum(moved[:, None] + steps, max(start, end - 1e-6))
    if sampling.kind == "windows":
        starts = window_starts(start, end, sampling)
        length = min(sampling.window_seconds or end - start, end - start)
        return np.unique(np.round(starts[:, None] + _sample_segments(length, sampling.frames or 1, random), 6))
    if sampling.kind == "even":
        return start + _sample_segments(end - start, sampling.frames or 1, random)
    step = 1.0 / (sampling.fps or 1.0)
    count = max(1, int((end - start) / step + 1e-6))
    return start + _sample_segments(count * step, count, random)


def window_starts(start: float, end: float, sampling: Sampling) -> Times:
    """Where each window begins, in seconds; the last one ends with the video. A shorter video is one window."""
    return sliding_window_starts(start, end, sampling.window_seconds or end - start, sampling.stride_seconds)


def sliding_window_starts(start: float, end: float, length: float, stride: float | None) -> Times:
    """Every `stride` seconds while a stretch of `length` fits, and where the last such stretch begins."""
    last = max(start, end - length)
    starts = np.arange(start, last + 1e-6, stride or length)
    return np.append(starts, last) if last - starts[-1] > 1e-6 else starts


def _jitter_starts(starts: Times, first: float, last: float, random: np.random.Generator) -> Times:
    room = np.diff(starts).min() if len(starts) > 1 else max(0.0, last - first)
    return np.sort((starts + (random.random(len(starts)) - 0.5) * room).clip(first, max(first, last)))


def _sample_segments(length: float, count: int, random: np.random.Generator | None) -> Times:
    """The middle of each of `count` equal parts of `length` seconds, or any point of each."""
    within = np.full(count, 0.5) if random is None else random.random(count)
    return np.asarray((np.arange(count) + within) * (length / count), np.float64)


def _select_every_nth(times: Times, start: float, end: float, every: int, seed: int | None) -> Indices:
    """Every so-many-eth frame, from the middle of the first so many on; with a seed from any of them."""
    inside = np.flatnonzero((times >= start - 1e-9) & (times < end)) if len(times) else np.array([], np.int64)
    if not len(inside):
        inside = np.array([max(0, int(np.searchsorted(times, start + 1e-9, side="right")) - 1)])
    offset = every // 2 if seed is None else int(np.random.default_rng(seed).integers(every))
    return inside[min(offset, len(inside) - 1) :: every]
