"""The training loop: everything in memory, index batches, early stopping on an inner validation part.

The test part of a fold never enters here.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from features.errors import SettingsError
from hazard.config import TrainSettings
from hazard.heads import HEADS
from hazard.sizes import SizedSettings, sized
from hazard.splits import Fold, Index, inner_split
from hazard.types import Sequences

MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv. Losses are cross entropies in nats; val is NaN where no clips could be spared."""

    member: int
    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    best: bool


class Committee(nn.Module):
    """Heads of one shape whose probabilities are averaged: each was stopped early on other clips."""

    def __init__(self, heads: list[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, D), mask (B, T) → log of the mean probabilities (B, K), which are logits too."""
        logs = torch.stack([head(x, mask).log_softmax(-1) for head in self.heads])  # (members, B, K)
        return logs.logsumexp(0) - math.log(len(self.heads))

    def attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """The members' mean weight of each step (B, T)."""
        return torch.stack([head.attention(x, mask) for head in self.heads]).mean(0)  # type: ignore[operator]


def build(width: int, classes: int, settings: TrainSettings) -> Committee:
    """An untrained committee as `settings` describe it; sizes that they leave open are those for few clips."""
    settings = sized(settings, clips=0, classes=classes)
    return Committee([HEADS[settings.head](width, classes, settings.head_options) for _ in range(settings.members)])


def fit_head(
    sequences: Sequences,
    fold: Fold,
    settings: TrainSettings,
    *,
    progress: Callable[[int, float], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> tuple[Committee, list[Epoch]]:
    """A committee trained on `fold.train` and `fold.val`, on the CPU again and in eval mode, and its history.

    Member m is validated on part m of the grouped inner splits, so that together they are trained on every clip; where
    the split itself names the validation clips, all members use those. All train side by side and stop together at
    the epoch with the lowest loss over all validation clips: on few clips each one's own would be a matter of luck.
    `progress` is called after each epoch with its number and that loss, `on_epoch` with each member's row.
    """
    settings = sized(settings, clips=fold.training_clips, classes=len(sequences.labels))
    runs = [_start(sequences, fold, settings, member) for member in range(settings.members)]
    history: list[Epoch] = []
    best_loss, best_epoch = math.inf, 0
    for epoch in range(1, settings.epochs + 1):
        history += [run.epoch(epoch) for run in runs]
        loss = _common_loss(runs, history[-len(runs) :])
        for row in history[-len(runs) :] if on_epoch else []:
            on_epoch(row)  # type: ignore[misc]
        if math.isnan(loss) or loss < best_loss:
            best_loss, best_epoch = loss, epoch
            for run in runs:
                run.keep()
        if progress:
            progress(epoch, loss)
        if epoch - best_epoch >= settings.patience:
            break
    heads = [run.kept() for run in runs]
    return Committee(heads).eval(), [replace(row, best=row.epoch == best_epoch) for row in history]


def predict_head(
    head: nn.Module, x: NDArray[np.float32], mask: NDArray[np.bool_], *, batch_size: int = 256
) -> NDArray[np.float64]:
    """Probabilities (B, K) of x (B, T, D), batch by batch."""
    device = next(head.parameters()).device
    parts = []
    with torch.inference_mode():
        for start in range(0, len(x), batch_size):
            rows = slice(start, start + batch_size)
            logits = head(torch.from_numpy(x[rows]).to(device), torch.from_numpy(mask[rows]).to(device))
            parts.append(logits.double().softmax(-1).cpu().numpy())
    return np.concatenate(parts)


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one. Raises SettingsError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"device {name} is not there; this machine has {torch.cuda.device_count()} CUDA devices")
    return device


@dataclass(frozen=True)
class _Clips:
    """Clips on the training device, in one view or in several, the plain one first."""

    x: Tensor  # (V, B, T, D)
    mask: Tensor  # (V, B, T)
    y: Tensor  # (B,)

    @classmethod
    def load(cls, sequences: Sequences, rows: Index, device: torch.device, *, with_views: bool) -> "_Clips":
        others = sequences.views if with_views else ()
        x = np.stack([sequences.x[rows], *(view.x[rows] for view in others)])
        mask = np.stack([sequences.mask[rows], *(view.mask[rows] for view in others)])
        return cls(*(torch.from_numpy(column).to(device) for column in (x, mask, sequences.y[rows])))

    def __len__(self) -> int:
        return len(self.y)

    def draw_views(self, random: torch.Generator) -> Tensor:
        """The view (B,) that each clip is shown in for one epoch."""
        if len(self.x) == 1:
            return torch.zeros(len(self), dtype=torch.int64)
        return torch.randint(len(self.x), (len(self),), generator=random)


class _Run:
    """The training of one member."""

    def __init__(self, head: nn.Module, settings: SizedSettings, member: int, train: _Clips, val: _Clips) -> None:
        self.head, self.settings, self.member, self.train, self.val = head, settings, member, train, val
        self.device = train.x.device
        self.random = torch.Generator().manual_seed(settings.seed * 1000 + member)
        self.optimizer = torch.optim.AdamW(head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        steps = settings.epochs * math.ceil(len(train) / settings.batch_size)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        # Of the plain view alone: fitted on all views, the pooled path did no better, and worse the more there were.
        head.fit_statistics(train.x[0], train.mask[0], train.y)  # type: ignore[operator]
        self.keep()

    def epoch(self, number: int) -> Epoch:
        """One pass over the training clips, and what it led to."""
        train_loss = self._train_epoch()
        return Epoch(self.member, number, train_loss, *self._validate(), best=False)

    def keep(self) -> None:
        """Remembers the weights as they are now."""
        self._state = copy.deepcopy(self.head.state_dict())

    def kept(self) -> nn.Module:
        """The head with the weights that were kept last, on the CPU."""
        self.head.load_state_dict(self._state)
        return self.head.cpu()

    def _train_epoch(self) -> float:
        self.head.train()
        total = 0.0
        clips = self.train
        views = clips.draw_views(self.random).to(self.device)  # (B,)
        order = torch.randperm(len(clips), generator=self.random).to(self.device)
        for rows in order.split(self.settings.batch_size):
            shown = views[rows], rows
            total += self._step(clips.x[shown], clips.mask[shown], clips.y[rows]) * len(rows)
        return total / len(clips)

    def _step(self, x: Tensor, mask: Tensor, y: Tensor) -> float:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            logits = self.head(x, mask)  # (B, K)
        loss = F.cross_entropy(logits.float(), y, label_smoothing=self.settings.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.head.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.schedule.step()
        return loss.item()

    def _validate(self) -> tuple[float, float]:
        if not len(self.val):
            return math.nan, math.nan
        self.head.eval()
        with torch.inference_mode():
            logits = torch.cat(
                [self.head(*pair) for pair in zip(self.val.x[0].split(256), self.val.mask[0].split(256), strict=True)]
            )
        right = (logits.argmax(1) == self.val.y).float().mean()
        return F.cross_entropy(logits, self.val.y).item(), right.item()


def _start(sequences: Sequences, fold: Fold, settings: SizedSettings, member: int) -> _Run:
    device = pick_device(settings.device)
    torch.manual_seed(settings.seed * 1000 + member)
    head = HEADS[settings.head](sequences.x.shape[2], len(sequences.labels), settings.head_options).to(device)
    train, val = member_rows(sequences, fold, member, settings.seed)
    load = partial(_Clips.load, sequences, device=device)
    return _Run(head, settings, member, load(train, with_views=True), load(val, with_views=False))


def _common_loss(runs: list[_Run], epochs: list[Epoch]) -> float:
    """Mean validation loss over all members' clips; NaN where no member could spare any."""
    pairs = [(len(run.val), epoch.val_loss) for run, epoch in zip(runs, epochs, strict=True) if len(run.val)]
    return sum(clips * loss for clips, loss in pairs) / sum(clips for clips, _ in pairs) if pairs else math.nan


def member_rows(sequences: Sequences, fold: Fold, member: int, seed: int) -> tuple[Index, Index]:
    """The clips that member number `member` is trained on, and those that it is stopped early on."""
    if member == 0 or fold.val_is_given:
        return fold.train, fold.val
    return inner_split(sequences, np.sort(np.concatenate([fold.train, fold.val])), seed=seed, part=member)
