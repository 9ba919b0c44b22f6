"""One member of a committee in training: its clips, its weights, its best ones, and how it goes on later."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hazard.models.auto_size import SizedSettings
from hazard.models.heads import HEADS
from hazard.training.augment import Batch, augment
from hazard.training.device_data import KEPT_BYTES, Clips, Once
from hazard.training.losses import class_weights, training_loss
from hazard.training.optimizer import Optimiser
from hazard.training.precision import uses_bf16


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv. Losses are cross entropies in nats; val is NaN where no clips could be spared."""

    member: int
    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    best: bool


class Member:
    """A head that is trained on clips `train` (N,) and validated on `val` (M,).

    Whatever is random in an epoch is drawn from the seed, the member and the epoch's number alone, so that a training
    that was interrupted goes on as if it had not been, and no member depends on another.
    """

    def __init__(
        self,
        clips: Clips,
        train: Tensor,
        val: Tensor,
        settings: SizedSettings,
        *,
        number: int,
        classes: int,
        state: dict[str, Tensor] | None = None,
        epochs_done: int = 0,
    ) -> None:
        self.clips, self.train, self.val, self.settings, self.number = clips, train, val, settings, number
        self.classes, self.device = classes, clips.x.device
        torch.manual_seed(settings.seed * 1000 + number)
        self.head = HEADS[settings.head](clips.x.shape[2], classes, settings.head_options).to(self.device)
        batches = math.ceil(len(train) / settings.batch_size)
        self.optimiser = Optimiser(self.head, settings.optimiser_options, steps=settings.epochs * batches)
        if state is None:
            # Of the plain view alone: fitted on all views, the pooled path did worse the more there were.
            y = clips.y[train]
            counts = None if settings.balance == "none" else class_weights(y, classes)[y]
            self.head.fit_statistics(clips.x[train], clips.mask[train], y, counts)  # type: ignore[operator]
            self.keep()
        else:
            self.head.load_state_dict(_under("head.", state))
            self.best = _under("best.", state)
            self.optimiser.load(state, taken=epochs_done * batches)
        self._prepare()

    def epoch(self, number: int) -> Epoch:
        """One pass over the training clips, and what it led to."""
        entropy = np.random.SeedSequence([self.settings.seed, self.number, number]).generate_state(1, np.uint64)
        seed = int(entropy[0] >> 1)
        torch.manual_seed(seed)  # what heads draw, such as dropout
        train_loss = self._train_epoch(torch.Generator().manual_seed(seed + 1))
        return Epoch(self.number, number, train_loss, *self._validate(), best=False)

    def keep(self) -> None:
        """Remembers the weights as they are now as the best."""
        self.best = self.weights()

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights that would be used now: the averaged ones where any are kept."""
        with self.optimiser.averages():
            return {name: value.detach().clone() for name, value in self.head.state_dict().items()}

    def state(self) -> dict[str, Tensor]:
        """All that training goes on from, by name."""
        head = {f"head.{name}": value for name, value in self.head.state_dict().items()}
        best = {f"best.{name}": value for name, value in self.best.items()}
        return head | best | self.optimiser.tensors()

    def _prepare(self) -> None:
        settings = self.settings
        self._bf16 = uses_bf16(
            settings.precision, self.device, hidden_size=settings.hidden_size, batch_size=settings.batch_size
        )
        weighted = settings.balance == "weights"
        self._class_weights = class_weights(self.clips.y[self.train], self.classes) if weighted else None
        budget = KEPT_BYTES // settings.members
        dtype = torch.bfloat16 if self._bf16 else torch.float32
        shown = self.train[:0] if settings.augment_options.any else self.clips.in_views(self.train)
        self._once = Once(self.head, self.clips, shown, dtype=dtype, max_bytes=budget)
        self._val_once = Once(self.head, self.clips, self.val, dtype=torch.float32, max_bytes=budget // 4)
        if settings.augment_options.feature_dropout:
            self._neutral = self.clips.x[self.train][self.clips.mask[self.train]].mean(0)  # (D,)

    def _train_epoch(self, random: torch.Generator) -> float:
        self.head.train()
        clips, rows = self.clips.draw(self.train, random, balanced=self.settings.balance == "sampling")
        size = self.settings.batch_size
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for some, shown in zip(clips.split(size), rows.split(size), strict=True):
            y = self.clips.y[some]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
                logits, y = self._augmented(shown, y, random) if self._changes else (self._once.logits(shown), y)
            loss = training_loss(logits, y, self.settings.loss_options, self._class_weights)
            self.optimiser.step(loss)
            total += loss.detach() * len(some)
        return total.item() / len(clips)

    @property
    def _changes(self) -> bool:
        return self.settings.augment_options.any

    def _augmented(self, shown: Tensor, y: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        options = self.settings.augment_options
        neutral = self._neutral if options.feature_dropout else 0.0
        batch = Batch(self.clips.x[shown], self.clips.mask[shown], y)
        batch = augment(batch, options, random, classes=self.classes, neutral=neutral)
        return self.head(batch.x, batch.mask), batch.y

    def _validate(self) -> tuple[float, float]:
        if not len(self.val):
            return math.nan, math.nan
        self.head.eval()
        with torch.inference_mode(), self.optimiser.averages():
            logits = torch.cat([self._val_once.logits(some) for some in self.val.split(256)])  # (M, K)
        y = self.clips.y[self.val]
        return F.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item()


def as_head(weights: dict[str, Tensor], width: int, classes: int, settings: SizedSettings) -> nn.Module:
    """The head that has `weights`, on the CPU."""
    head = HEADS[settings.head](width, classes, settings.head_options)
    head.load_state_dict(weights)
    return head


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
