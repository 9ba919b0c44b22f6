"""A run that is interrupted at any moment and resumed gives the same weights, bit for bit, and the same metrics."""

import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner

import features.cache.hdf5
from features.cache.hdf5 import write_cache as write_cache_file
from features.cache.tables import ClipTable, make_failure_table
from features.errors import ArtifactError
from features.utils.command_line import StopFlag
from hazard.cli.train import train_temporal
from hazard.data.splits import make_grouped_folds
from hazard.experiments.run import train_run
from hazard.models.heads import HEADS
from hazard.models.settings import TrainSettings
from hazard.training.checkpoint import CHECKPOINT_FOLDER, Checkpoints, FitState, TrainingStopped
from hazard.training.head_trainer import EpochMetrics
from hazard.training.trainer import fit_head
from tests.helpers.data.sequences import add_noisy_views, make_cache, make_moving_sequences
from tests.helpers.paths import ROOT

DATA = make_moving_sequences(clips=40, groups=10)
FOLD = make_grouped_folds(DATA, 4, seed=0)[0]
QUICK = TrainSettings(hidden_size=4, projection=4, members=2, epochs=6, lr=1e-2, device="cpu")
EVERYTHING = {
    "warmup": 0.2,
    "ema": 0.9,
    "balance": "sampling",
    "loss": "focal",
    "temporal_crop": 0.3,
    "frame_dropout": 0.1,
    "feature_dropout": 0.1,
    "mixup": 0.2,
    "batch_size": 8,
}
SAME = ("model.safetensors", "last.safetensors", "history.csv", "metrics.json", "predictions.csv")


@pytest.fixture(autouse=True)
def _one_thread():
    """Use one thread: small heads on two threads spend their time waiting for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class KilledError(Exception):
    pass


def eager(folder: Path, settings: TrainSettings = QUICK, *, resume: bool = False, **options: object) -> Checkpoints:
    """Open checkpoints that are written after every epoch."""
    checkpoints = Checkpoints.open(folder, cache_digest="d" * 64, settings=settings, resume=resume, **options)
    checkpoints.min_save_seconds, checkpoints.max_save_time_share = 0, float("inf")
    return checkpoints


def die_at(epoch):
    def hook(row):
        if row.epoch == epoch:
            raise KilledError

    return hook


def same(first, second):
    weights = (
        (first[0].state_dict(), second[0].state_dict()),
        (first[0].last_epoch_weights, second[0].last_epoch_weights),
    )
    assert all(a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in weights)
    assert str(first[1]) == str(second[1])  # NaN is not equal to itself


@pytest.mark.parametrize("changes", [*({"head": name} for name in HEADS), EVERYTHING], ids=[*HEADS, "everything"])
def test_resumed_is_bit_for_bit_what_was_not_interrupted(tmp_path, changes):
    settings = QUICK.model_copy(update=changes)
    data = add_noisy_views(DATA, "flip")
    whole = fit_head(data, FOLD, settings)
    for epoch in (2, 4):  # killed, resumed, killed again
        with pytest.raises(KilledError):
            fit_head(data, FOLD, settings, checkpoints=eager(tmp_path, settings, resume=True), on_epoch=die_at(epoch))
        torch.rand(epoch)  # what others draw in between changes nothing
    seen, told = [], []
    again = fit_head(
        data,
        FOLD,
        settings,
        checkpoints=eager(tmp_path, settings, resume=True),
        on_epoch=seen.append,
        progress=lambda *row: told.append(row),
    )
    same(whole, again)
    assert [(row.epoch, row.member) for row in seen] == [(row.epoch, row.member) for row in whole[1]]
    assert [number for number, _ in told] == list(range(1, len(told) + 1))


def test_a_finished_fit_is_not_done_again(tmp_path, monkeypatch):
    first = fit_head(DATA, FOLD, QUICK, checkpoints=eager(tmp_path))
    monkeypatch.setattr("hazard.training.trainer.HeadTrainer", lambda *args, **options: pytest.fail("trained again"))
    same(first, fit_head(DATA, FOLD, QUICK, checkpoints=eager(tmp_path, resume=True)))


def run(folder, **options):
    return train_run(make_cache(DATA), QUICK.model_copy(update={"folds": 2}), folder, echo=lambda text: None, **options)


class StopAfter(StopFlag):
    """A flag that asks to stop when it is read for the n-th time."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    def __bool__(self):
        self.looks -= 1
        self.signal_number = signal.SIGTERM if self.looks < 0 else 0
        return self.looks < 0


