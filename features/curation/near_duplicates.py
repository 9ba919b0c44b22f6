"""Which clips show the same scene: small pictures of a few frames of each, compared by correlation."""

from collections.abc import Sequence
from contextlib import nullcontext

import cv2
import numpy as np
from numpy.typing import NDArray

from features.utils.progress import make_progress_bar

MIN_CORRELATION = 0.55
"""Frames that correlate at least so much show one scene; how it was measured: docs/experiments.md."""

FRAMES_PER_CLIP = 3
"""Frames of a clip that are looked at."""

_THUMBNAIL_SIDE, _FINGERPRINT_SIDE = 64, 16
_BLUR_SIGMA_PIXELS = 8.0  # pixels of the small picture over which brightness and contrast are evened out
_NOISE_GREY_LEVELS = 4.0  # grey levels that a compressed flat area may differ by
_MIN_SPREAD = 0.1  # spread of an evened-out picture below which it shows nothing: 0.5 and more on real clips
_BLOCK_ROWS = 256
_MIN_PROGRESS_BLOCKS = 40  # blocks that take more than a few seconds

Fingerprints = NDArray[np.float32]  # (N, 256), each row of unit length, or zeros where the frame shows nothing


def make_grey_thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An upright frame (H, W, 3) as a small grey picture (64, 64, 3), out of shape."""
    grey = cv2.resize(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA
    )
    return np.asarray(cv2.merge([grey, grey, grey]), np.uint8)


def make_fingerprints(frames: NDArray[np.uint8]) -> Fingerprints:
    """What frames (N, 64, 64, 3) of `make_grey_thumbnail` are compared by.

    Brightness and contrast are evened out around each place, so that a light that is switched on, or the dark rim of a
    picture, does not count; what is left is where the edges of the scene lie.
    """
    evened = np.stack([_normalize_contrast(frame[..., 0].astype(np.float32)) for frame in frames])  # (N, 16, 16)
    rows = evened.reshape(len(frames), -1)
    rows -= rows.mean(axis=1, keepdims=True)
    shows = rows.std(axis=1, keepdims=True) > _MIN_SPREAD
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(shows, rows / np.maximum(lengths, 1e-6), 0).astype(np.float32)


def merge_near_duplicates(
    fingerprints: Sequence[Fingerprints], digests: Sequence[str], *, min_correlation: float = MIN_CORRELATION
) -> NDArray[np.int64]:
    """The number of each clip's scene, counted from 0 in the order of the clips.

    Clips are joined where any frame of one correlates with any frame of the other by `alike` or more, and where they
    come from one file; and so on from clip to clip: joining too much is safer than a scene on both sides of a split.
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
            of_frame = scenes[owners[start:]]
            hits &= of_frame[: len(hits), None] != of_frame  # all others are joined already
            rows, columns = np.nonzero(hits)
            scenes = _merge_scenes(scenes, owners[start + rows], owners[start + columns])
            if bar:
                bar.update()
    return _renumber(scenes)


def _normalize_contrast(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    rest = picture - cv2.GaussianBlur(picture, (0, 0), _BLUR_SIGMA_PIXELS)
    contrast = np.sqrt(cv2.GaussianBlur(rest * rest, (0, 0), _BLUR_SIGMA_PIXELS)) + _NOISE_GREY_LEVELS
    return np.asarray(
        cv2.resize(rest / contrast, (_FINGERPRINT_SIDE, _FINGERPRINT_SIDE), interpolation=cv2.INTER_AREA), np.float32
    )


def _merge_scenes(scenes: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """The scenes after those of `first` and of `second` became one, pair by pair."""
    from scipy.sparse import csr_array  # here, so that workers, which only make prints, start sooner
    from scipy.sparse.csgraph import connected_components

    count = int(scenes.max()) + 1
    links = csr_array((np.ones(len(first), bool), (scenes[first], scenes[second])), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], np.int64)[scenes]


def _renumber(scenes: NDArray[np.int64]) -> NDArray[np.int64]:
    _, first, inverse = np.unique(scenes, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse], np.int64)
