"""The training loop of heads: all clips in memory, batches by index, early stopping on inner validation clips.

The test part of a fold is never used here.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from features.errors import SettingsError
from hazard.data.splits import Fold, RowIndices, make_inner_split
from hazard.models.auto_size import SizedSettings, resolve_sizes
from hazard.models.head_ensemble import HeadEnsemble, pick_device
from hazard.models.heads.pooled_ridge import PooledRidge, fit_pooled_ridge, pool_for_ridge
from hazard.models.settings import TrainSettings
from hazard.training.checkpoint import Checkpoints, FitCheckpoint, FitState
from hazard.training.device_data import DeviceClips
from hazard.training.head_trainer import EpochMetrics, HeadTrainer, make_head, select_by_prefix
from hazard.training.losses import class_weights
from hazard.types import Sequences

NOTABLE_GAIN = 0.01
"""Fall of the validation loss, in nats, for which training goes on."""


def fit_head(
    sequences: Sequences,
    fold: Fold,
    settings: TrainSettings,
    *,
    progress: Callable[[int, float], None] | None = None,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> tuple[HeadEnsemble, list[EpochMetrics]]:
    """Train a head ensemble on `fold.train` and `fold.val`; return it, on the CPU and in eval mode, and its history.

    Member m is validated on part m of the grouped inner splits, so that the members differ in what they are trained
    on. If the split itself names the validation clips, all members use those. The members train side by side and stop
    together at the epoch with the lowest loss over all validation clips, because with few clips the best epoch of a
    single member is mostly chance. Epoch 0, the pooled ridge alone, counts too; no row of the history is best then.
    `progress` is called after each epoch with its number and that loss. `on_epoch` is called with each member's row,
    in which `best` means best so far. Epochs from a checkpoint are reported again.

    Raises SettingsError if no epoch has a finite loss, TrainingStopped if the user asked to stop, ArtifactError if a
    checkpoint is damaged.
    """
    settings = resolve_sizes(settings, clips=fold.training_clip_count, classes=len(sequences.labels))
    device = pick_device(settings.device)
    checkpoint = checkpoints.make_fit_checkpoint(fold, settings) if checkpoints else None
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        training = _HeadEnsembleTrainer(sequences, fold, settings, device, checkpoint)
        training.report_epochs(progress, on_epoch)
        while not training.is_finished:
            training.run_epoch(progress, on_epoch)
        return training.make_head_ensemble(), training.history()


def last_notable_gain(initial_loss: float, losses: Sequence[float]) -> int:
    """Return the last epoch whose loss was NOTABLE_GAIN or more below that of the one before it; 0 without any.

    Epoch 0 has the initial loss. Patience counts from here: training often goes on for hundreds of steps with a loss
    that falls by less than the validation clips can tell.
    """
    epoch, least = 0, initial_loss
    for number, loss in enumerate(losses, 1):
        if loss <= least - NOTABLE_GAIN or (math.isfinite(loss) and not math.isfinite(least)):
            epoch, least = number, loss
    return epoch


class _HeadEnsembleTrainer:
    """State of one fit: the members of an ensemble, trained side by side."""

    def __init__(
        self,
        sequences: Sequences,
        fold: Fold,
        settings: SizedSettings,
        device: torch.device,
        checkpoint: FitCheckpoint | None,
    ) -> None:
        self.settings, self.checkpoint = settings, checkpoint
        self.width_and_classes = sequences.x.shape[2], len(sequences.labels)
        self.epoch_rows: list[EpochMetrics] = []
        self.val_losses: list[float] = []
        self.initial_loss = math.nan
        self.best_epoch = 0
        self.trainers: list[HeadTrainer] = []
        state = checkpoint.load() if checkpoint else None
        self.finished_tensors = state.tensors if state and state.finished else None
        try:
            if state:
                self._restore_facts(state.facts)
            if self.finished_tensors is None:
                self._make_trainers(sequences, fold, device, state.tensors if state else None)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if state and checkpoint:
                raise checkpoint.make_damaged_error(str(error).splitlines()[0]) from None
            raise

    @property
    def is_finished(self) -> bool:
        """Whether patience or epochs are used up."""
        done = len(self.val_losses)
        waited = done - last_notable_gain(self.initial_loss, self.val_losses) if self._is_validated else 0
        should_continue = done < self.settings.epochs and waited < self.settings.patience
        return self.finished_tensors is not None or not should_continue

    def run_epoch(
        self, progress: Callable[[int, float], None] | None, on_epoch: Callable[[EpochMetrics], None] | None
    ) -> None:
        """Run one epoch of every member, report it, and save a checkpoint if it is time to."""
        number = len(self.val_losses) + 1
        rows = [member.run_epoch(number) for member in self.trainers]
        loss = self._mean_val_loss([row.val_loss for row in rows])
        if self._is_improvement(loss):
            self.best_epoch = number
            for member in self.trainers:
                member.keep_best_weights()
        self.epoch_rows += [replace(row, best=self.best_epoch == number) for row in rows]
        self.val_losses.append(loss)
        self.report_epochs(progress, on_epoch, first_epoch=number)
        if self.is_finished:
            self._finish()
        elif self.checkpoint:
            self.checkpoint.save_if_due(
                lambda: FitState(
                    self._dump_facts(),
                    self._collect_tensors(HeadTrainer.state_tensors) | {"held_out": self.held_out.cpu()},
                )
            )

    def report_epochs(
        self,
        progress: Callable[[int, float], None] | None,
        on_epoch: Callable[[EpochMetrics], None] | None,
        *,
        first_epoch: int = 1,
    ) -> None:
        """Call the callbacks for all epochs from `first_epoch` on."""
        for row in self.epoch_rows:
            if on_epoch and row.epoch >= first_epoch:
                on_epoch(row)
        for number, loss in enumerate(self.val_losses, 1):
            if progress and number >= first_epoch:
                progress(number, loss)

    def history(self) -> list[EpochMetrics]:
        """Return every epoch of every member; `best` marks the epoch whose weights are kept."""
        return [replace(row, best=row.epoch == self.best_epoch) for row in self.epoch_rows]

    def make_head_ensemble(self) -> HeadEnsemble:
        """Return the ensemble with the best weights; it holds the last epoch's weights too."""
        assert self.finished_tensors is not None
        best, last = (_split_by_member(self.finished_tensors, kind, self.settings.members) for kind in ("best", "last"))
        ensemble = HeadEnsemble([make_head(weights, *self.width_and_classes, self.settings) for weights in best]).eval()
        ensemble.last_epoch_weights = {
            f"heads.{m}.{name}": value for m, weights in enumerate(last) for name, value in weights.items()
        }
        ensemble.validation_probs = [
            self.finished_tensors[f"validation.{number}"].double().numpy() for number in range(self.settings.members)
        ]
        return ensemble

    def _make_trainers(
        self, sequences: Sequences, fold: Fold, device: torch.device, tensors: dict[str, Tensor] | None
    ) -> None:
        clips = DeviceClips.load(sequences, device)
        ridge = None
        if tensors is None:
            ridge, self.held_out = self._fit_ridge(clips, sequences, fold)
        else:
            self.held_out = tensors["held_out"].to(device)
        for number in range(self.settings.members):
            train, val = split_member_rows(sequences, fold, number, self.settings.seed)
            self.trainers.append(
                HeadTrainer(
                    clips,
                    torch.from_numpy(train).to(device),
                    torch.from_numpy(val).to(device),
                    self.settings,
                    number=number,
                    classes=self.width_and_classes[1],
                    ridge=ridge,
                    held_out=self.held_out,
                    state=None if tensors is None else select_by_prefix(f"{number}.", tensors),
                    epochs_done=len(self.val_losses),
                )
            )
        if tensors is None:
            self.initial_loss = self._mean_val_loss([member.validate()[0] for member in self.trainers])

    def _fit_ridge(self, clips: DeviceClips, sequences: Sequences, fold: Fold) -> tuple[PooledRidge | None, Tensor]:
        """Fit the pooled ridge of all members; return it and its logits (B, K) of every clip that training uses.

        It learns from validation clips too, unless the split itself names them: a clip's logits are always those of a
        ridge that was fitted without it. Of several views it sees the original alone, because the more views it was
        fitted on, the worse it did.
        """
        classes = self.width_and_classes[1]
        held_out = torch.zeros(len(sequences), classes, device=clips.x.device)
        if not self.settings.pooled_path:
            return None, held_out
        rows = fold.train if fold.val_is_given else np.sort(np.concatenate([fold.train, fold.val]))
        groups = torch.from_numpy(np.unique(sequences.groups[rows], return_inverse=True)[1])
        y = clips.y[rows]
        counts = None if self.settings.balance == "none" else class_weights(y, classes)[y]
        pooled = clips.compute(pool_for_ridge, rows)
        with threadpool_limits(1):  # several processes fit side by side, and other sums would round differently
            ridge, held_out[rows] = fit_pooled_ridge(pooled, y, classes, counts, groups=groups.to(clips.x.device))
        if fold.val_is_given and len(fold.val):
            held_out[fold.val] = clips.compute(ridge, fold.val)
        return ridge, held_out

    @property
    def _is_validated(self) -> bool:
        return any(len(member.val_rows) for member in self.trainers)

    def _mean_val_loss(self, losses: list[float]) -> float:
        """Return the mean validation loss over all members' clips; NaN without validation clips."""
        pairs = [(len(m.val_rows), loss) for m, loss in zip(self.trainers, losses, strict=True) if len(m.val_rows)]
        return sum(clips * loss for clips, loss in pairs) / sum(clips for clips, _ in pairs) if pairs else math.nan

    def _is_improvement(self, loss: float) -> bool:
        """Return whether the loss is the lowest so far, and notably below that before the first epoch.

        A head that training makes no better than validation clips can tell stays its pooled ridge; without a ridge the
        untrained head does not count. Without validation clips every epoch is an improvement; a loss that is not finite
        never is.
        """
        if not self._is_validated:
            return True
        best = self.initial_loss - NOTABLE_GAIN if self.settings.pooled_path else math.inf
        if self.best_epoch:
            best = self.val_losses[self.best_epoch - 1]
        return math.isfinite(loss) and not loss >= best

    def _finish(self) -> None:
        if not self.best_epoch and not any(map(math.isfinite, self.val_losses)):
            raise SettingsError(
                f"training of '{self.settings.head}' diverged: the validation loss was never finite in "
                f"{len(self.val_losses)} epochs; set --lr below {self.settings.lr:g}"
            )
        last, best = (
            self._collect_tensors(HeadTrainer.copy_weights),
            self._collect_tensors(lambda member: member.best_weights),
        )
        probs = {f"validation.{member.number}": member.predict_validation().cpu() for member in self.trainers}
        self.finished_tensors = _add_prefix(best, "best") | _add_prefix(last, "last") | probs
        if self.checkpoint:
            self.checkpoint.save(FitState(self._dump_facts(), self.finished_tensors, finished=True))

    def _collect_tensors(self, get_tensors: Callable[[HeadTrainer], dict[str, Tensor]]) -> dict[str, Tensor]:
        return {f"{m.number}.{name}": value.cpu() for m in self.trainers for name, value in get_tensors(m).items()}

    def _dump_facts(self) -> dict[str, Any]:
        return {
            "best_epoch": self.best_epoch,
            "initial_loss": self.initial_loss,
            "losses": self.val_losses,
            "rows": [asdict(row) for row in self.epoch_rows],
        }

    def _restore_facts(self, facts: dict[str, Any]) -> None:
        self.initial_loss = float(facts["initial_loss"])
        self.best_epoch, self.val_losses = int(facts["best_epoch"]), [float(loss) for loss in facts["losses"]]
        self.epoch_rows = [EpochMetrics(**row) for row in facts["rows"]]


def _add_prefix(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {f"{kind}.{name}": value for name, value in tensors.items()}


def _split_by_member(finished: dict[str, Tensor], kind: str, count: int) -> list[dict[str, Tensor]]:
    return [select_by_prefix(f"{kind}.{number}.", finished) for number in range(count)]


def split_member_rows(sequences: Sequences, fold: Fold, member: int, seed: int) -> tuple[RowIndices, RowIndices]:
    """Return the clips that member number `member` is trained on, and those used for its early stopping."""
    if member == 0 or fold.val_is_given:
        return fold.train, fold.val
    return make_inner_split(sequences, np.sort(np.concatenate([fold.train, fold.val])), seed=seed, part=member)
