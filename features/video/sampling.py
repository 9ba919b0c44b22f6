"""Sampling: the instants of a clip that are read, and the frames of each row of features. Pure functions on times."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from features.spec import Sampling
from features.types import Span

Times = NDArray[np.float64]
Indices = NDArray[np.int64]


Rows = Mapping[str | Span, Indices]
"""Frame numbers (R, L) of the rows of each view, keyed by its name, or of each window, keyed by its span."""

RowSampler = Callable[[Times, float, float], Rows]
"""A function of the times (N,) of all frames and a part [start, end) in seconds; it returns the rows to read."""


def make_row_sampler(
    sampling: Sampling, seeds: Mapping[str, int | None] = MappingProxyType({"none": None})
) -> RowSampler:
    """Return a sampler for the views that `seeds` names. A view whose seed is None is not jittered."""
    return lambda times, start, end: {
        view: select_rows(times, start, end, sampling, seed=seed) for view, seed in seeds.items()
    }


def select_rows(times: Times, start: float, end: float, sampling: Sampling, *, seed: int | None = None) -> Indices:
    """Return the frame indices (R, L) of each row, ascending by time. L is 1 except for snippets.

    `times` (N,) are the ascending timestamps of the frames; a frame is on screen until the next one. A clip with fewer
    frames than sampled instants gives each of its frames once; a snippet repeats frames instead. With a `seed` each
    instant moves at random within its own segment: the temporal jitter of an augmentation view.
    """
    if sampling.kind in ("every", "all"):
        return _select_every_nth(times, start, end, sampling.every or 1, seed)[:, None]
    instants = sample_instants(start, end, sampling, seed=seed)  # (R,) or (R, L)
    frames = (np.searchsorted(times, instants + 1e-9, side="right") - 1).clip(0)
    return frames if frames.ndim == 2 else np.unique(frames)[:, None]


def sample_instants(start: float, end: float, sampling: Sampling, *, seed: int | None = None) -> Times:
    """Return the sampled instants in seconds, ascending, in `[start, end)`: (R,), or (R, L) for snippets.

    - `even`: the middle of each of `frames` equal segments, or with a seed a random point of each (as in Temporal
      Segment Networks, Wang et al. 2016).
    - `rate`: one instant every `1 / fps` seconds, half a step in, and at least one.
    - `windows`: `even` instants in each window; an instant that windows share is taken once.
    - `snippets`: `frames` instants at `fps`, from every start that fits; the last snippet ends with the clip.
    """
    random = np.random.default_rng(seed) if seed is not None else None
    if sampling.kind == "snippets":
        steps = (np.arange(sampling.frames or 1) + 0.5) / (sampling.fps or 1.0)
        starts = sliding_window_starts(
            start, end, (sampling.frames or 1) / (sampling.fps or 1.0), sampling.stride_seconds
        )
        jittered = (
            starts
            if random is None
            else _jitter_starts(starts, start, end - (sampling.frames or 1) / (sampling.fps or 1.0), random)
        )
        return np.minimum(jittered[:, None] + steps, max(start, end - 1e-6))
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
    """Return the start of each window in seconds. The last one ends with the video; a shorter video is one window."""
    return sliding_window_starts(start, end, sampling.window_seconds or end - start, sampling.stride_seconds)


def sliding_window_starts(start: float, end: float, length: float, stride: float | None) -> Times:
    """Return the starts of spans of `length` seconds, one every `stride` seconds; the last one ends at `end`."""
    last = max(start, end - length)
    starts = np.arange(start, last + 1e-6, stride or length)
    return np.append(starts, last) if last - starts[-1] > 1e-6 else starts


def _jitter_starts(starts: Times, first: float, last: float, random: np.random.Generator) -> Times:
    room = np.diff(starts).min() if len(starts) > 1 else max(0.0, last - first)
    return np.sort((starts + (random.random(len(starts)) - 0.5) * room).clip(first, max(first, last)))


def _sample_segments(length: float, count: int, random: np.random.Generator | None) -> Times:
    """Return the middle of each of `count` equal parts of `length` seconds, or a random point of each."""
    within = np.full(count, 0.5) if random is None else random.random(count)
    return np.asarray((np.arange(count) + within) * (length / count), np.float64)


def _select_every_nth(times: Times, start: float, end: float, every: int, seed: int | None) -> Indices:
    """Return every `every`-th frame, starting in the middle of the first `every`, or at a random one with a seed."""
    inside = np.flatnonzero((times >= start - 1e-9) & (times < end)) if len(times) else np.array([], np.int64)
    if not len(inside):
        inside = np.array([max(0, int(np.searchsorted(times, start + 1e-9, side="right")) - 1)])
    offset = every // 2 if seed is None else int(np.random.default_rng(seed).integers(every))
    return inside[min(offset, len(inside) - 1) :: every]