@pytest.mark.parametrize(("compare", "looks"), [(False, 9), (True, 70)])
def test_a_run_that_was_asked_to_stop_ends_as_if_it_had_not_been(tmp_path, compare, looks):
    run(tmp_path / "whole", compare=compare)
    folder = tmp_path / "stopped"
    stops = 0
    while stops < 20:
        try:
            run(folder, compare=compare, resume=True, stop=StopAfter(looks))
            break
        except TrainingStopped as error:
            assert error.exit_code == 143 and "--resume" in str(error)
            stops += 1
    assert 1 <= stops < 20
    for name in SAME:
        if (tmp_path / "whole" / name).exists():
            assert comparable(folder / name) == comparable(tmp_path / "whole" / name), name
    names = {file.name for file in folder.iterdir()}
    assert names == {file.name for file in (tmp_path / "whole").iterdir()} and CHECKPOINT_FOLDER not in names


def comparable(file):
    if file.name != "metrics.json":
        return file.read_bytes()
    return {key: value for key, value in json.loads(file.read_text()).items() if "second" not in key}


def test_best_and_last_weights_are_both_left(tmp_path):
    run(tmp_path)
    best, last = (safetensors.torch.load_file(tmp_path / f"{name}.safetensors") for name in ("model", "last"))
    assert {name: value.shape for name, value in best.items()} == {name: value.shape for name, value in last.items()}
    with (tmp_path / "history.csv").open() as file:
        final = [row for row in csv.DictReader(file) if row["fold"] == "final"]
    alike = all(torch.equal(best[name], last[name]) for name in best)
    assert alike == (final[-1]["best"] == "1")


def interrupted(folder, settings=QUICK):
    with pytest.raises(KilledError):
        fit_head(DATA, FOLD, settings, checkpoints=eager(folder, settings), on_epoch=die_at(3))
    return folder / CHECKPOINT_FOLDER


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"lr": 0.5}, {}, "lr: 0.01, now 0.5"),
        ({}, {"cache_digest": "e" * 64}, "cache"),
        ({}, {"compare": True}, "compare"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_in_one_line(tmp_path, changes, options, said):
    interrupted(tmp_path)
    given = {"cache_digest": "d" * 64, "settings": QUICK.model_copy(update=changes)} | options
    with pytest.raises(ArtifactError, match=said) as raised:
        Checkpoints.open(tmp_path, resume=True, **given)
    assert "start again from the beginning" in str(raised.value) and "\n" not in str(raised.value)
    Checkpoints.open(tmp_path, **given)
    assert [file.name for file in (tmp_path / CHECKPOINT_FOLDER).iterdir()] == ["run.json"]


def test_other_threads_may_go_on(tmp_path):
    interrupted(tmp_path)
    Checkpoints.open(tmp_path, cache_digest="d" * 64, settings=QUICK.model_copy(update={"threads": 7}), resume=True)


def flip(file):
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def drop_tensors(file):
    """Replace the weights by another file with a correct digest, which the JSON file names."""
    content = safetensors.torch.save({"0.head.foreign": torch.ones(2)})
    digest = hashlib.sha256(content).hexdigest()
    name, old, _ = file.name.split(".")
    file.with_name(f"{name}.{digest}.safetensors").write_bytes(content)
    entry = file.with_name(f"{name}.json")
    entry.write_text(entry.read_text().replace(old, digest))


@pytest.mark.parametrize("harm", [flip, drop_tensors, lambda file: file.write_bytes(b"\x80\x04."), Path.unlink])
def test_damaged_weights_are_refused(tmp_path, harm):
    (file,) = interrupted(tmp_path).glob("*.safetensors")
    harm(file)
    with pytest.raises(ArtifactError, match="start again from the beginning") as raised:
        fit_head(DATA, FOLD, QUICK, checkpoints=eager(tmp_path, resume=True))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"fit": 1}'])
