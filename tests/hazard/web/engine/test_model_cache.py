"""The models that a server keeps open."""

from pathlib import Path

from features.sources.discover import find_clips
from features.types import ExtractedClip
from hazard.inference.settings import InferSettings
from hazard.synthetic.clips import draw_clip
from hazard.web.engine.model_cache import ModelCache


def test_clips_are_encoded_by_the_open_encoder(small_model: Path, tmp_path: Path) -> None:
    draw_clip(tmp_path / "a.mp4", "fight", seed=2, size=(96, 72), frame_rate=10, seconds=1)
    models = ModelCache({"small": small_model}, InferSettings(runtime="torch"), tmp_path)
    model = models.get("small", lambda: None)
    assert models.get("small", lambda: None) is model
    counts: list[int] = []
    model.counting_encoder.on_encoded = counts.append
    (clip,) = find_clips([tmp_path / "a.mp4"])
    extracted = model.analyse(clip, lambda: None)
    assert isinstance(extracted, ExtractedClip)
    assert sum(counts) > 0
