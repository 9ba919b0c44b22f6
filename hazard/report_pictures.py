"""Which pictures of a clip a page shows."""

import numpy as np

from hazard.types import ClipPrediction

STRIPS = (24, 12, 6, 3, 1)
"""Pictures that a clip may have, at most."""


def strip(clip: ClipPrediction, count: int) -> list[int]:
    """`count` pictures, in order of time: spread over the clip, the one nearest to its strongest event among them."""
    total = len(clip.thumbnails)
    if total <= count:
        return list(range(total))
    if count == 0:
        return []
    chosen = np.linspace(0, total - 1, count).round().astype(int) if count > 1 else np.array([total // 2])
    if clip.events:
        top = nearest_picture(clip)
        chosen[np.abs(chosen - top).argmin()] = top
    return sorted(set(chosen.tolist()))


def nearest_picture(clip: ClipPrediction) -> int:
    """The picture that is nearest to the middle of the strongest event."""
    event = max(clip.events, key=lambda event: event.peak)
    return int(np.abs(np.asarray(clip.thumbnail_times) - (event.start + event.end) / 2).argmin())


def strip_bytes(clip: ClipPrediction, count: int) -> int:
    """What so many pictures take in base64, with a separator each."""
    return sum(4 * ((len(clip.thumbnails[i]) + 2) // 3) + 1 for i in strip(clip, count))
