"""Stage one without videos, for tests of how work is committed rather than how features are computed."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from features.config import ExtractSettings
from features.spec import FeatureSpec
from features.types import Clip, ExtractedClip, FeatureTrack
from tests.helpers.data.specs import spec

WIDTH = 64


def make_clips(count: int) -> list[Clip]:
    return [Clip(f"label {i % 3}/{i:03d}.mp4", Path("/dev/null"), f"label {i % 3}") for i in range(count)]


def make_track(clip: Clip) -> FeatureTrack:
    """Return a random track that depends only on the name of the clip."""
    rng = np.random.default_rng(zlib.crc32(clip.path.encode()))
    rows = int(rng.integers(3, 9))
    known = Clip(**{**vars(clip), "digest": f"{zlib.crc32(clip.path.encode()):064x}", "size_bytes": 9, "mtime_ns": 9})
    return FeatureTrack(known, rng.normal(size=(rows, WIDTH)).astype(np.float16), np.arange(rows) / 5, duration=2.0)


def make_spec(reduction: str) -> FeatureSpec:
    return spec(reduction=reduction)


def fake_extract_clips(
    clips: Sequence[Clip], *_: object, is_stopped: Callable[[], bool] = lambda: False, **__: object
) -> Iterator[ExtractedClip]:
    for clip in clips:
        if is_stopped():
            return
        yield ExtractedClip((make_track(clip),), 0.0, 0.0)


def replace_extraction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `extract_to_cache` take its features from `make_track` and identify clips only by name."""

    def build_spec(settings: ExtractSettings) -> tuple[FeatureSpec, None]:
        return make_spec(settings.reduce), None

    def as_known(clip: Clip, known, *, retry_failed: bool) -> Clip | None:  # type: ignore[no-untyped-def]
        return None if clip.path in known.tracks else clip

    monkeypatch.setattr("features.extraction.extract.run_engine", fake_extract_clips)
    monkeypatch.setattr("features.extraction.extract.build_spec", build_spec)
    monkeypatch.setattr("features.cache.plan._find_pending", as_known)
