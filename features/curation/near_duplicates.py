"""Clips that show the same scene, found by the correlation of small pictures of a few frames of each clip."""

from collections.abc import Sequence
from contextlib import nullcontext

import cv2
import numpy as np
from numpy.typing import NDArray

from features.utils.progress import make_progress_bar

MIN_CORRELATION = 0.55
"""Least correlation of two frames that show one scene. docs/experiments.md says how it was measured."""

FRAMES_PER_CLIP = 3
"""Frames of a clip that are compared."""

_THUMBNAIL_SIDE, _FINGERPRINT_SIDE = 64, 16
_BLUR_SIGMA_PIXELS = 8.0  # area of the thumbnail in which brightness and contrast are normalised
_NOISE_GREY_LEVELS = 4.0  # noise of a flat area after compression
_MIN_SPREAD = 0.1  # standard deviation below which a normalised picture is empty; real clips have 0.5 or more
_BLOCK_ROWS = 256
_MIN_PROGRESS_BLOCKS = 40  # this many blocks take more than a few seconds

Fingerprints = NDArray[np.float32]  # (N, 256), rows of unit length, or zeros for an empty frame


def make_grey_thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an upright frame (H, W, 3) as a small grey picture (64, 64, 3), without keeping its shape."""
    grey = cv2.resize(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA
    )
    return np.asarray(cv2.merge([grey, grey, grey]), np.uint8)


def make_fingerprints(frames: NDArray[np.uint8]) -> Fingerprints:
    """Return the fingerprints of frames (N, 64, 64, 3) of `make_grey_thumbnail`.

    Brightness and contrast are normalised locally, so that a light that is switched on or a dark rim of the picture has
    no effect. What remains is where the edges of the scene are.
    """
    normalized = np.stack([_normalize_contrast(frame[..., 0].astype(np.float32)) for frame in frames])  # (N, 16, 16)
    rows = normalized.reshape(len(frames), -1)
    rows -= rows.mean(axis=1, keepdims=True)
    has_edges = rows.std(axis=1, keepdims=True) > _MIN_SPREAD
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(has_edges, rows / np.maximum(lengths, 1e-6), 0).astype(np.float32)


def merge_near_duplicates(
    fingerprints: Sequence[Fingerprints], digests: Sequence[str], *, min_correlation: float = MIN_CORRELATION
) -> NDArray[np.int64]:
    """Return the number of the scene of each clip, counted from 0 in the order of the clips.

    Two clips share a scene if any frame of one has a correlation of at least `min_correlation` with any frame of the
    other, or if their files have the same digest. This holds across chains of clips: merging too much is safer than a
    scene in two splits.
    """
    scenes = np.unique(np.array(digests), return_inverse=True)[1]
    frames = np.concatenate(fingerprints)  # (M, 256)
    owners = np.repeat(np.arange(len(fingerprints)), [len(rows) for rows in fingerprints])
    starts = range(0, len(frames), _BLOCK_ROWS)
    with (
        make_progress_bar(len(starts), description="compare", unit="block")
        if len(starts) > _MIN_PROGRESS_BLOCKS
        else nullcontext() as bar
    ):
        for start in starts:
            hits = frames[start : start + _BLOCK_ROWS] @ frames[start:].T >= min_correlation
            frame_scenes = scenes[owners[start:]]
            hits &= frame_scenes[: len(hits), None] != frame_scenes  # the others are merged already
            rows, columns = np.nonzero(hits)
            scenes = _merge_scenes(scenes, owners[start + rows], owners[start + columns])
            if bar:
                bar.update()
    return _renumber(scenes)


def _normalize_contrast(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    detail = picture - cv2.GaussianBlur(picture, (0, 0), _BLUR_SIGMA_PIXELS)
    contrast = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), _BLUR_SIGMA_PIXELS)) + _NOISE_GREY_LEVELS
    return np.asarray(
        cv2.resize(detail / contrast, (_FINGERPRINT_SIDE, _FINGERPRINT_SIDE), interpolation=cv2.INTER_AREA), np.float32
    )


def _merge_scenes(scenes: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the scenes after merging that of `first` with that of `second`, pair by pair."""
    from scipy.sparse import csr_array  # imported here so that workers, which do not need it, start sooner
    from scipy.sparse.csgraph import connected_components

    scene_count = int(scenes.max()) + 1
    links = csr_array((np.ones(len(first), bool), (scenes[first], scenes[second])), shape=(scene_count, scene_count))
    return np.asarray(connected_components(links, directed=False)[1], np.int64)[scenes]


def _renumber(scenes: NDArray[np.int64]) -> NDArray[np.int64]:
    _, first, inverse = np.unique(scenes, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse], np.int64)
