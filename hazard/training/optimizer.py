"""Optimizer of heads: fused AdamW, a learning rate with warm-up and cosine decay, averaged weights."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hazard.models.settings import OptimizerOptions

MAX_GRADIENT_NORM = 1.0

_ADAM_STATE_KEYS = ("step", "exp_avg", "exp_avg_sq")


def learning_rate(step: int, steps: int, options: OptimizerOptions) -> float:
    """Return the learning rate of training step `step` (from 0) of `steps`: linear warm-up, then a cosine to zero."""
    warmup_steps = round(options.warmup * steps)
    if step < warmup_steps:
        return options.lr * (step + 1) / (warmup_steps + 1)
    return options.lr * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps))) / 2


class Optimizer:
    """AdamW (Loshchilov and Hutter 2019) for a head's weights; biases and norms have no weight decay."""

    def __init__(self, head: nn.Module, options: OptimizerOptions, *, steps: int) -> None:
        self.head, self.options, self.steps, self.steps_taken = head, options, steps, 0
        self._named_weights = [(name, weight) for name, weight in head.named_parameters() if weight.requires_grad]
        self._weights = [weight for _, weight in self._named_weights]
        groups = [
            {"params": [w for w in self._weights if w.ndim > 1], "weight_decay": options.weight_decay},
            {"params": [w for w in self._weights if w.ndim <= 1], "weight_decay": 0.0},
        ]
        self._adam = torch.optim.AdamW([g for g in groups if g["params"]], lr=options.lr, fused=True)
        self.ema_weights = [weight.detach().clone() for weight in self._weights] if options.ema else []

    def step(self, loss: Tensor) -> None:
        """Take one step along the gradient of `loss`, clipped to MAX_GRADIENT_NORM."""
        self._adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._weights, MAX_GRADIENT_NORM)
        for group in self._adam.param_groups:
            group["lr"] = learning_rate(self.steps_taken, self.steps, self.options)
        self._adam.step()
        self.steps_taken += 1
        if self.ema_weights:  # a smaller decay at first, so that the random initial weights soon lose their influence
            decay = min(self.options.ema, self.steps_taken / (self.steps_taken + 10))
            torch._foreach_lerp_(self.ema_weights, [weight.detach() for weight in self._weights], 1 - decay)

    @contextmanager
    def use_ema_weights(self) -> Iterator[None]:
        """Give the head its averaged weights inside the block, if averaging is on."""
        if not self.ema_weights:
            yield
            return
        current = [weight.detach().clone() for weight in self._weights]
        self._copy_weights(self.ema_weights)
        try:
            yield
        finally:
            self._copy_weights(current)

    def state_tensors(self) -> dict[str, Tensor]:
        """Return moments and averaged weights by name, for a checkpoint."""
        named = {
            f"adam.{name}.{moment}": self._adam.state[weight][moment]
            for name, weight in self._named_weights
            if weight in self._adam.state
            for moment in _ADAM_STATE_KEYS
        }
        averaged = zip(self._named_weights, self.ema_weights, strict=True) if self.ema_weights else ()
        return named | {f"ema.{name}": average for (name, _), average in averaged}

    def load(self, tensors: dict[str, Tensor], *, steps_taken: int) -> None:
        """Restore the state after `steps_taken` steps from `state_tensors`. Raises KeyError if a tensor is missing."""
        self.steps_taken = steps_taken
        for name, weight in self._named_weights:
            moments = {moment: tensors[f"adam.{name}.{moment}"].clone() for moment in _ADAM_STATE_KEYS}
            self._adam.state[weight] = {
                moment: value.to(weight.device).reshape(() if moment == "step" else weight.shape)
                for moment, value in moments.items()
            }
        for (name, _), average in zip(self._named_weights, self.ema_weights, strict=bool(self.ema_weights)):
            average.copy_(tensors[f"ema.{name}"])

    def _copy_weights(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for weight, value in zip(self._weights, values, strict=True):
                weight.copy_(value)
