"""The training loop: everything in memory, index batches, early stopping on an inner validation part.

The test part of a fold never enters here.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from features.errors import SettingsError
from hazard.data.splits import Fold, Index, inner_split
from hazard.models.auto_size import SizedSettings, sized
from hazard.models.head_ensemble import Committee, pick_device
from hazard.models.settings import TrainSettings
from hazard.training.checkpoint import Checkpoints, FitCheckpoint, State
from hazard.training.device_data import Clips
from hazard.training.member import Epoch, Member, as_head
from hazard.types import Sequences


def fit_head(
    sequences: Sequences,
    fold: Fold,
    settings: TrainSettings,
    *,
    progress: Callable[[int, float], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> tuple[Committee, list[Epoch]]:
    """A committee trained on `fold.train` and `fold.val`, on the CPU again and in eval mode, and its history.

    Member m is validated on part m of the grouped inner splits, so that together they are trained on every clip; where
    the split itself names the validation clips, all members use those. All train side by side and stop together at
    the epoch with the lowest loss over all validation clips: on few clips each one's own would be a matter of luck.
    `progress` is called after each epoch with its number and that loss, `on_epoch` with each member's row, whose
    `best` then means best so far; epochs that a checkpoint remembers are reported again. Raises SettingsError where
    no epoch has a finite loss, Stopped where somebody asked `checkpoints` to stop, ArtefactRefused for a damaged one.
    """
    settings = sized(settings, clips=fold.training_clips, classes=len(sequences.labels))
    device = pick_device(settings.device)
    checkpoint = checkpoints.of(fold, settings) if checkpoints else None
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        training = _Training(sequences, fold, settings, device, checkpoint)
        training.report(progress, on_epoch)
        while not training.ended:
            training.epoch(progress, on_epoch)
        return training.committee(), training.history()


class _Training:
    """Members side by side: the state of one fit."""

    def __init__(
        self,
        sequences: Sequences,
        fold: Fold,
        settings: SizedSettings,
        device: torch.device,
        checkpoint: FitCheckpoint | None,
    ) -> None:
        self.settings, self.checkpoint = settings, checkpoint
        self.shape = sequences.x.shape[2], len(sequences.labels)
        self.rows: list[Epoch] = []
        self.losses: list[float] = []
        self.best_epoch = 0
        self.members: list[Member] = []
        state = checkpoint.load() if checkpoint else None
        self.finished = state.tensors if state and state.finished else None
        try:
            if state:
                self._restore(state.facts)
            if self.finished is None:
                self._start(sequences, fold, device, state.tensors if state else None)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if state and checkpoint:
                raise checkpoint.refusal(str(error).splitlines()[0]) from None
            raise

    @property
    def ended(self) -> bool:
        """Whether patience or epochs are used up."""
        done = len(self.losses)
        patient = done < self.settings.epochs and done - self.best_epoch < self.settings.patience
        return self.finished is not None or not patient

    def epoch(self, progress: Callable[[int, float], None] | None, on_epoch: Callable[[Epoch], None] | None) -> None:
        """One epoch of every member, reported and, if it is time to, saved."""
        number = len(self.losses) + 1
        rows = [member.epoch(number) for member in self.members]
        loss = self._common_loss(rows)
        if self._improves(loss):
            self.best_epoch = number
            for member in self.members:
                member.keep()
        self.rows += [replace(row, best=self.best_epoch == number) for row in rows]
        self.losses.append(loss)
        self.report(progress, on_epoch, since=number)
        if self.ended:
            self._finish()
        elif self.checkpoint:
            self.checkpoint.after_epoch(lambda: State(self._facts(), self._tensors(Member.state)))

    def report(
        self,
        progress: Callable[[int, float], None] | None,
        on_epoch: Callable[[Epoch], None] | None,
        *,
        since: int = 1,
    ) -> None:
        """Tells of the epochs from number `since` on."""
        for row in self.rows:
            if on_epoch and row.epoch >= since:
                on_epoch(row)
        for number, loss in enumerate(self.losses, 1):
            if progress and number >= since:
                progress(number, loss)

    def history(self) -> list[Epoch]:
        """Every epoch of every member; `best` marks the one that was kept."""
        return [replace(row, best=row.epoch == self.best_epoch) for row in self.rows]

    def committee(self) -> Committee:
        """The best weights, and beside them the last ones."""
        assert self.finished is not None
        best, last = (_members(self.finished, kind, self.settings.members) for kind in ("best", "last"))
        committee = Committee([as_head(weights, *self.shape, self.settings) for weights in best]).eval()
        committee.last = {
            f"heads.{m}.{name}": value for m, weights in enumerate(last) for name, value in weights.items()
        }
        return committee

    def _start(self, sequences: Sequences, fold: Fold, device: torch.device, tensors: dict[str, Tensor] | None) -> None:
        clips = Clips.load(sequences, device)
        for number in range(self.settings.members):
            train, val = member_rows(sequences, fold, number, self.settings.seed)
            self.members.append(
                Member(
                    clips,
                    torch.from_numpy(train).to(device),
                    torch.from_numpy(val).to(device),
                    self.settings,
                    number=number,
                    classes=self.shape[1],
                    state=None if tensors is None else _under(f"{number}.", tensors),
                    epochs_done=len(self.losses),
                )
            )

    def _common_loss(self, rows: list[Epoch]) -> float:
        """Mean validation loss over all members' clips; NaN where no member could spare any."""
        pairs = [(len(m.val), row.val_loss) for m, row in zip(self.members, rows, strict=True) if len(m.val)]
        return sum(clips * loss for clips, loss in pairs) / sum(clips for clips, _ in pairs) if pairs else math.nan

    def _improves(self, loss: float) -> bool:
        """Without validation clips every epoch does; a loss that is not finite never does."""
        if not any(len(member.val) for member in self.members):
            return True
        best = self.losses[self.best_epoch - 1] if self.best_epoch else math.inf
        return math.isfinite(loss) and loss < best

    def _finish(self) -> None:
        if not self.best_epoch:
            raise SettingsError(
                f"training of '{self.settings.head}' diverged: the validation loss was never finite in "
                f"{len(self.losses)} epochs; give a lower --lr than {self.settings.lr:g}"
            )
        last, best = self._tensors(Member.weights), self._tensors(lambda member: member.best)
        self.finished = _marked(best, "best") | _marked(last, "last")
        if self.checkpoint:
            self.checkpoint.save(State(self._facts(), self.finished, finished=True))

    def _tensors(self, of: Callable[[Member], dict[str, Tensor]]) -> dict[str, Tensor]:
        return {f"{m.number}.{name}": value.cpu() for m in self.members for name, value in of(m).items()}

    def _facts(self) -> dict[str, Any]:
        return {"best_epoch": self.best_epoch, "losses": self.losses, "rows": [asdict(row) for row in self.rows]}

    def _restore(self, facts: dict[str, Any]) -> None:
        self.best_epoch, self.losses = int(facts["best_epoch"]), [float(loss) for loss in facts["losses"]]
        self.rows = [Epoch(**row) for row in facts["rows"]]


def _marked(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {f"{kind}.{name}": value for name, value in tensors.items()}


def _members(finished: dict[str, Tensor], kind: str, count: int) -> list[dict[str, Tensor]]:
    return [_under(f"{kind}.{number}.", finished) for number in range(count)]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def member_rows(sequences: Sequences, fold: Fold, member: int, seed: int) -> tuple[Index, Index]:
    """The clips that member number `member` is trained on, and those that it is stopped early on."""
    if member == 0 or fold.val_is_given:
        return fold.train, fold.val
    return inner_split(sequences, np.sort(np.concatenate([fold.train, fold.val])), seed=seed, part=member)
