import importlib.machinery
import importlib.util
import json
import math
import sqlite3
import struct
from dataclasses import dataclass, replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import features.cache.hdf5
import hazard.models.settings
from features.errors import SettingsError
from hazard.cli.train import train_temporal
from hazard.experiments import trackers
from hazard.experiments.run import train_run
from hazard.experiments.trackers import TRACKERS, TrackerBackend, open_tracker
from hazard.models.settings import TRACKER_NAMES, TrainSettings
from tests.helpers.data.sequences import make_cache, make_moving_sequences
from tests.helpers.paths import ROOT

DATA = make_moving_sequences(clips=40, groups=10)
QUICK = TrainSettings(hidden_size=4, projection=4, members=2, epochs=2, folds=2, device="cpu")
FIGURES = {"accuracy": {"value": 0.75, "low": 0.5, "high": math.nan}, "confusion": {"counts": [[1]]}}


@dataclass(frozen=True)
class Row:
    member: int
    epoch: int
    train_loss: float
    val_loss: float
    best: bool = False


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Run every tracker without a network, with its files in a folder of the test."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)


def installed(name):
    package = TRACKERS[name].package
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package}, the extra `{name}`, is not installed")


def picture_at(file):
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(file)
    return file


@pytest.mark.parametrize("name", TRACKERS)
def test_every_tracker_takes_what_a_run_gives(name, offline, tmp_path, caplog):
    installed(name)
    with open_tracker(name, tmp_path / "run", {"head": "lstm", "inputs": ["features"], "lr": 1e-3}) as tracker:
        for epoch in (1, 2):
            for member in (0, 1):
                tracker.log_epoch("lstm", 0, Row(member, epoch, 0.5 / epoch, math.nan))
        tracker.log_results(FIGURES, [picture_at(tmp_path / "curves.png")])
    assert not [record for record in caplog.records if "failed" in record.message]


def leveldb_records(content):
    """Read the records of a W&B file: a LevelDB log (crc, length, type; blocks of 32 KiB) after a header of 7 bytes."""
    place, record = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # too little room for another record: filled up with zeros
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def test_tensorboard_can_be_read_back(offline, tmp_path):
    installed("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_run(make_cache(DATA), QUICK.model_copy(update={"tracker": "tensorboard"}), tmp_path / "run", echo=str)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    tree = json.loads((tmp_path / "run" / "metrics.json").read_text())
    scalars = set(events.Tags()["scalars"])
    for fold in (0, 1, "final"):
        for member in (0, 1):
            assert f"train_loss/lstm/fold {fold}/member {member}" in scalars
    points = events.Scalars("train_loss/lstm/fold 0/member 1")
    assert [point.step for point in points] == [1, 2]
    assert events.Scalars("figures/accuracy")[0].value == pytest.approx(tree["accuracy"]["value"])
    assert {"confusion", "curves", "history", "reliability"} <= set(events.Tags()["images"])
    assert events.Tags()["tensors"] == ["settings/text_summary"]


def test_wandb_leaves_an_offline_run(offline, tmp_path):
    installed("wandb")
    from wandb.proto import wandb_internal_pb2 as pb

    train_run(make_cache(DATA), QUICK.model_copy(update={"tracker": "wandb"}), tmp_path / "run", echo=str)
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    keys = set()
    for data in leveldb_records(file.read_bytes()):
        record = pb.Record.FromString(data)
        for item in [*record.history.item, *record.summary.update]:
            keys.add(item.key or "/".join(item.nested_key))
    assert {
        "lstm/fold 0/member 1/train_loss",
        "lstm/fold final/member 0/val_loss",
        "accuracy",
        "confusion/path",
    } <= keys


def test_mlflow_can_be_asked(offline, tmp_path):
    installed("mlflow")
    from mlflow import MlflowClient

    train_run(make_cache(DATA), QUICK.model_copy(update={"tracker": "mlflow"}), tmp_path / "run", echo=str)
    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name(trackers.DEFAULT_PROJECT).experiment_id])
    tree = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert run.info.status == "FINISHED" and run.info.run_name == "run" and run.data.params["head"] == "lstm"
    assert run.data.metrics["accuracy"] == pytest.approx(tree["accuracy"]["value"])
    points = client.get_metric_history(run.info.run_id, "lstm/fold 0/member 1/train_loss")
    assert sorted(point.step for point in points) == [1, 2]
    assert "pictures/confusion.png" in {file.path for file in client.list_artifacts(run.info.run_id, "pictures")}
    assert sqlite3.connect(tmp_path / "mlflow.db").execute("select count(*) from runs").fetchone() == (1,)


