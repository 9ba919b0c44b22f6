"""`hazard export`: each kind of model gives the same probabilities in ONNX Runtime as in the project itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from features.cache.reduction import Reduction
from features.encoders.torch_encoder import build_encoder
from features.spec import FeatureSpec
from features.types import Clip, ExtractedClip, FeatureTrack
from hazard.cli.main import hazard
from hazard.data.splits import make_splits
from hazard.inference.predict import predict_outcomes
from hazard.models.baselines import BASELINES
from hazard.models.head_ensemble import build_head_ensemble
from hazard.models.heads import HEADS
from hazard.models.heads.step_pooling import POOLINGS
from hazard.models.model_folder import open_model, save_model
from hazard.models.onnx.modules import FeaturesToProbabilities, FramesToProbabilities
from hazard.models.settings import TrainSettings
from hazard.training import fit as fit_module
from tests.conftest import Run
from tests.helpers.data.model_info import make_model_info
from tests.helpers.data.sequences import make_frames_spec, make_moving_sequences

onnxruntime = pytest.importorskip("onnxruntime", reason="extra `onnx` is not installed")
pytest.importorskip("onnxscript", reason="extra `onnx` is not installed")
onnx = pytest.importorskip("onnx", reason="extra `onnx` is not installed")

TWO = make_moving_sequences(clips=40, groups=10)
THREE = make_moving_sequences(clips=60, groups=10, labels=("calm", "fight", "run"))
QUICK = TrainSettings(hidden_size=4, projection=4, members=1, epochs=2, device="cpu")
LINEAR = ("logistic_regression", "linear_svm", "ridge", "lda", "mean_logistic")
CLOSE = 1e-4


def saved(folder: Path, settings: TrainSettings, data: Any = TWO, reduction: Reduction | None = None) -> Path:
    """Save a model that was trained briefly on the first of three folds."""
    model, _ = fit_module.fit(data, make_splits(data, folds=3, split=None, seed=0).folds[0], settings)
    kind, name = settings.kind_and_name
    about = {"settings": settings, "labels": data.labels, "reduction_kind": reduction.kind if reduction else None}
    about |= {"positive_label": "fight" if len(data.labels) == 2 else None}
    save_model(folder, info=make_model_info(kind, name, **about), model=model, reduction=reduction)
    return folder


def probabilities(file: Path, **arrays: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == list(arrays)
    return session.run(None, arrays)[0]


def assert_parity(folder: Path, run: Run, data: Any = TWO) -> None:
    ran = run(hazard, "export", folder, "--format", "onnx")
    assert ran.code == 0, ran.err
    got = probabilities(folder / "model.onnx", x=data.x, mask=data.mask)
    np.testing.assert_allclose(got, open_model(folder).predict(data.x, data.mask), atol=CLOSE)
    one = probabilities(folder / "model.onnx", x=data.x[3:4, :1], mask=data.mask[3:4, :1])
    np.testing.assert_allclose(one, open_model(folder).predict(data.x[3:4, :1], data.mask[3:4, :1]), atol=CLOSE)


@pytest.mark.parametrize("name", HEADS)
def test_every_head(name: str, tmp_path: Path, run: Run) -> None:
    assert_parity(saved(tmp_path, QUICK.for_model("head", name)), run)


@pytest.mark.parametrize("pooling", sorted({*POOLINGS} - {"mean", "attention"}))  # heads have these two
def test_every_pooling_without_the_pooled_path(pooling: str, tmp_path: Path, run: Run) -> None:
    changes = {"pooling": pooling, "pooled_path": False, "bidirectional": True}
    assert_parity(saved(tmp_path, QUICK.model_copy(update=changes)), run)


def test_deep_bidirectional_layers(tmp_path: Path, run: Run) -> None:
    settings = QUICK.model_copy(update={"layers": 2, "bidirectional": True, "projection": 0, "members": 2})
    assert_parity(saved(tmp_path, settings, THREE), run, THREE)


@pytest.mark.parametrize("data", [TWO, THREE], ids=["two labels", "three"])
@pytest.mark.parametrize("name", LINEAR)
def test_linear_baselines_are_matrix_products(name: str, data: Any, tmp_path: Path) -> None:
    predictor = open_model(saved(tmp_path, QUICK.for_model("baseline", name), data))
    with torch.inference_mode():
        got = FeaturesToProbabilities(predictor)(torch.from_numpy(data.x), torch.from_numpy(data.mask))
    np.testing.assert_allclose(got.numpy(), predictor.predict(data.x, data.mask), atol=CLOSE)


def test_ensembles(tmp_path: Path, run: Run) -> None:
    assert_parity(saved(tmp_path, QUICK.for_model("ensemble", "lstm,linear_svm=3")), run)


@pytest.mark.parametrize("name", BASELINES)
def test_what_cannot_be_exported_says_so_in_one_line(name: str, tmp_path: Path, run: Run) -> None:
    if name in LINEAR:
        return
    ran = run(hazard, "export", saved(tmp_path, QUICK.for_model("baseline", name)))
    assert ran.code == 2 and "Traceback" not in ran.err
    assert f"baseline {name} cannot be exported" in ran.err and "logistic_regression" in ran.err
    assert not list(tmp_path.glob("*.onnx"))


def test_the_file_says_what_it_takes_and_means(tmp_path: Path, run: Run) -> None:
    folder = saved(tmp_path / "run", QUICK.for_model("baseline", "logistic_regression"))
    ran = run(hazard, "export", folder, "-o", tmp_path / "there.onnx")
    assert "x float32 (B, T, 12), mask bool (B, T)" in ran.out and "largest difference" in ran.out
    known = {row.key: row.value for row in onnx.load(tmp_path / "there.onnx").metadata_props}
    assert json.loads(known["labels"]) == ["fight", "noFight"]
    assert (float(known["threshold"]), known["positive_label"], known["max_steps"]) == (0.5, "fight", "64")
    assert known["fingerprint"] == open_model(folder).fingerprint
    assert FeatureSpec.model_validate_json(known["feature_spec"]).fingerprint == known["fingerprint"]
    onnx.checker.check_model(onnx.load(tmp_path / "there.onnx"), full_check=True)


def test_a_file_that_is_wrong_is_not_left(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path, QUICK.for_model("baseline", "logistic_regression"))
    monkeypatch.setattr("hazard.models.onnx.export.Predictor.predict", lambda self, x, mask: np.full((len(x), 2), 0.5))
    ran = run(hazard, "export", folder)
    assert ran.code == 4 and "nothing was written" in ran.err
    assert not list(tmp_path.glob("*.onnx"))


REDUCTIONS = {
    "select": Reduction("select:16", channels=np.arange(5, 1280, 80, dtype=np.int64)),
    "pca": Reduction(
        "pca:8",
        mean=np.linspace(0, 1, 1280, dtype=np.float32),
        components=(np.random.default_rng(0).normal(size=(8, 1280)) / 36).astype(np.float32),
        explained_variance=np.ones(8, np.float32),
    ),
}


def on_frames(folder: Path, spec: FeatureSpec, reduction: Reduction | None, *, width: int) -> Path:
    """Save an untrained head on the features of `spec`."""
    torch.manual_seed(0)
    about = {"settings": QUICK, "width": width, "feature_spec": spec.model_dump(mode="json"), "weights_file": ""}
    about |= {"fingerprint": spec.fingerprint, "reduction_kind": reduction.kind if reduction else None}
    model = build_head_ensemble(width, 2, QUICK).eval()
    save_model(folder, info=make_model_info("head", "lstm", **about), model=model, reduction=reduction)
    return folder


def test_the_whole_chain_from_frames(tmp_path: Path, run: Run) -> None:
    spec = make_frames_spec()
    folder = on_frames(tmp_path, spec, REDUCTIONS["select"], width=16)
    ran = run(hazard, "export", folder, "--whole", "--weights", "random")
    assert ran.code == 0, ran.err
    assert "frames uint8 RGB (B, T, 64, 64, 3)" in ran.out
    frames = np.random.default_rng(1).integers(0, 256, (2, 3, 64, 64, 3), np.uint8)
    mask = np.array([[True, True, True], [True, True, False]])
    got = probabilities(folder / "whole.onnx", frames=frames, mask=mask)
    encoder, predictor = build_encoder(spec, None, device="cpu"), open_model(folder)
    for row in range(2):
        rows = encoder.encode(frames[row][mask[row]])
        track = FeatureTrack(Clip("a.mp4", Path("a.mp4")), rows, np.arange(len(rows), dtype=np.float64), duration=1.0)
        (said,) = predict_outcomes([ExtractedClip((track,), 0.0, 0.0)], predictor)
        assert said.windows is not None
        np.testing.assert_allclose(got[row], said.windows.probs[0], atol=CLOSE)


@pytest.mark.parametrize("kind", REDUCTIONS)
def test_reductions_are_those_of_the_cache(kind: str, tmp_path: Path) -> None:
    reduction = REDUCTIONS[kind]
    predictor = open_model(on_frames(tmp_path, make_frames_spec(), reduction, width=reduction.width))
    chain = FramesToProbabilities(torch.nn.Identity(), reduction, FeaturesToProbabilities(predictor)).eval()
    rows = np.abs(np.random.default_rng(2).normal(size=(2, 3, 1280))).astype(np.float16)
    x = reduction.apply(rows.reshape(6, 1280)).reshape(2, 3, -1).astype(np.float32)
    mask = np.ones((2, 3), np.bool_)
    with torch.inference_mode():
        got = chain(torch.from_numpy(rows), torch.from_numpy(mask)).numpy()
    np.testing.assert_allclose(got, predictor.predict(x, mask), atol=CLOSE)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"weights": "imported"}, "of another program"), ({"precision": "bf16"}, "made in bf16")],
    ids=["imported", "bf16"],
)
def test_chains_that_cannot_be_whole(changes: dict[str, str], said: str, tmp_path: Path, run: Run) -> None:
    on_frames(tmp_path, make_frames_spec().model_copy(update=changes), None, width=1280)
    ran = run(hazard, "export", tmp_path, "--whole")
    assert ran.code == 2 and said in ran.err and "leave out --whole" in ran.err


def test_without_the_extra_the_way_to_get_it_is_named(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hazard.models.onnx.export.find_spec", lambda name: None)
    ran = run(hazard, "export", tmp_path)
    assert ran.code == 2 and "pip install onnx " in ran.err
