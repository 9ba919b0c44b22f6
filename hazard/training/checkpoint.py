"""Checkpoints of a training run: finished fits, and the state of the current fit after an epoch.

A checkpoint is two files: immutable weights named by their own sha256 (safetensors), and a small JSON file that names
them and is replaced by rename. Nothing in them is ever executed. They hold the digest of everything that the fit
depends on.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from features.errors import ArtifactError, UserFacingError
from features.utils.command_line import StopFlag
from features.utils.files import check_writable, remove_stale_temporaries, write_atomically
from hazard.data.splits import Fold
from hazard.models.head_ensemble import HeadEnsemble
from hazard.models.settings import TrainSettings

CHECKPOINT_FOLDER = "checkpoint"
LAST_WEIGHTS_FILE = "last.safetensors"
MIN_SAVE_SECONDS = 5.0
"""Shortest time between two checkpoints of one fit."""
MAX_SAVE_TIME_SHARE = 0.02
"""Largest share of the training time that is spent on checkpoints."""
MACHINE_SETTINGS = {"threads", "device", "jobs"}
"""Settings that may change when another machine resumes the run."""

RESTART_HINT = "leave out --resume to start again from the beginning"


class TrainingStopped(UserFacingError):
    """Error that ends a run which the user asked to stop; finished epochs are saved."""

    def __init__(self, stop: StopFlag) -> None:
        super().__init__("stopped; finished epochs are saved. Run the same command with --resume to continue")
        self.exit_code = stop.exit_code


@dataclass(frozen=True)
class FitState:
    """State of a fit after an epoch: facts that JSON can hold, and tensors."""

    facts: dict[str, Any]
    tensors: dict[str, Tensor]
    finished: bool = False


class _Entry(BaseModel):
    """JSON file of a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    fit: str
    finished: bool
    facts: dict[str, Any]
    weights: str
    """sha256 of the weights, which is part of their file's name."""


@dataclass
class Checkpoints:
    """Checkpoints of one run, in a folder of their own beside its model."""

    folder: Path
    cache_digest: str
    stop: StopFlag = field(default_factory=StopFlag)
    min_save_seconds: float = MIN_SAVE_SECONDS
    max_save_time_share: float = MAX_SAVE_TIME_SHARE
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def open(
        cls,
        run: Path,
        *,
        cache_digest: str,
        settings: TrainSettings,
        compare: bool = False,
        resume: bool = False,
        stop: StopFlag | None = None,
    ) -> "Checkpoints":
        """Open the checkpoints of the run in folder `run`; without `resume` old ones are removed.

        Raises ArtifactError if they belong to another run, RuntimeEnvironmentError if the folder cannot be written.
        """
        folder = run / CHECKPOINT_FOLDER
        identity = {"cache": cache_digest, "compare": compare} | _dump_relevant_settings(settings)
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)
        elif (folder / "run.json").exists():
            _check_same_run(folder / "run.json", identity)
        check_writable(folder / "run.json")
        remove_stale_temporaries(folder)
        write_atomically(folder / "run.json", (json.dumps(identity, indent=2) + "\n").encode())
        return cls(folder, cache_digest, StopFlag() if stop is None else stop)  # a flag that is not set is falsy

    def make_fit_checkpoint(self, fold: Fold, settings: TrainSettings) -> "FitCheckpoint":
        """Return the checkpoint of one fit."""
        rows = [part.tolist() for part in (fold.train, fold.val)]
        identity = json.dumps([self.cache_digest, _dump_relevant_settings(settings), rows, fold.val_is_given])
        return FitCheckpoint(self, hashlib.sha256(identity.encode()).hexdigest())

    def check_stop(self) -> None:
        """Raise TrainingStopped if the user asked to stop."""
        if self.stop:
            raise TrainingStopped(self.stop)

    def remove(self) -> None:
        """Remove all checkpoints; call it once the model is written."""
        shutil.rmtree(self.folder, ignore_errors=True)


