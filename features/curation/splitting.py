"""A division of groups among train, val and test that keeps the classes in proportion."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.errors import SettingsError
from features.types import SPLITS

Shares = tuple[float, float, float]
"""Of train, val and test; their sum is 1."""

_STARTS = 8
"""Orders of the groups that are tried."""

_EMPTY_COST = (3.0, 1.0, 2.0)
"""What a class without a clip in train, val and test costs, in its clips: it can be trained or judged on then."""

Counts = NDArray[np.float64]


def read_shares(text: str) -> Shares:
    """`70/15/15` as shares of train, val and test, `80/20` as train and test. Raises SettingsError."""
    numbers = re.split(r"\s*[/,:]\s*", text.strip())
    try:
        shares = [float(number) for number in numbers]
    except ValueError:
        shares = []
    if len(shares) == 2:
        shares.insert(1, 0.0)
    if len(shares) != 3 or min(shares) < 0 or not np.isfinite(shares).all():
        raise SettingsError(f"--split takes shares such as 70/15/15 (train/val/test) or 80/20, got '{text}'")
    total = sum(shares)
    if not (abs(total - 100) < 0.5 or abs(total - 1) < 0.005):
        raise SettingsError(f"--split {text}: the shares must sum to 100, they sum to {total:g}")
    if not shares[0]:
        raise SettingsError(f"--split {text}: the share of train must be more than 0")
    return shares[0] / total, shares[1] / total, shares[2] / total


def divide_groups(labels: Sequence[str], groups: Sequence[str], shares: Shares, *, seed: int = 0) -> list[str]:
    """The split of each clip: no group is divided, and each class comes as near to the shares as its groups allow.

    Groups are placed one after the other, the largest first, and moved as long as that helps; the best of several
    starts counts. The same seed gives the same division.
    """
    names, numbers = np.unique(np.array(groups), return_inverse=True)
    classes, kinds = np.unique(np.array(labels), return_inverse=True)
    held = np.zeros((len(names), len(classes)))  # (G, K) clips
    np.add.at(held, (numbers, kinds), 1)
    problem = _Problem(held, np.array(shares))
    random = np.random.default_rng(seed)
    tries = [problem.improve(problem.place(random.permutation(len(names)))) for _ in range(_STARTS)]
    best = min(tries, key=problem.cost)
    return [SPLITS[side] for side in best[numbers].tolist()]


class _Problem:
    """Clips (G, K) by group and class, and the shares (S,) of the sides."""

    def __init__(self, held: Counts, shares: Counts) -> None:
        self._open = np.flatnonzero(shares > 0)  # sides that take clips at all
        self._held = held
        self._totals = held.sum(axis=0)
        self._targets = shares[self._open][:, None] * self._totals  # (S, K)
        self._empty = np.array(_EMPTY_COST)[self._open]

    def place(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Each group, the largest first, to the side where it costs least."""
        order = order[np.argsort(-self._held[order].sum(axis=1), kind="stable")]
        sides = np.zeros(len(order), np.int64)
        filled = np.zeros_like(self._targets)
        for group in order.tolist():
            added = filled + self._held[group]
            best = int(np.argmin(self._side_costs(added) - self._side_costs(filled)))
            sides[group], filled[best] = best, added[best]
        return self._open[sides]

    def improve(self, sides: NDArray[np.int64]) -> NDArray[np.int64]:
        """Moves the group that gains most, until none gains."""
        at = np.searchsorted(self._open, sides)
        everyone = np.arange(len(at))
        for _ in range(4 * len(at)):
            filled = self._filled(at)
            now = self._side_costs(filled)  # (S,)
            less = self._side_costs(filled[at] - self._held, at) - now[at]  # (G,)
            more = self._side_costs(filled + self._held[:, None]) - now  # (G, S)
            gain = less[:, None] + more
            gain[everyone, at] = 0
            group, side = np.unravel_index(int(np.argmin(gain)), gain.shape)
            if gain[group, side] > -1e-9:
                break
            at[group] = side
        return self._open[at]

    def cost(self, sides: NDArray[np.int64]) -> float:
        """How far a division is from the shares."""
        return float(self._side_costs(self._filled(np.searchsorted(self._open, sides))).sum())

    def _filled(self, at: NDArray[np.int64]) -> Counts:
        filled = np.zeros_like(self._targets)
        np.add.at(filled, at, self._held)
        return filled

    def _side_costs(self, filled: Counts, at: NDArray[np.int64] | slice = slice(None)) -> Counts:
        """(..., S, K) clips to (..., S): squared distance from the targets, relative to the size of each class."""
        targets, empty = self._targets[at], self._empty[at]
        each = ((filled - targets) ** 2 / self._totals).sum(axis=-1)
        total = (filled.sum(axis=-1) - targets.sum(axis=-1)) ** 2 / self._totals.sum()
        missing = ((filled < 0.5) * self._totals).sum(axis=-1) * empty
        return np.asarray(each + total + missing, np.float64)
