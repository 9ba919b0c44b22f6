"""Training of one head, a member of a head ensemble: its clips, weights, best weights and state."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hazard.models.auto_size import SizedSettings
from hazard.models.heads import HEADS
from hazard.models.heads.pooled_ridge import PooledRidge
from hazard.models.pooling import limit_batch
from hazard.training.augment import TrainingBatch, augment
from hazard.training.device_data import BLOCK_CLIPS, MAX_FROZEN_CACHE_BYTES, DeviceClips, FrozenPartCache
from hazard.training.losses import class_weights, training_loss
from hazard.training.optimizer import Optimizer
from hazard.training.precision import uses_bf16


@dataclass(frozen=True)
class EpochMetrics:
    """One row of history.csv. Losses are cross entropies in nats; val is NaN without validation clips."""

    member: int
    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    best: bool


class HeadTrainer:
    """A head that is trained on clips `train` (N,) and validated on clips `val` (M,).

    `ridge` is the fitted pooled ridge of all members, and `held_out` (B, K) has its logits for every clip that training
    uses, each from a fit without that clip.

    All random draws of an epoch depend only on the seed, the member and the epoch's number. A resumed training
    therefore gives the same result as one that was not interrupted, and no member depends on another.
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
        ridge: PooledRidge | None,
        held_out: Tensor,
        state: dict[str, Tensor] | None = None,
        epochs_done: int = 0,
    ) -> None:
        self.clips, self.train_rows, self.val_rows, self.settings, self.number = clips, train, val, settings, number
        self.classes, self.device = classes, clips.x.device
        torch.manual_seed(settings.seed * 1000 + number)
        self.head = HEADS[settings.head](clips.x.shape[2], classes, settings.head_options).to(self.device)
        batches = math.ceil(len(train) / settings.batch_size)
        self.optimizer = Optimizer(self.head, settings.optimizer_options, steps=settings.epochs * batches)
        self._held_out = held_out
        if state is None:
            self.head.fit_statistics(clips.x[train], clips.mask[train], ridge)  # type: ignore[operator]
            self.keep_best_weights()
        else:
            self.head.load_state_dict(select_by_prefix("head.", state))
            self.best_weights = select_by_prefix("best.", state)
            self.optimizer.load(state, steps_taken=epochs_done * batches)
        self._prepare()

    def run_epoch(self, number: int) -> EpochMetrics:
        """Train on all clips once, validate, and return the metrics."""
        entropy = np.random.SeedSequence([self.settings.seed, self.number, number]).generate_state(1, np.uint64)
        seed = int(entropy[0] >> 1)
        torch.manual_seed(seed)  # for random draws inside heads, such as dropout
        train_loss = self._train_epoch(torch.Generator().manual_seed(seed + 1))
        return EpochMetrics(self.number, number, train_loss, *self.validate(), best=False)

    def keep_best_weights(self) -> None:
        """Keep a copy of the current weights as the best ones."""
        self.best_weights = self.copy_weights()

    def copy_weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights to use now: the averaged ones if averaging is on."""
        with self.optimizer.use_ema_weights():
            return {name: value.detach().clone() for name, value in self.head.state_dict().items()}

    def state_tensors(self) -> dict[str, Tensor]:
        """Return all tensors that resuming needs, by name."""
        head = {f"head.{name}": value for name, value in self.head.state_dict().items()}
        best = {f"best.{name}": value for name, value in self.best_weights.items()}
        return head | best | self.optimizer.state_tensors()

    @property
    def _ridges(self) -> list[PooledRidge]:
        return [part for part in self.head.modules() if isinstance(part, PooledRidge)]

    @property
    def _val_blocks(self) -> tuple[Tensor, ...]:
        return self.val_rows.split(limit_batch(self.clips.x, BLOCK_CLIPS)) if len(self.val_rows) else ()

    def _prepare(self) -> None:
        settings = self.settings
        self._bf16 = uses_bf16(
            settings.precision, self.device, hidden_size=settings.hidden_size, batch_size=settings.batch_size
        )
        weighted = settings.balance == "weights"
        self._class_weights = class_weights(self.clips.y[self.train_rows], self.classes) if weighted else None
        max_bytes = MAX_FROZEN_CACHE_BYTES // settings.members
        dtype = torch.bfloat16 if self._bf16 else torch.float32
        cached_rows = (
            self.train_rows[:0] if settings.augment_options.is_enabled else self.clips.expand_views(self.train_rows)
        )
        make_cache = partial(FrozenPartCache, self.head, self.clips, held_out=self._held_out)
        self._train_cache = make_cache(cached_rows, dtype=dtype, max_bytes=max_bytes)
        self._val_cache = make_cache(self.val_rows, dtype=torch.float32, max_bytes=max_bytes // 4)
        if settings.augment_options.feature_dropout:
            sums = self.clips.compute(lambda x, mask: (x * mask.unsqueeze(-1)).sum(1), self.train_rows)  # (N, D)
            self._channel_means = sums.sum(0) / self.clips.mask[self.train_rows].sum()  # (D,)

    def _train_epoch(self, random: torch.Generator) -> float:
        self.head.train()
        clips, rows = self.clips.draw_epoch(self.train_rows, random, balanced=self.settings.balance == "sampling")
        size = self.settings.batch_size
        losses = []
        for batch_clips, batch_rows in zip(clips.split(size), rows.split(size), strict=True):
            y = self.clips.y[batch_clips]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
                logits, y = (
                    self._forward_augmented(batch_clips, batch_rows, random)
                    if self._is_augmenting
                    else (self._train_cache.logits(batch_rows), y)
                )
            loss = training_loss(logits, y, self.settings.loss_options, self._class_weights)
            self.optimizer.step(loss)
            losses.append(loss.detach() * len(batch_clips))
        return sum(torch.stack(losses).tolist()) / len(clips)  # in float64, which Apple's GPU does not have

    @property
    def _is_augmenting(self) -> bool:
        return self.settings.augment_options.is_enabled

    def _forward_augmented(self, clips: Tensor, rows: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        options = self.settings.augment_options
        fill_value = self._channel_means if options.feature_dropout else 0.0
        batch = TrainingBatch(*self.clips.take(rows), self.clips.y[clips], self._held_out[clips])
        batch = augment(batch, options, random, classes=self.classes, fill_value=fill_value)
        for ridge in self._ridges:
            ridge.cached_output = batch.held_out
        try:
            return self.head(batch.x, batch.mask), batch.y
        finally:
            for ridge in self._ridges:
                ridge.cached_output = None

    def predict_validation(self) -> Tensor:
        """Return probabilities (M, K) of the validation clips by the best weights."""
        current = {name: value.detach().clone() for name, value in self.head.state_dict().items()}
        self.head.load_state_dict(self.best_weights)
        self.head.eval()
        with torch.inference_mode():
            probs = [self._val_cache.logits(rows).softmax(-1) for rows in self._val_blocks]
        self.head.load_state_dict(current)
        return torch.cat(probs) if probs else torch.zeros(0, self.classes)

    def validate(self) -> tuple[float, float]:
        """Return loss and accuracy on the validation clips; NaN without any."""
        if not len(self.val_rows):
            return math.nan, math.nan
        self.head.eval()
        with torch.inference_mode(), self.optimizer.use_ema_weights():
            logits = torch.cat([self._val_cache.logits(rows) for rows in self._val_blocks])  # (M, K)
        y = self.clips.y[self.val_rows]
        return F.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item()


def make_head(weights: dict[str, Tensor], width: int, classes: int, settings: SizedSettings) -> nn.Module:
    """Return a head on the CPU with the given weights."""
    head = HEADS[settings.head](width, classes, settings.head_options)
    head.load_state_dict(weights)
    return head


def select_by_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose name begins with `prefix`, under their names without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
