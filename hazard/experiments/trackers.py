"""Trackers: TensorBoard, Weights & Biases and MLflow get the curves, metrics and plots of a run too.

Training does not depend on a tracker: if one fails, it is switched off with a warning and training continues.
"""

import dataclasses
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from features.errors import SettingsError

log = logging.getLogger(__name__)

DEFAULT_PROJECT = "hazard-video"
"""Name of the W&B project and the MLflow experiment, unless WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME is set."""


class TrackerBackend:
    """Interface of every entry of TRACKERS. This class itself is the tracker `none`, which sends nothing."""

    package = ""
    """Package that must be installed; the extra that installs it has the tracker's name."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Start tracking the run in `folder`, which has these settings."""

    def log_curve(self, name: str, values: Mapping[str, float], step: int) -> None:
        """Log one more point, at `step`, of each curve of `name`."""

    def log_metrics(self, values: Mapping[str, float]) -> None:
        """Log the final metrics of the run."""

    def log_image(self, file: Path) -> None:
        """Log a PNG file."""

    def close(self, *, done: bool) -> None:
        """Close the tracker; `done` is False if the run was stopped."""


class TensorBoard(TrackerBackend):
    """Event files in `FOLDER/tensorboard`; view them with `tensorboard --logdir runs`."""

    package = "tensorboard"

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))
        rows = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
        self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}")

    def log_curve(self, name: str, values: Mapping[str, float], step: int) -> None:
        """Write one scalar per key."""
        for key, value in values.items():
            self._writer.add_scalar(
                f"{key}/{name}", value, step
            )  # TensorBoard groups scalars by the part before the slash
        self._writer.flush()

    def log_metrics(self, values: Mapping[str, float]) -> None:
        """Write each metric as a scalar of step 0."""
        for name, value in values.items():
            self._writer.add_scalar(f"figures/{name}", value, 0)

    def log_image(self, file: Path) -> None:
        """Write the plot as an image."""
        with Image.open(file) as image:
            self._writer.add_image(file.stem, np.asarray(image.convert("RGB")), dataformats="HWC")

    def close(self, *, done: bool) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WeightsAndBiases(TrackerBackend):
    """A W&B run, offline with WANDB_MODE=offline; its files are in `FOLDER/wandb`."""

    package = "wandb"

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        import wandb

        self._wandb = wandb
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", DEFAULT_PROJECT),
            name=folder.name,
            dir=str(folder),
            config=dict(settings),
            settings=wandb.Settings(console="off"),
        )
        self._run.define_metric("*", step_metric="epoch")  # each fold and member starts again at epoch 1

    def log_curve(self, name: str, values: Mapping[str, float], step: int) -> None:
        """Log one row with its epoch."""
        self._run.log({f"{name}/{key}": value for key, value in values.items()} | {"epoch": step})

    def log_metrics(self, values: Mapping[str, float]) -> None:
        """Write the metrics to the run's summary."""
        self._run.summary.update(dict(values))

    def log_image(self, file: Path) -> None:
        """Log the plot as an image."""
        self._run.log({file.stem: self._wandb.Image(str(file))})

    def close(self, *, done: bool) -> None:
        """Finish the run, marked as failed if it was stopped."""
        self._run.finish(exit_code=0 if done else 1)