def add_tracker(monkeypatch, name, tracker):
    monkeypatch.setitem(TRACKERS, name, tracker)
    monkeypatch.setattr(hazard.models.settings, "TRACKER_NAMES", (*TRACKER_NAMES, name))


class Breaking(TrackerBackend):
    """A tracker that fails at the second epoch."""

    calls = 0

    def log_curve(self, name, values, step):
        type(self).calls += 1
        if type(self).calls > 1:
            raise OSError("no space left on device")


def test_a_tracker_that_fails_does_not_stop_training(tmp_path, monkeypatch, caplog):
    add_tracker(monkeypatch, "breaking", Breaking)
    settings = QUICK.model_copy(update={"tracker": "breaking"})
    summary = train_run(make_cache(DATA), settings, tmp_path / "a", echo=str)
    assert summary.metrics == train_run(make_cache(DATA), QUICK, tmp_path / "b", echo=str).metrics
    assert Breaking.calls == 2
    assert [record.message for record in caplog.records if "no space left" in record.message] == [
        "tracker breaking failed and is switched off for the rest of the run: no space left on device"
    ]


def test_a_stopped_run_is_closed_as_stopped(tmp_path, monkeypatch):
    closed = []
    recorder = type("Recorder", (TrackerBackend,), {"close": lambda self, *, done: closed.append(done)})
    monkeypatch.setitem(TRACKERS, "recorder", recorder)
    with pytest.raises(KeyboardInterrupt), open_tracker("recorder", tmp_path, {}):
        raise KeyboardInterrupt
    with open_tracker("recorder", tmp_path, {}):
        pass
    assert closed == [False, True]


def test_a_tracker_that_cannot_start_is_said_in_one_line(tmp_path, monkeypatch):
    def refuse(folder, settings):
        raise RuntimeError("no login\nmore lines")

    refuse.package = ""
    add_tracker(monkeypatch, "refusing", refuse)
    with pytest.raises(SettingsError, match="tracker refusing cannot start: no login; fix this or use --tracker none"):
        train_run(make_cache(DATA), QUICK.model_copy(update={"tracker": "refusing"}), tmp_path / "run", echo=str)


@pytest.mark.parametrize("name", [name for name in TRACKERS if TRACKERS[name].package])
@pytest.mark.parametrize("mere_folder", [False, True])
def test_a_missing_package_is_named_before_anything_is_trained(name, mere_folder, tmp_path, monkeypatch):
    """W&B writes its runs to a folder `wandb`, which Python takes for a package without a file."""
    package = TRACKERS[name].package
    found = importlib.machinery.ModuleSpec(package, None) if mere_folder else None
    monkeypatch.setattr(trackers, "find_spec", lambda name: found)
    with pytest.raises(SettingsError, match=rf"pip install {package}$"):
        train_run(make_cache(DATA), QUICK.model_copy(update={"tracker": name}), tmp_path / "run", echo=str)
    assert not (tmp_path / "run").exists()


def test_the_command_knows_its_trackers(tmp_path, monkeypatch):
    monkeypatch.setattr(features.cache.hdf5, "read_cache", lambda path: make_cache(DATA))
    with pytest.raises(SettingsError, match="did you mean 'tensorboard'"):
        CliRunner().invoke(
            train_temporal, ["a.h5", "-o", str(tmp_path), "--tracker", "tensorbord"], catch_exceptions=False
        )


def test_settings_know_every_tracker():
    assert tuple(TRACKERS) == TRACKER_NAMES


def test_every_extra_is_in_setup_cfg():
    text = (ROOT / "setup.cfg").read_text()
    for name, sink in TRACKERS.items():
        assert not sink.package or f"\n{name} =\n    {sink.package}" in text


def test_curves_leave_out_what_is_no_number(tmp_path, monkeypatch):
    seen = []
    recorder = type("Recorder", (TrackerBackend,), {"log_curve": lambda self, *point: seen.append(point)})
    monkeypatch.setitem(TRACKERS, "recorder", recorder)
    row = Row(member=2, epoch=7, train_loss=0.5, val_loss=math.nan)
    with open_tracker("recorder", tmp_path, {}) as tracker:
        tracker.log_epoch("lstm", "final", row)
        tracker.log_epoch("lstm", 1, replace(row, val_loss=0.25))
    assert seen == [
        ("lstm/fold final/member 2", {"train_loss": 0.5}, 7),
        ("lstm/fold 1/member 2", {"train_loss": 0.5, "val_loss": 0.25}, 7),
    ]
