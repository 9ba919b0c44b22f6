"""A cache loaded as `Sequences`: every labelled track in memory, padded to one length."""

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.cache.hdf5 import Cache
from features.cache.tables import ClipTable
from features.errors import SettingsError
from features.spec import ORIGINAL_VIEW
from features.utils.text import suggest_name
from hazard.types import Sequences, SequenceView

log = logging.getLogger(__name__)


def load_sequences(cache: Cache, *, max_steps: int | None = 64, views: Iterable[str] | None = None) -> Sequences:
    """Load the labelled tracks of a cache as `x` float16 (B, T, D) with its mask; T is the longest or `max_steps`.

    Longer tracks are subsampled evenly. Clips without a label are left out. A clip without a group becomes a group of
    its own. `views` names the augmentation views to load besides the plain one, by default all that the cache holds.
    Raises SettingsError if fewer than two labels are left, and for a view that the cache does not hold.
    """
    clips = cache.clips
    view_names = _check_views(clips, views)
    rows = np.flatnonzero((clips.view == ORIGINAL_VIEW) & (clips.label != "") & (clips.length > 0))
    _warn_unlabelled(clips.view, clips.label)
    labels = _check_labels(clips.label[rows])
    each = [rows, *(_find_view_rows(clips, rows, view) for view in view_names)]  # (1 + V) of (B,)
    tracks = [_subsample_rows(int(clips.start[row]), int(clips.length[row]), max_steps) for row in np.concatenate(each)]
    lengths = np.array([len(track) for track in tracks])  # ((1 + V) B,)
    x = np.zeros((len(tracks), lengths.max(), cache.features.shape[1]), cache.features.dtype)
    x, mask = _pad((cache.features[track] for track in tracks), lengths, x)
    (x, mask), *others = zip(np.split(x, len(each)), np.split(mask, len(each)), strict=True)
    paths = clips.path[rows].astype(str)
    groups = clips.group[rows].astype(str)
    return Sequences(
        x=x,
        mask=mask,
        y=np.searchsorted(labels, clips.label[rows].astype(str)).astype(np.int64),
        groups=np.where(groups == "", paths, groups),
        paths=paths,
        splits=clips.split[rows].astype(str),
        labels=tuple(str(label) for label in labels),
        views=tuple(SequenceView(name, *pair) for name, pair in zip(view_names, others, strict=True)),
        durations=_read_durations(cache, rows),
    )


def pad_tracks(tracks: list[NDArray[np.floating]]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Pad tracks (N, D) of any lengths to x (B, T, D), zero after each track's end, and mask (B, T) True = real."""
    lengths = np.array([len(track) for track in tracks])
    return _pad(tracks, lengths, np.zeros((len(tracks), lengths.max(), tracks[0].shape[1]), np.float32))


def _pad(
    tracks: Iterable[NDArray[np.floating]], lengths: NDArray[np.int64], x: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Write tracks of `lengths` (B,) into zeros x (B, T, D); return x and its mask (B, T)."""
    for row, track in enumerate(tracks):
        x[row, : len(track)] = track
    return x, np.arange(x.shape[1]) < lengths[:, None]


def subsample_steps(length: int, max_steps: int | None) -> NDArray[np.int64]:
    """Return at most `max_steps` of the steps 0 … length - 1, evenly spaced, including the first and the last."""
    if max_steps is None or length <= max_steps:
        return np.arange(length)
    return np.linspace(0, length - 1, max_steps).round().astype(np.int64)


def _check_views(clips: ClipTable, views: Iterable[str] | None) -> list[str]:
    """Return the names of the requested views in sorted order, without the plain view.

    Raises SettingsError for a view that the cache does not hold.
    """
    held = set(clips.view.tolist())
    for view in views or ():
        if view not in held:
            raise SettingsError(
                f"setting 'views': the cache holds no view '{view}'; {suggest_name(view, sorted(held))} "
                "(to get more views, extract another cache with --views)"
            )
    return sorted((held if views is None else set(views)) - {ORIGINAL_VIEW})


def _read_durations(cache: Cache, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the durations (B,) in seconds, NaN if unknown.

    An import without a frame rate counts each row as one second; such durations are unknown.
    """
    seconds = np.asarray(cache.clips.duration[rows], np.float64)
    is_known = np.isfinite(seconds) & (seconds > 0)
    if cache.spec.is_imported:
        is_known &= seconds != cache.clips.length[rows]
    return np.where(is_known, seconds, np.nan)


def _find_view_rows(clips: ClipTable, rows: NDArray[np.int64], view: str) -> NDArray[np.int64]:
    """Return the row of each clip's track in a view; a clip without one gets its plain track."""
    held = np.flatnonzero((clips.view == view) & (clips.length > 0))
    of_path = dict(zip(clips.path[held].tolist(), held.tolist(), strict=True))
    return np.array([of_path.get(str(clips.path[row]), row) for row in rows], np.int64)


def _subsample_rows(start: int, length: int, max_steps: int | None) -> NDArray[np.int64]:
    return start + subsample_steps(length, max_steps)


def _warn_unlabelled(view: NDArray[np.str_], label: NDArray[np.str_]) -> None:
    count = int(((view == ORIGINAL_VIEW) & (label == "")).sum())
    if count:
        log.warning("%d clips without a label are left out of training", count)


def _check_labels(column: NDArray[np.str_]) -> NDArray[np.str_]:
    """Return the distinct labels in sorted order.

    Raises SettingsError for fewer than two.
    """
    if not len(column):
        raise SettingsError(
            "the cache holds no labelled clips; extract class folders or a manifest with a label column"
        )
    labels = np.unique(column.astype(str))
    if len(labels) < 2:
        counts = ", ".join(f"{name}: {count}" for name, count in Counter(column.tolist()).items())
        raise SettingsError(f"training needs clips of two or more labels, the cache holds one ({counts})")
    return labels