class MLflow(TrackerBackend):
    """An MLflow run, stored where MLFLOW_TRACKING_URI points to, otherwise in MLflow's default place."""

    package = "mlflow"

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", DEFAULT_PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        self._run = self._client.create_run(experiment, run_name=folder.name).info.run_id
        self._client.log_batch(self._run, params=[Param(key, str(value)) for key, value in settings.items()])

    def log_curve(self, name: str, values: Mapping[str, float], step: int) -> None:
        """Log one metric per key."""
        self._log_batch({f"{name}/{key}": value for key, value in values.items()}, step)

    def log_metrics(self, values: Mapping[str, float]) -> None:
        """Log each metric at step 0."""
        self._log_batch(values, 0)

    def log_image(self, file: Path) -> None:
        """Upload the plot as an artifact."""
        self._client.log_artifact(self._run, str(file), "pictures")

    def close(self, *, done: bool) -> None:
        """Set the final status of the run."""
        self._client.set_terminated(self._run, "FINISHED" if done else "KILLED")

    def _log_batch(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 10**6  # milliseconds
        self._client.log_batch(self._run, metrics=[Metric(name, value, now, step) for name, value in values.items()])


TRACKERS: dict[str, type[TrackerBackend]] = {
    "none": TrackerBackend,
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}
"""Name → class. To add a tracker, write a class, a line here and an extra of that name in setup.cfg."""


class Tracker:
    """A tracker that cannot stop a run: when it fails for the first time, it is switched off with a warning."""

    def __init__(self, name: str, backend: TrackerBackend) -> None:
        self._name, self._backend, self._has_failed = name, backend, False

    def log_epoch(self, model: str, fold: int | str, epoch: Any) -> None:
        """Log the metrics of an epoch as points of the curves `MODEL/fold F/member M`.

        `epoch` is a dataclass with the fields `member` and `epoch`; its other numbers are the metrics.
        """
        values = {
            key: value for key, value in dataclasses.asdict(epoch).items() if key not in ("member", "epoch", "best")
        }
        name = f"{model}/fold {fold}/member {epoch.member}"
        self._run_guarded(lambda: self._backend.log_curve(name, _select_finite(values), epoch.epoch))

    def log_results(self, metrics: Mapping[str, Any], images: Iterable[Path]) -> None:
        """Log the headline metrics of metrics.json with their intervals, and the run's plots."""
        headline = {name: each for name, each in metrics.items() if isinstance(each, Mapping) and "low" in each}
        values = {name: each["value"] for name, each in headline.items()}
        values |= {f"{name}_{end}": each[end] for name, each in headline.items() for end in ("low", "high")}
        self._run_guarded(lambda: self._backend.log_metrics(_select_finite(values)))
        for file in images:
            self._run_guarded(lambda file=file: self._backend.log_image(file))  # type: ignore[misc]

    def close(self, *, done: bool) -> None:
        """Close the tracker; `done` is False if the run was stopped."""
        self._run_guarded(lambda: self._backend.close(done=done))

    def _run_guarded(self, action: Callable[[], None]) -> None:
        if self._has_failed:
            return
        try:
            action()
        except Exception as error:  # a full disk, a lost network or a bug in the tracker must not cost the model
            self._has_failed = True
            log.warning(
                "tracker %s failed and is switched off for the rest of the run: %s", self._name, _first_line(error)
            )


@contextmanager
def open_tracker(name: str, folder: Path, settings: Mapping[str, Any]) -> Iterator[Tracker]:
    """Open tracker `name` for the run in `folder`; close it at the end of the block in any case.

    Raises SettingsError if its package is not installed or it cannot start.
    """
    check_tracker_installed(name)
    try:
        tracker = Tracker(name, TRACKERS[name](folder, settings))
    except Exception as error:
        raise SettingsError(
            f"tracker {name} cannot start: {_first_line(error)}; fix this or use --tracker none"
        ) from None
    done = False
    try:
        yield tracker
        done = True
    finally:
        tracker.close(done=done)


def check_tracker_installed(name: str) -> None:
    """Check that the package of tracker `name` is installed; raises SettingsError if not."""
    package = TRACKERS[name].package
    spec = find_spec(package) if package else None
    if package and (spec is None or spec.origin is None):  # a folder called `wandb` has a spec too, but no origin
        raise SettingsError(f"--tracker {name} needs {package}: pip install {package}")


def _select_finite(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value) for name, value in values.items() if isinstance(value, int | float) and math.isfinite(value)
    }


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