class FitCheckpoint:
    """Checkpoint of one fit."""

    def __init__(self, checkpoints: Checkpoints, fit_digest: str) -> None:
        self._checkpoints, self.digest = checkpoints, fit_digest
        self._file = checkpoints.folder / f"{fit_digest[:24]}.json"
        self._saved_at, self._save_cost_seconds = checkpoints.clock(), 0.0

    def load(self) -> FitState | None:
        """Return the state that was saved last, or None. Raises ArtifactError if it is damaged."""
        if not self._file.exists():
            return None
        try:
            entry = _Entry.model_validate_json(self._file.read_bytes())
            content = self._weights_file(entry.weights).read_bytes()
            tensors = safetensors.torch.load(content)
        except (OSError, ValidationError, safetensors.SafetensorError, ValueError, KeyError) as error:
            raise self.make_damaged_error(str(error).splitlines()[0]) from None
        if entry.fit != self.digest or hashlib.sha256(content).hexdigest() != entry.weights:
            raise self.make_damaged_error("its content does not match its digest")
        return FitState(entry.facts, tensors, entry.finished)

    def save_if_due(self, make_state: Callable[[], FitState]) -> None:
        """Save the state if it is time to.

        If the user asked to stop, save it in any case and raise TrainingStopped.
        """
        elapsed_seconds = self._checkpoints.clock() - self._saved_at
        due = (
            elapsed_seconds >= self._checkpoints.min_save_seconds
            and self._save_cost_seconds <= self._checkpoints.max_save_time_share * elapsed_seconds
        )
        should_stop = bool(self._checkpoints.stop)  # read once: a later request is handled after the next epoch
        if due or should_stop:
            self.save(make_state())
        if should_stop:
            raise TrainingStopped(self._checkpoints.stop)

    def save(self, state: FitState) -> None:
        """Save the state; the previous checkpoint stays valid until this one is complete.

        Raises RuntimeEnvironmentError if the files cannot be written.
        """
        began = self._checkpoints.clock()
        content = safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in state.tensors.items()})
        digest = hashlib.sha256(content).hexdigest()
        write_atomically(self._weights_file(digest), content)
        entry = _Entry(fit=self.digest, finished=state.finished, facts=state.facts, weights=digest)
        write_atomically(self._file, entry.model_dump_json().encode())
        for old in self._checkpoints.folder.glob(self._weights_file("*").name):
            if old != self._weights_file(digest):
                old.unlink(missing_ok=True)
        self._saved_at = self._checkpoints.clock()
        self._save_cost_seconds = self._saved_at - began

    def make_damaged_error(self, reason: str) -> ArtifactError:
        """Return the error for a damaged checkpoint, with the reason and what to do."""
        return ArtifactError(f"{self._file} rejected: damaged ({reason}); {RESTART_HINT}")

    def _weights_file(self, digest: str) -> Path:
        return self._file.with_name(f"{self.digest[:24]}.{digest}.safetensors")


def save_last_weights(folder: Path, model: object) -> None:
    """Write the weights after the last epoch as last.safetensors, named as in model.safetensors.

    A baseline has none; an old file is removed then.
    """
    if isinstance(model, HeadEnsemble) and model.last_epoch_weights:
        write_atomically(
            folder / LAST_WEIGHTS_FILE,
            safetensors.torch.save({k: v.contiguous() for k, v in model.last_epoch_weights.items()}),
        )
    else:
        (folder / LAST_WEIGHTS_FILE).unlink(missing_ok=True)


def _dump_relevant_settings(settings: TrainSettings) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude=MACHINE_SETTINGS)


def _check_same_run(file: Path, identity: dict[str, Any]) -> None:
    try:
        found = dict(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        raise ArtifactError(f"{file} rejected: damaged; {RESTART_HINT}") from None
    differing = [name for name in {**identity, **found} if identity.get(name) != found.get(name)]
    if differing:
        facts = ", ".join(
            f"{name}: {_shorten_json(found.get(name))}, now {_shorten_json(identity.get(name))}" for name in differing
        )
        raise ArtifactError(
            f"{file.parent} rejected: it is the checkpoint of another run ({facts}); "
            f"use the settings of that run, or {RESTART_HINT}"
        )


def _shorten_json(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:16] + "…"
