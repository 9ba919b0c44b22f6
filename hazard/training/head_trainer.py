"""One member of a committee in training: its clips, its weights, its best ones, and how it goes on later."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hazard.models.auto_size import SizedSettings
from hazard.models.heads import HEADS
from hazard.training.augment import TrainingBatch, augment
from hazard.training.device_data import MAX_FROZEN_CACHE_BYTES, DeviceClips, FrozenPartCache
from hazard.training.losses import class_weights, training_loss
from hazard.training.optimizer import Optimizer
from hazard.training.precision import uses_bf16


@dataclass(frozen=True)
class EpochMetrics:
    """One row of history.csv. Losses are cross entropies in nats; val is NaN where no clips could be spared."""

    member: int
    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    best: bool


class HeadTrainer:
    """A head that is trained on clips `train` (N,) and validated on `val` (M,).

    Whatever is random in an epoch is drawn from the seed, the member and the epoch's number alone, so that a training
    that was interrupted goes on as if it had not been, and no member depends on another.
    """

    def __init__(
        self,
        clips: DeviceClips,
        train: Tensor,
        val: Tensor,
        settings: SizedSettings,
        *,
        number: int,
        classes: int,
        state: dict[str, Tensor] | None = None,
        epochs_done: int = 0,
    ) -> None:
        self.clips, self.train_rows, self.val_rows, self.settings, self.number = clips, train, val, settings, number
        self.classes, self.device = classes, clips.x.device
        torch.manual_seed(settings.seed * 1000 + number)
        self.head = HEADS[settings.head](clips.x.shape[2], classes, settings.head_options).to(self.device)
        batches = math.ceil(len(train) / settings.batch_size)
        self.optimizer = Optimizer(self.head, settings.optimizer_options, steps=settings.epochs * batches)
        if state is None:
            # Of the plain view alone: fitted on all views, the pooled path did worse the more there were.
            y = clips.y[train]
            counts = None if settings.balance == "none" else class_weights(y, classes)[y]
            self.head.fit_statistics(clips.x[train], clips.mask[train], y, counts)  # type: ignore[operator]
            self.keep_best_weights()
        else:
            self.head.load_state_dict(_select_by_prefix("head.", state))
            self.best_weights = _select_by_prefix("best.", state)
            self.optimizer.load(state, steps_taken=epochs_done * batches)
        self._prepare()

    def run_epoch(self, number: int) -> EpochMetrics:
        """One pass over the training clips, and what it led to."""
        entropy = np.random.SeedSequence([self.settings.seed, self.number, number]).generate_state(1, np.uint64)
        seed = int(entropy[0] >> 1)
        torch.manual_seed(seed)  # what heads draw, such as dropout
        train_loss = self._train_epoch(torch.Generator().manual_seed(seed + 1))
        return EpochMetrics(self.number, number, train_loss, *self._validate(), best=False)

    def keep_best_weights(self) -> None:
        """Remembers the weights as they are now as the best."""
        self.best_weights = self.copy_weights()

    def copy_weights(self) -> dict[str, Tensor]:
        """A copy of the weights that would be used now: the averaged ones where any are kept."""
        with self.optimizer.use_ema_weights():
            return {name: value.detach().clone() for name, value in self.head.state_dict().items()}

    def state_tensors(self) -> dict[str, Tensor]:
        """All that training goes on from, by name."""
        head = {f"head.{name}": value for name, value in self.head.state_dict().items()}
        best = {f"best.{name}": value for name, value in self.best_weights.items()}
        return head | best | self.optimizer.state_tensors()

    def _prepare(self) -> None:
        settings = self.settings
        self._bf16 = uses_bf16(
            settings.precision, self.device, hidden_size=settings.hidden_size, batch_size=settings.batch_size
        )
        weighted = settings.balance == "weights"
        self._class_weights = class_weights(self.clips.y[self.train_rows], self.classes) if weighted else None
        budget = MAX_FROZEN_CACHE_BYTES // settings.members
        dtype = torch.bfloat16 if self._bf16 else torch.float32
        shown = self.train_rows[:0] if settings.augment_options.is_enabled else self.clips.expand_views(self.train_rows)
        self._train_cache = FrozenPartCache(self.head, self.clips, shown, dtype=dtype, max_bytes=budget)
        self._val_cache = FrozenPartCache(
            self.head, self.clips, self.val_rows, dtype=torch.float32, max_bytes=budget // 4
        )
        if settings.augment_options.feature_dropout:
            self._channel_means = self.clips.x[self.train_rows][self.clips.mask[self.train_rows]].mean(0)  # (D,)

    def _train_epoch(self, random: torch.Generator) -> float:
        self.head.train()
        clips, rows = self.clips.draw_epoch(self.train_rows, random, balanced=self.settings.balance == "sampling")
        size = self.settings.batch_size
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for some, shown in zip(clips.split(size), rows.split(size), strict=True):
            y = self.clips.y[some]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
                logits, y = (
                    self._forward_augmented(shown, y, random)
                    if self._is_augmenting
                    else (self._train_cache.logits(shown), y)
                )
            loss = training_loss(logits, y, self.settings.loss_options, self._class_weights)
            self.optimizer.step(loss)
            total += loss.detach() * len(some)
        return total.item() / len(clips)

    @property
    def _is_augmenting(self) -> bool:
        return self.settings.augment_options.is_enabled

    def _forward_augmented(self, shown: Tensor, y: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        options = self.settings.augment_options
        neutral = self._channel_means if options.feature_dropout else 0.0
        batch = TrainingBatch(self.clips.x[shown], self.clips.mask[shown], y)
        batch = augment(batch, options, random, classes=self.classes, fill_value=neutral)
        return self.head(batch.x, batch.mask), batch.y

    def _validate(self) -> tuple[float, float]:
        if not len(self.val_rows):
            return math.nan, math.nan
        self.head.eval()
        with torch.inference_mode(), self.optimizer.use_ema_weights():
            logits = torch.cat([self._val_cache.logits(some) for some in self.val_rows.split(256)])  # (M, K)
        y = self.clips.y[self.val_rows]
        return F.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item()


def make_head(weights: dict[str, Tensor], width: int, classes: int, settings: SizedSettings) -> nn.Module:
    """The head that has `weights`, on the CPU."""
    head = HEADS[settings.head](width, classes, settings.head_options)
    head.load_state_dict(weights)
    return head


def _select_by_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
