"""The GPU layout, run on the CPU: workers decode, and one process encodes batches of many clips."""

from pathlib import Path

import numpy as np
import pytest

from features.backbones.loading import load_backbone
from features.backbones.weights import weights_digest
from features.config import RunSettings
from features.encoders.base import FrameEncoder
from features.encoders.factory import check_devices
from features.encoders.torch_encoder import make_torch_encoder
from features.errors import SettingsError
from features.extraction.jobs import DecodedClip, DecodeJob, ViewFrames
from features.extraction.local_engine import encode_batches, extract_clips
from features.sources.discover import find_clips
from features.spec import FeatureSpec, Preprocessing, Sampling
from features.types import Clip, ExtractedClip, Failure
from features.utils.worker_pool import run_tasks

SPEC = FeatureSpec(
    sampling=Sampling(frames=5),
    preprocessing=Preprocessing(),
    backbone="mobilenet_v2",
    weights="random",
    weights_digest=weights_digest("mobilenet_v2", None),
    pooling="avg",
)


def test_batches_of_many_clips_give_each_clip_its_own_features(numbered: Path) -> None:
    clips = [*find_clips([numbered]), Clip("absent.mp4", Path("absent.mp4"))]
    network = load_backbone("mobilenet_v2", None)
    encoders = [
        make_torch_encoder(network, preprocessing=SPEC.preprocessing, pooling="avg", batch_size=size)
        for size in (7, 11)
    ]
    decoded = (result for _, result in run_tasks(DecodeJob(SPEC), clips, workers=2, deadline_seconds=60))
    fed = {
        o.tracks[0].clip.path: o.tracks[0] for o in encode_batches(decoded, encoders) if isinstance(o, ExtractedClip)
    }
    plain = extract_clips(clips, SPEC, None, RunSettings(device="cpu", runtime="torch", workers=1))
    alone = {o.tracks[0].clip.path: o.tracks[0] for o in plain if isinstance(o, ExtractedClip)}
    assert fed.keys() == alone.keys()
    assert len(fed) == 6
    for path, track in alone.items():
        assert np.abs(fed[path].features.astype(np.float32) - track.features).max() < 2e-3
        assert (fed[path].times == track.times).all()


def decoded_clip(name: str, value: int) -> DecodedClip:
    view = ViewFrames("none", np.full((3, 4, 4, 3), value, np.uint8), np.arange(3.0))
    return DecodedClip(Clip(name, Path(name)), (view,), duration=3.0, decoded_share=1.0, decode_seconds=0.0)


def test_a_clip_that_spoils_a_batch_fails_alone() -> None:
    def forward(frames: np.ndarray) -> np.ndarray:
        features = frames.reshape(len(frames), -1)[:, :2].astype(np.float32)
        return np.where(features == 13, np.nan, features)

    clips = [decoded_clip(str(value), value) for value in (3, 13, 5)]
    outcomes = list(encode_batches(clips, [FrameEncoder(forward, batch_size=100)]))
    assert [type(outcome) for outcome in outcomes] == [ExtractedClip, Failure, ExtractedClip]
    failure = outcomes[1]
    assert isinstance(failure, Failure)
    assert "NaN" in failure.reason


@pytest.mark.parametrize("change", [{"device": "cuda:7"}, {"device": "tpu"}])
def test_devices_that_are_not_there(change: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="device"):
        check_devices(RunSettings(**change))
