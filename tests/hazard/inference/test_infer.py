"""Inference as a user runs it: extract features, train a model, then infer."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from features.cache.hdf5 import read_cache
from features.cli.extract import extract_features
from features.spec import FeatureSpec
from hazard.cli.infer import infer
from hazard.cli.train import train_temporal
from hazard.data.sequences import load_sequences
from hazard.models.model_folder import open_model
from hazard.synthetic.clips import draw_dataset
from tests.conftest import Run
from tests.helpers.data.image_folders import write_images

QUICK = ("--epochs", 2, "--set", "members=1")
MODELS = (("--head", "lstm"), ("--baseline", "logistic_regression"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_dataset(folder, classes={"normal": ["walk"], "hazardous": ["fight"]}, clips_per_class=6, scenes=3)
    return folder


@pytest.fixture(scope="module")
def cache(drawn: Path) -> Path:
    path = drawn / "features.h5"
    arguments = [drawn / "manifest.csv", "-o", path, "--weights", "random", "--workers", 1, "--runtime", "torch"]
    assert extract_features.main([str(a) for a in arguments], standalone_mode=False) == 0
    return path


@pytest.fixture(scope="module", params=MODELS, ids=lambda model: model[1])
def model(cache: Path, request: pytest.FixtureRequest) -> Path:
    folder = cache.parent / request.param[1]
    arguments = [cache, "-o", folder, *request.param, *QUICK]
    assert train_temporal.main([str(a) for a in arguments], standalone_mode=False) == 0
    return folder


def rows(report: Path) -> list[dict[str, str]]:
    with open(report / "predictions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_cache_and_inference_give_the_same_probabilities(
    drawn: Path, cache: Path, model: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAZARD_CACHE_DIR", str(tmp_path / "kept"))  # the network is converted while the model is opened
    ran = run(infer, drawn / "manifest.csv", "--model", model, "-o", tmp_path / "report")
    assert ran.code == 0
    predictor = open_model(model)
    sequences = load_sequences(read_cache(cache))
    expected = dict(zip(sequences.paths, predictor.predict(sequences.x, sequences.mask), strict=True))
    for row in rows(tmp_path / "report"):
        found = [float(row[label]) for label in predictor.labels]
        assert found == pytest.approx(expected[row["path"]], abs=1e-4)
    assert len(expected) == 12


def test_failed_clips_are_listed_with_a_reason_and_never_a_class(
    drawn: Path, model: Path, tmp_path: Path, run: Run
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for file in sorted(drawn.glob("*/*.mp4"))[:3]:
        shutil.copy(file, videos)
    (videos / "zero.mp4").touch()
    (videos / "text.mp4").write_text("no video")
    ran = run(infer, videos, "--model", model, "-o", tmp_path / "report")
    assert ran.code == 3
    assert "3 clips analysed, 2 failed" in ran.out
    failed = {row["path"]: row for row in rows(tmp_path / "report") if row["status"] == "failed"}
    assert failed["zero.mp4"]["reason"] == "open: empty file"
    assert "not a video" in failed["text.mp4"]["reason"]
    assert all(row["label"] == row["probability"] == "" for row in failed.values())
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert len(report["failures"]) == 2
    assert "data:image/jpeg" in (tmp_path / "report" / "report.html").read_text()


def test_parts_and_folders_of_images_are_clips_with_labels_by_a_map(
    drawn: Path, model: Path, tmp_path: Path, run: Run
) -> None:
    write_images(tmp_path / "images", 12)
    video = next(drawn.glob("normal/*.mp4"))
    (tmp_path / "m.csv").write_text(f"path,label,start,end\n{video},calm,0,0.5\n{video},calm,99,\nimages,calm,,\n")
    (tmp_path / "map.yaml").write_text("calm: normal\n")
    given = (tmp_path / "m.csv", "--model", model, "-o", tmp_path / "report", "--label-map", tmp_path / "map.yaml")
    ran = run(infer, *given)
    assert (ran.code, "2 clips analysed, 1 failed" in ran.out) == (3, True)
    assert "accuracy against" in ran.out
    found = {row["path"]: (row["status"], row["reason"]) for row in rows(tmp_path / "report")}
    assert found.pop(f"{video}#t=99")[1].startswith("decode: the clip starts at 99 s, but the video")
    assert found == {f"{video}#t=0,0.5": ("ok", ""), "images": ("ok", "")}


def test_the_model_is_opened_by_its_folder_alone(drawn: Path, model: Path, tmp_path: Path, run: Run) -> None:
    moved = Path(shutil.copytree(model, tmp_path / "elsewhere"))
    ran = run(infer, next(drawn.glob("normal/*.mp4")), "--model", moved, "-o", tmp_path / "report")
    assert ran.code == 0


def test_threshold_decides_the_label(drawn: Path, model: Path, tmp_path: Path, run: Run) -> None:
    clip = next(drawn.glob("normal/*.mp4"))
    labels = []
    for threshold in (0, 1):
        run(infer, clip, "--model", model, "-o", tmp_path / "report", "--threshold", threshold)
        labels += [row["label"] for row in rows(tmp_path / "report")]
    assert labels == ["hazardous", "normal"]


def test_foreign_features_are_refused(drawn: Path, model: Path, tmp_path: Path, run: Run) -> None:
    foreign = Path(shutil.copytree(model, tmp_path / "foreign"))
    tree = json.loads((foreign / "model.json").read_text())
    tree["feature_spec"]["weights_digest"] = "random, seed 1"
    tree["fingerprint"] = FeatureSpec.model_validate(tree["feature_spec"]).fingerprint
    (foreign / "model.json").write_text(json.dumps(tree))
    ran = run(infer, drawn, "--model", foreign, "-o", tmp_path / "report")
    assert ran.code == 4
    assert "other mobilenet_v2 weights" in ran.err


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda arguments: arguments | {"source": "absent"}, 2, "absent does not exist"),
        (lambda arguments: arguments | {"--model": "absent"}, 2, "no model at absent"),
        (lambda arguments: arguments | {"--threshold": 3}, 2, "3"),
        (lambda arguments: arguments | {"--weights": "absent.pth"}, 2, "absent.pth"),
        (lambda arguments: arguments | {"--set": "treshold=0.3"}, 2, "did you mean 'threshold'"),
    ],
)
def test_bad_input_is_one_line(
    drawn: Path, model: Path, tmp_path: Path, run: Run, change: object, code: int, message: str
) -> None:
    assert callable(change)
    options = change({"source": drawn, "--model": model, "-o": tmp_path / "report"})
    ran = run(infer, options.pop("source"), *(part for option in options.items() for part in option))
    assert ran.code == code
    assert message in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.real
def test_real_clips_with_real_weights(
    real_clips: Path, real_weights: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATURES_WEIGHTS", str(real_weights))
    with open(real_clips, newline="", encoding="utf-8") as file:
        wanted = list(csv.DictReader(file))[::10]
    manifest = tmp_path / "some.csv"
    with open(manifest, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "group"))
        writer.writerows((real_clips.parent / row["path"], row["label"], row["group"]) for row in wanted)
    assert run(extract_features, manifest, "-o", tmp_path / "c.h5").code == 0
    cache = read_cache(tmp_path / "c.h5")
    assert len(cache.clips) == len(wanted)
    assert np.isfinite(cache.features).all()
    assert run(train_temporal, tmp_path / "c.h5", "-o", tmp_path / "model", *QUICK).code == 0
    monkeypatch.delenv("FEATURES_WEIGHTS")
    ran = run(infer, manifest, "--model", tmp_path / "model", "-o", tmp_path / "report")
    assert (ran.code, f"{len(wanted)} clips analysed, 0 failed" in ran.out) == (0, True)
