"""A division of groups among train, val and test that keeps the classes in proportion."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.errors import SettingsError
from features.types import SPLITS

SplitShares = tuple[float, float, float]
"""Of train, val and test; their sum is 1."""

_RESTARTS = 8
"""Orders of the groups that are tried."""

_EMPTY_CLASS_COST = (3.0, 1.0, 2.0)
"""What a class without a clip in train, val and test costs, in its clips: it can be trained or judged on then."""

ClassCounts = NDArray[np.float64]


def parse_shares(text: str) -> SplitShares:
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


def assign_splits(labels: Sequence[str], groups: Sequence[str], shares: SplitShares, *, seed: int = 0) -> list[str]:
    """The split of each clip: no group is divided, and each class comes as near to the shares as its groups allow.

    Groups are placed one after the other, the largest first, and moved as long as that helps; the best of several
    starts counts. The same seed gives the same division.
    """
    names, numbers = np.unique(np.array(groups), return_inverse=True)
    classes, kinds = np.unique(np.array(labels), return_inverse=True)
    held = np.zeros((len(names), len(classes)))  # (G, K) clips
    np.add.at(held, (numbers, kinds), 1)
    problem = _SplitProblem(held, np.array(shares))
    random = np.random.default_rng(seed)
    tries = [problem.improve(problem.place_groups(random.permutation(len(names)))) for _ in range(_RESTARTS)]
    best = min(tries, key=problem.cost)
    return [SPLITS[side] for side in best[numbers].tolist()]


class _SplitProblem:
    """Clips (G, K) by group and class, and the shares (S,) of the sides."""

    def __init__(self, group_counts: ClassCounts, shares: ClassCounts) -> None:
        self._open_sides = np.flatnonzero(shares > 0)  # sides that take clips at all
        self._group_counts = group_counts
        self._totals = group_counts.sum(axis=0)
        self._targets = shares[self._open_sides][:, None] * self._totals  # (S, K)
        self._empty_costs = np.array(_EMPTY_CLASS_COST)[self._open_sides]

    def place_groups(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Each group, the largest first, to the side where it costs least."""
        order = order[np.argsort(-self._group_counts[order].sum(axis=1), kind="stable")]
        sides = np.zeros(len(order), np.int64)
        filled = np.zeros_like(self._targets)
        for group in order.tolist():
            added = filled + self._group_counts[group]
            best = int(np.argmin(self._compute_side_costs(added) - self._compute_side_costs(filled)))
            sides[group], filled[best] = best, added[best]
        return self._open_sides[sides]

    def improve(self, sides: NDArray[np.int64]) -> NDArray[np.int64]:
        """Moves the group that gains most, until none gains."""
        at = np.searchsorted(self._open_sides, sides)
        everyone = np.arange(len(at))
        for _ in range(4 * len(at)):
            filled = self._count_by_side(at)
            now = self._compute_side_costs(filled)  # (S,)
            less = self._compute_side_costs(filled[at] - self._group_counts, at) - now[at]  # (G,)
            more = self._compute_side_costs(filled + self._group_counts[:, None]) - now  # (G, S)
            gain = less[:, None] + more
            gain[everyone, at] = 0
            group, side = np.unravel_index(int(np.argmin(gain)), gain.shape)
            if gain[group, side] > -1e-9:
                break
            at[group] = side
        return self._open_sides[at]

    def cost(self, sides: NDArray[np.int64]) -> float:
        """How far a division is from the shares."""
        return float(self._compute_side_costs(self._count_by_side(np.searchsorted(self._open_sides, sides))).sum())

    def _count_by_side(self, at: NDArray[np.int64]) -> ClassCounts:
        filled = np.zeros_like(self._targets)
        np.add.at(filled, at, self._group_counts)
        return filled

    def _compute_side_costs(self, filled: ClassCounts, at: NDArray[np.int64] | slice = slice(None)) -> ClassCounts:
        """(..., S, K) clips to (..., S): squared distance from the targets, relative to the size of each class."""
        targets, empty = self._targets[at], self._empty_costs[at]
        each = ((filled - targets) ** 2 / self._totals).sum(axis=-1)
        total = (filled.sum(axis=-1) - targets.sum(axis=-1)) ** 2 / self._totals.sum()
        missing = ((filled < 0.5) * self._totals).sum(axis=-1) * empty
        return np.asarray(each + total + missing, np.float64)
