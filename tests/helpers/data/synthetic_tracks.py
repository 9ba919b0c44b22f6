"""Stage one without videos: what is under test is how work is committed, not how it is computed."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from features.config import ExtractSettings
from features.spec import FeatureSpec
from features.types import Clip, ExtractedClip, FeatureTrack
from tests.features.test_spec import spec

WIDTH = 64


def some_clips(count: int) -> list[Clip]:
    return [Clip(f"label {i % 3}/{i:03d}.mp4", Path("/dev/null"), f"label {i % 3}") for i in range(count)]


def a_track(clip: Clip) -> FeatureTrack:
    """Always the same for a clip of this name."""
    rng = np.random.default_rng(zlib.crc32(clip.path.encode()))
    rows = int(rng.integers(3, 9))
    known = Clip(**{**vars(clip), "digest": f"{zlib.crc32(clip.path.encode()):064x}", "size_bytes": 9, "mtime_ns": 9})
    return FeatureTrack(known, rng.normal(size=(rows, WIDTH)).astype(np.float16), np.arange(rows) / 5, duration=2.0)


def a_spec(reduction: str) -> FeatureSpec:
    return spec(reduction=reduction)


def fake_extract_clips(
    clips: Sequence[Clip], *_: object, is_stopped: Callable[[], bool] = lambda: False, **__: object
) -> Iterator[ExtractedClip]:
    for clip in clips:
        if is_stopped():
            return
        yield ExtractedClip((a_track(clip),), 0.0, 0.0)


def without_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on `extract_to_cache` takes its features from `a_track` and knows every clip by its name alone."""

    def build_spec(settings: ExtractSettings) -> tuple[FeatureSpec, None]:
        return a_spec(settings.reduce), None

    def as_known(clip: Clip, known, *, retry_failed: bool) -> Clip | None:  # type: ignore[no-untyped-def]
        return None if clip.path in known.tracks else clip

    monkeypatch.setattr("features.extraction.extract.run_engine", fake_extract_clips)
    monkeypatch.setattr("features.extraction.extract.build_spec", build_spec)
    monkeypatch.setattr("features.cache.plan._find_pending", as_known)