def test_a_damaged_entry_is_refused(tmp_path, text):
    folder = interrupted(tmp_path)
    (entry,) = (file for file in folder.glob("*.json") if file.name != "run.json")
    entry.write_text(text)
    with pytest.raises(ArtifactError, match="start again from the beginning"):
        fit_head(DATA, FOLD, QUICK, checkpoints=eager(tmp_path, resume=True))


def test_checkpoints_cost_a_fiftieth_of_the_time_at_most(tmp_path):
    """With a clock on which an epoch takes six seconds and a checkpoint two, few epochs are saved."""
    checkpoints = Checkpoints.open(tmp_path, cache_digest="", settings=QUICK)
    now = 0.0
    checkpoints.clock = lambda: now
    checkpoint = checkpoints.make_fit_checkpoint(FOLD, QUICK)
    saved, save = [], checkpoint.save

    def slow_save(state):
        nonlocal now
        checkpoints.clock = iter([now, now + 2, now + 2]).__next__
        save(state)
        now += 2
        checkpoints.clock = lambda: now
        saved.append(now)

    checkpoint.save = slow_save
    for _ in range(100):
        now += 6.0
        checkpoint.save_if_due(lambda: FitState({}, {"a": torch.ones(1)}))
    assert 5 <= len(saved) <= 7 and len(saved) * 2 <= 0.03 * now


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process on Windows")
def test_a_stopped_command_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(features.cache.hdf5, "read_cache", lambda path: make_cache(DATA))
    monkeypatch.setattr(
        "hazard.training.trainer.HeadTrainer.run_epoch",
        lambda self, number: os.kill(os.getpid(), signal.SIGTERM) or stub(number),
    )
    done = CliRunner().invoke(train_temporal, ["a.h5", "-o", str(tmp_path), "--set", "members=1"])
    assert isinstance(done.exception, TrainingStopped) and done.exception.exit_code == 143
    assert "stopping" in done.output


def stub(number):
    return EpochMetrics(0, number, 1.0, 1.0, 1.0, False)


@pytest.mark.long
def test_the_command_killed_at_any_moment(tmp_path):
    """A run that is killed with SIGKILL at seeded moments ends with the same files as a run that is not killed."""
    write = "from tests.hazard.training.test_checkpoint import write_cache; import sys; write_cache(sys.argv[1])"
    subprocess.run([sys.executable, "-c", write, str(tmp_path / "c.h5")], check=True, cwd=ROOT)
    slow = ["--epochs", "40", "--folds", "3", "--set", "patience=40", "--set", "members=2", "--device", "cpu"]

    def start(name, *more):
        command = [
            sys.executable,
            "train_temporal.py",
            str(tmp_path / "c.h5"),
            "-o",
            str(tmp_path / name),
            *slow,
            *more,
        ]
        return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    began = time.monotonic()
    assert start("whole").wait() == 0
    whole, rng, kills = time.monotonic() - began, random.Random(3), 0
    for _ in range(20):
        process = start("killed", "--resume")
        try:
            assert process.wait(timeout=rng.uniform(0.3, 1.0) * whole) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            continue
        if kills >= 2:
            break
        whole, kills = 0.7 * whole, 0  # the machine is quicker than it was
        shutil.rmtree(tmp_path / "killed")
    else:
        assert start("killed", "--resume").wait() == 0
    assert kills >= 2
    for name in SAME:
        assert comparable(tmp_path / "killed" / name) == comparable(tmp_path / "whole" / name), name
    assert not (tmp_path / "killed" / CHECKPOINT_FOLDER).exists()


def write_cache(path):
    """Write the cache file that `DATA` could have come from."""
    cache = make_cache(DATA)
    count = len(cache.clips.path)
    text = {"digest": np.array(["d" * 64] * count)}
    numbers = {"decoded_share": np.ones(count), "size_bytes": np.ones(count, int), "mtime_ns": np.ones(count, int)}
    table = ClipTable(**vars(cache.clips), **text, **numbers)
    with open(path, "w+b") as file:
        write_cache_file(
            file,
            [(cache.features, cache.times)],
            width=cache.features.shape[1],
            spec=cache.spec,
            reduction=None,
            clips=table,
            failures=make_failure_table([]),
            weights_file="w.pth",
        )
