"""Heads of several folds fitted in processes: the same files as in one process, and a stop that saves."""

import json

import pytest

from features.utils.command_line import StopFlag
from hazard.experiments.run import train_run
from hazard.models.settings import TrainSettings
from hazard.training import head_fits
from hazard.training.checkpoint import CHECKPOINT_FOLDER, TrainingStopped
from tests.helpers.data.sequences import make_cache, make_moving_sequences

DATA = make_moving_sequences(clips=40, groups=10)
QUICK = TrainSettings(hidden_size=4, projection=4, members=1, epochs=3, folds=4, device="cpu", jobs=2)
FILES = ("predictions.csv", "history.csv", "model.safetensors")


def train(folder, **arguments):
    lines = []
    settings = QUICK.model_copy(update=arguments.pop("changes", {}))
    train_run(make_cache(DATA), settings, folder, echo=lines.append, **arguments)
    metrics = json.loads((folder / "metrics.json").read_text())
    return [(folder / name).read_bytes() for name in FILES], metrics["accuracy"], metrics["roc_auc"]


@pytest.fixture
def eager(monkeypatch):
    """Processes start at the second fit; the list holds the number of fits that each run gave to them."""
    started = []
    start = head_fits.HeadFits._start

    def watch(self):
        started.append(len(self._pending))
        start(self)

    monkeypatch.setattr(head_fits, "PAYING_SECONDS", 0.0)
    monkeypatch.setattr(head_fits.HeadFits, "_start", watch)
    return started


def test_processes_change_no_file_and_a_stop_is_saved_and_resumed(tmp_path, eager):
    alone = train(tmp_path / "alone", changes={"jobs": 1})
    assert eager == []
    together = train(tmp_path / "together")
    assert eager == [3] and together == alone
    assert not (tmp_path / "together" / CHECKPOINT_FOLDER).exists()

    class StopsLater(StopFlag):
        """Set when processes have started."""

        def __bool__(self):
            self.signal_number = 15 if len(eager) == 2 else 0
            return bool(self.signal_number)

    with pytest.raises(TrainingStopped):
        train(tmp_path / "stopped", stop=StopsLater())
    left = tmp_path / "stopped" / CHECKPOINT_FOLDER
    assert list(left.glob("*.safetensors")) and not list(left.glob("*.npy")) and not (left / "stop").exists()
    assert train(tmp_path / "stopped", resume=True) == alone


def test_short_fits_start_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(head_fits, "run_tasks", lambda *_, **__: pytest.fail("processes for a second of work"))
    train(tmp_path)
