"""How weights move: fused AdamW, a learning rate that warms up and falls along a cosine, averaged weights."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hazard.models.settings import OptimiserOptions

MAX_GRADIENT_NORM = 1.0

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def rate(step: int, steps: int, options: OptimiserOptions) -> float:
    """The learning rate of training step `step` (from 0) of `steps`: linear warm-up, then a cosine to zero."""
    warm = round(options.warmup * steps)
    if step < warm:
        return options.lr * (step + 1) / (warm + 1)
    return options.lr * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2


class Optimiser:
    """AdamW (Loshchilov and Hutter 2019) over a head's weights; vectors, that is biases and norms, do not decay."""

    def __init__(self, head: nn.Module, options: OptimiserOptions, *, steps: int) -> None:
        self.head, self.options, self.steps, self.taken = head, options, steps, 0
        self._named = [(name, weight) for name, weight in head.named_parameters() if weight.requires_grad]
        self._weights = [weight for _, weight in self._named]
        groups = [
            {"params": [w for w in self._weights if w.ndim > 1], "weight_decay": options.weight_decay},
            {"params": [w for w in self._weights if w.ndim <= 1], "weight_decay": 0.0},
        ]
        self._adam = torch.optim.AdamW([g for g in groups if g["params"]], lr=options.lr, fused=True)
        self.averaged = [weight.detach().clone() for weight in self._weights] if options.ema else []

    def step(self, loss: Tensor) -> None:
        """One step down the gradient of `loss`."""
        self._adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._weights, MAX_GRADIENT_NORM)
        for group in self._adam.param_groups:
            group["lr"] = rate(self.taken, self.steps, self.options)
        self._adam.step()
        self.taken += 1
        if self.averaged:  # young averages forget faster, else the random start would weigh on them for long
            decay = min(self.options.ema, self.taken / (self.taken + 10))
            torch._foreach_lerp_(self.averaged, [weight.detach() for weight in self._weights], 1 - decay)

    @contextmanager
    def averages(self) -> Iterator[None]:
        """The head has its averaged weights inside the block, where any are kept."""
        if not self.averaged:
            yield
            return
        moving = [weight.detach().clone() for weight in self._weights]
        self._put(self.averaged)
        try:
            yield
        finally:
            self._put(moving)

    def tensors(self) -> dict[str, Tensor]:
        """Moments and averages by name, for a checkpoint."""
        named = {
            f"adam.{name}.{moment}": self._adam.state[weight][moment]
            for name, weight in self._named
            if weight in self._adam.state
            for moment in _MOMENTS
        }
        averaged = zip(self._named, self.averaged, strict=True) if self.averaged else ()
        return named | {f"ema.{name}": average for (name, _), average in averaged}

    def load(self, tensors: dict[str, Tensor], *, taken: int) -> None:
        """Goes on after `taken` steps from what `tensors` gave. Raises KeyError where some are missing."""
        self.taken = taken
        for name, weight in self._named:
            kept = {moment: tensors[f"adam.{name}.{moment}"].clone() for moment in _MOMENTS}
            self._adam.state[weight] = {
                moment: value.to(weight.device).reshape(() if moment == "step" else weight.shape)
                for moment, value in kept.items()
            }
        for (name, _), average in zip(self._named, self.averaged, strict=bool(self.averaged)):
            average.copy_(tensors[f"ema.{name}"])

    def _put(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for weight, value in zip(self._weights, values, strict=True):
                weight.copy_(value)
