"""Models on features of 3D networks and of CLIP, from clips to a report."""

import csv
import json
from pathlib import Path

import pytest

from features.cache.hdf5 import read_cache
from features.cli.extract import extract_features
from hazard.cli.demo_clips import make_calm_scene
from hazard.cli.infer import infer
from hazard.cli.train import train_temporal
from hazard.data.sequences import load_sequences
from hazard.models.model_folder import open_model
from hazard.synthetic.clips import draw_clip, draw_dataset
from tests.conftest import Run

CPU = ("--workers", 1, "--runtime", "torch")


@pytest.mark.long
def test_a_model_on_snippets_gives_in_use_what_it_gave_on_the_cache(tmp_path: Path, run: Run) -> None:
    for label, action in (("normal", "walk"), ("hazardous", "fight")):
        for i in range(4):
            file = tmp_path / "videos" / label / f"{i}.mp4"
            draw_clip(file, action, seed=i, size=(96, 72), frame_rate=12, seconds=1.0)
    cache, model, report = tmp_path / "c.h5", tmp_path / "model", tmp_path / "report"
    snippets = ("--frames", 4, "--fps", 8, "--set", "stride_seconds=0.5", "--reduce", "select:64")
    ran = run(
        extract_features,
        tmp_path / "videos",
        "-o",
        cache,
        "--backbone",
        "r3d_18",
        "--weights",
        "random",
        *snippets,
        *CPU,
    )
    assert ran.code == 0, ran.err
    assert read_cache(cache).clips.length.tolist() == [2] * 8
    assert run(train_temporal, cache, "-o", model, "--baseline", "logistic_regression").code == 0
    ran = run(infer, tmp_path / "videos", "--model", model, "-o", report, *CPU)
    assert ran.code == 0, ran.err
    sequences, predictor = load_sequences(read_cache(cache)), open_model(model)
    expected = dict(zip(sequences.paths, predictor.predict(sequences.x, sequences.mask), strict=True))
    with open(report / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for row in rows:
        assert [float(row[label]) for label in predictor.labels] == pytest.approx(expected[row["path"]], abs=1e-4)
    assert "data:image/jpeg" in (report / "report.html").read_text()


@pytest.mark.long
@pytest.mark.parametrize("backbone", ["r3d_18", "clip:ViT-S-32-alt"])
def test_random_networks_see_what_happens(backbone: str, tmp_path: Path, run: Run) -> None:
    if ":" in backbone:
        pytest.importorskip("open_clip")
    classes = {"normal": ["walk"], "hazardous": ["fight"]}
    scenes = [make_calm_scene(number) for number in range(12)]
    manifest = draw_dataset(tmp_path / "videos", classes=classes, clips_per_class=24, scenes=scenes, seconds=2)
    frames = () if ":" in backbone else ("--frames", 8, "--fps", 10, "--set", "stride_seconds=0.8")
    options = ("--backbone", backbone, "--weights", "random", "--reduce", "none", *frames)
    assert run(extract_features, manifest, "-o", tmp_path / "c.h5", *options, *CPU).code == 0
    options = ("--baseline", "logistic_regression", "--folds", 3)
    assert run(train_temporal, tmp_path / "c.h5", "-o", tmp_path / "model", *options).code == 0
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert metrics["roc_auc"]["low"] > 0.5, f"better than chance, and not by chance: {metrics['roc_auc']}"
