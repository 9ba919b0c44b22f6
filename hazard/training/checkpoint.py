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

from features.errors import ArtefactRefused, UserFacingError
from features.utils.command_line import Stop
from features.utils.files import check_writable, sweep_temporary, write_atomically
from hazard.data.splits import Fold
from hazard.models.head_ensemble import Committee
from hazard.models.settings import TrainSettings

FOLDER = "checkpoint"
LAST = "last.safetensors"
SAVE_SECONDS = 5.0
"""Least time between two checkpoints of one fit."""
MOST_TIME = 0.02
"""Largest share of the time that may go into checkpoints."""
IRRELEVANT = {"threads", "device"}
"""Settings that another machine may differ in when it goes on."""

AFRESH = "leave out --resume to start afresh"


class Stopped(UserFacingError):
    """Somebody asked the run to stop, and what was done is kept."""

    def __init__(self, stop: Stop) -> None:
        super().__init__("stopped; finished epochs are kept, run the same command with --resume to go on")
        self.exit_code = stop.exit_code


@dataclass(frozen=True)
class State:
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
    stop: Stop = field(default_factory=Stop)
    save_seconds: float = SAVE_SECONDS
    most_time: float = MOST_TIME
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
        stop: Stop | None = None,
    ) -> "Checkpoints":
        """Those of the run in folder `run`; without `resume` old ones are removed.

        Raises ArtefactRefused where they are of another run, EnvironmentStopped where the folder cannot be written.
        """
        folder = run / FOLDER
        identity = {"cache": cache_digest, "compare": compare} | _relevant(settings)
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)
        elif (folder / "run.json").exists():
            _refuse_others(folder / "run.json", identity)
        check_writable(folder / "run.json")
        sweep_temporary(folder)
        write_atomically(folder / "run.json", (json.dumps(identity, indent=2) + "\n").encode())
        return cls(folder, cache_digest, Stop() if stop is None else stop)  # one that nobody pressed is falsy

    def of(self, fold: Fold, settings: TrainSettings) -> "FitCheckpoint":
        """That of one fit."""
        rows = [part.tolist() for part in (fold.train, fold.val)]
        described = json.dumps([self.cache_digest, _relevant(settings), rows, fold.val_is_given])
        return FitCheckpoint(self, hashlib.sha256(described.encode()).hexdigest())

    def check_stop(self) -> None:
        """Raises Stopped where somebody asked for it."""
        if self.stop:
            raise Stopped(self.stop)

    def remove(self) -> None:
        """The run has ended, and its model is written."""
        shutil.rmtree(self.folder, ignore_errors=True)


class FitCheckpoint:
    """The checkpoint of one fit."""

    def __init__(self, run: Checkpoints, fit: str) -> None:
        self._run, self._fit = run, fit
        self._file = run.folder / f"{fit[:24]}.json"
        self._saved_at, self._cost = run.clock(), 0.0

    def load(self) -> State | None:
        """What was saved last, if anything. Raises ArtefactRefused where it is damaged."""
        if not self._file.exists():
            return None
        try:
            entry = _Entry.model_validate_json(self._file.read_bytes())
            content = self._weights(entry.weights).read_bytes()
            tensors = safetensors.torch.load(content)
        except (OSError, ValidationError, safetensors.SafetensorError, ValueError, KeyError) as error:
            raise self.refusal(str(error).splitlines()[0]) from None
        if entry.fit != self._fit or hashlib.sha256(content).hexdigest() != entry.weights:
            raise self.refusal("its content does not match its digest")
        return State(entry.facts, tensors, entry.finished)

    def after_epoch(self, state: Callable[[], State]) -> None:
        """Saves if it is time to, or if somebody asked to stop; raises Stopped then."""
        since = self._run.clock() - self._saved_at
        due = since >= self._run.save_seconds and self._cost <= self._run.most_time * since
        stopping = bool(self._run.stop)  # looked at once: who asks a moment later is heard after the next epoch
        if due or stopping:
            self.save(state())
        if stopping:
            raise Stopped(self._run.stop)

    def save(self, state: State) -> None:
        """Raises EnvironmentStopped; the checkpoint before stays whole until this one is."""
        began = self._run.clock()
        content = safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in state.tensors.items()})
        digest = hashlib.sha256(content).hexdigest()
        write_atomically(self._weights(digest), content)
        entry = _Entry(fit=self._fit, finished=state.finished, facts=state.facts, weights=digest)
        write_atomically(self._file, entry.model_dump_json().encode())
        for old in self._run.folder.glob(self._weights("*").name):
            if old != self._weights(digest):
                old.unlink(missing_ok=True)
        self._saved_at = self._run.clock()
        self._cost = self._saved_at - began

    def refusal(self, reason: str) -> ArtefactRefused:
        """The one line that says why this checkpoint is not gone on from."""
        return ArtefactRefused(f"{self._file} refused: damaged ({reason}); {AFRESH}")

    def _weights(self, digest: str) -> Path:
        return self._file.with_name(f"{self._fit[:24]}.{digest}.safetensors")


def save_last(folder: Path, model: object) -> None:
    """The weights after the last epoch as last.safetensors, named as in model.safetensors; none for a baseline."""
    if isinstance(model, Committee) and model.last:
        write_atomically(folder / LAST, safetensors.torch.save({k: v.contiguous() for k, v in model.last.items()}))
    else:
        (folder / LAST).unlink(missing_ok=True)


def _relevant(settings: TrainSettings) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude=IRRELEVANT)


def _refuse_others(file: Path, identity: dict[str, Any]) -> None:
    try:
        met = dict(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        raise ArtefactRefused(f"{file} refused: damaged; {AFRESH}") from None
    differing = [name for name in {**identity, **met} if identity.get(name) != met.get(name)]
    if differing:
        facts = ", ".join(f"{name}: {_short(met.get(name))}, now {_short(identity.get(name))}" for name in differing)
        raise ArtefactRefused(
            f"{file.parent} refused: it is the checkpoint of another run ({facts}); repeat that run, or {AFRESH}"
        )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:16] + "…"
