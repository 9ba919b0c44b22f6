"""What an interrupted run goes on from: finished fits, and the one in work as it was after an epoch.

A checkpoint is two files: immutable weights named by their own sha256 (safetensors), and a small JSON file, swapped in
by rename, that names them. Nothing in them is ever executed. They bear the digest of all that the fit depends on.
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
"""Least time between two checkpoints of one fit."""
MAX_SAVE_TIME_SHARE = 0.02
"""Largest share of the time that may go into checkpoints."""
MACHINE_SETTINGS = {"threads", "device"}
"""Settings that another machine may differ in when it goes on."""

RESTART_HINT = "leave out --resume to start afresh"


class TrainingStopped(UserFacingError):
    """Somebody asked the run to stop, and what was done is kept."""

    def __init__(self, stop: StopFlag) -> None:
        super().__init__("stopped; finished epochs are kept, run the same command with --resume to go on")
        self.exit_code = stop.exit_code


@dataclass(frozen=True)
class FitState:
    """A fit after an epoch: numbers and rows as JSON knows them, and tensors."""

    facts: dict[str, Any]
    tensors: dict[str, Tensor]
    finished: bool = False


class _Entry(BaseModel):
    """The JSON file of a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    fit: str
    finished: bool
    facts: dict[str, Any]
    weights: str
    """sha256 of the weights, and the name of their file."""


@dataclass
class Checkpoints:
    """The checkpoints of one run, in a folder of their own beside its model."""

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
        """Those of the run in folder `run`; without `resume` old ones are removed.

        Raises ArtefactRefused where they are of another run, EnvironmentStopped where the folder cannot be written.
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
        return cls(folder, cache_digest, StopFlag() if stop is None else stop)  # one that nobody pressed is falsy

    def make_fit_checkpoint(self, fold: Fold, settings: TrainSettings) -> "FitCheckpoint":
        """That of one fit."""
        rows = [part.tolist() for part in (fold.train, fold.val)]
        described = json.dumps([self.cache_digest, _dump_relevant_settings(settings), rows, fold.val_is_given])
        return FitCheckpoint(self, hashlib.sha256(described.encode()).hexdigest())

    def check_stop(self) -> None:
        """Raises Stopped where somebody asked for it."""
        if self.stop:
            raise TrainingStopped(self.stop)

    def remove(self) -> None:
        """The run has ended, and its model is written."""
        shutil.rmtree(self.folder, ignore_errors=True)


class FitCheckpoint:
    """The checkpoint of one fit."""

    def __init__(self, checkpoints: Checkpoints, fit_digest: str) -> None:
        self._checkpoints, self._fit_digest = checkpoints, fit_digest
        self._file = checkpoints.folder / f"{fit_digest[:24]}.json"
        self._saved_at, self._save_cost_seconds = checkpoints.clock(), 0.0

    def load(self) -> FitState | None:
        """What was saved last, if anything. Raises ArtefactRefused where it is damaged."""
        if not self._file.exists():
            return None
        try:
            entry = _Entry.model_validate_json(self._file.read_bytes())
            content = self._weights_file(entry.weights).read_bytes()
            tensors = safetensors.torch.load(content)
        except (OSError, ValidationError, safetensors.SafetensorError, ValueError, KeyError) as error:
            raise self.make_damaged_error(str(error).splitlines()[0]) from None
        if entry.fit != self._fit_digest or hashlib.sha256(content).hexdigest() != entry.weights:
            raise self.make_damaged_error("its content does not match its digest")
        return FitState(entry.facts, tensors, entry.finished)

    def save_if_due(self, make_state: Callable[[], FitState]) -> None:
        """Saves if it is time to, or if somebody asked to stop; raises Stopped then."""
        since = self._checkpoints.clock() - self._saved_at
        due = (
            since >= self._checkpoints.min_save_seconds
            and self._save_cost_seconds <= self._checkpoints.max_save_time_share * since
        )
        stopping = bool(self._checkpoints.stop)  # looked at once: who asks a moment later is heard after the next epoch
        if due or stopping:
            self.save(make_state())
        if stopping:
            raise TrainingStopped(self._checkpoints.stop)

    def save(self, state: FitState) -> None:
        """Raises EnvironmentStopped; the checkpoint before stays whole until this one is."""
        began = self._checkpoints.clock()
        content = safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in state.tensors.items()})
        digest = hashlib.sha256(content).hexdigest()
        write_atomically(self._weights_file(digest), content)
        entry = _Entry(fit=self._fit_digest, finished=state.finished, facts=state.facts, weights=digest)
        write_atomically(self._file, entry.model_dump_json().encode())
        for old in self._checkpoints.folder.glob(self._weights_file("*").name):
            if old != self._weights_file(digest):
                old.unlink(missing_ok=True)
        self._saved_at = self._checkpoints.clock()
        self._save_cost_seconds = self._saved_at - began

    def make_damaged_error(self, reason: str) -> ArtifactError:
        """The one line that says why this checkpoint is not gone on from."""
        return ArtifactError(f"{self._file} refused: damaged ({reason}); {RESTART_HINT}")

    def _weights_file(self, digest: str) -> Path:
        return self._file.with_name(f"{self._fit_digest[:24]}.{digest}.safetensors")


def save_last_weights(folder: Path, model: object) -> None:
    """The weights after the last epoch as last.safetensors, named as in model.safetensors; none for a baseline."""
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
        met = dict(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        raise ArtifactError(f"{file} refused: damaged; {RESTART_HINT}") from None
    differing = [name for name in {**identity, **met} if identity.get(name) != met.get(name)]
    if differing:
        facts = ", ".join(
            f"{name}: {_shorten_json(met.get(name))}, now {_shorten_json(identity.get(name))}" for name in differing
        )
        raise ArtifactError(
            f"{file.parent} refused: it is the checkpoint of another run ({facts}); repeat that run, or {RESTART_HINT}"
        )


def _shorten_json(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:16] + "…"
