"""A split of groups into train, val and test that keeps the classes in proportion."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.errors import SettingsError
from features.types import SPLITS

SplitShares = tuple[float, float, float]
"""Shares of train, val and test; their sum is 1."""

_RESTARTS = 8
"""Number of random orders of the groups that are tried."""

_EMPTY_CLASS_COST = (3.0, 1.0, 2.0)
"""Cost, per clip of a class, of having no clip of the class in train, val and test. Train is the most important, then
test."""

ClassCounts = NDArray[np.float64]


def parse_shares(text: str) -> SplitShares:
    """Return the shares of train, val and test from `70/15/15`, or of train and test from `80/20`.

    Raises SettingsError.
    """
    numbers = re.split(r"\s*[/,:]\s*", text.strip())
    try:
        shares = [float(number) for number in numbers]
    except ValueError:
        shares = []
    if len(shares) == 2:
        shares.insert(1, 0.0)
    if len(shares) != 3 or min(shares) < 0 or not np.isfinite(shares).all():
        raise SettingsError(f"--split expects shares such as 70/15/15 (train/val/test) or 80/20, got '{text}'")
    total = sum(shares)
    if not (abs(total - 100) < 0.5 or abs(total - 1) < 0.005):
        raise SettingsError(f"--split {text}: the shares must sum to 100, but they sum to {total:g}")
    if not shares[0]:
        raise SettingsError(f"--split {text}: the share of train must be more than 0")
    return shares[0] / total, shares[1] / total, shares[2] / total


def assign_splits(labels: Sequence[str], groups: Sequence[str], shares: SplitShares, *, seed: int = 0) -> list[str]:
    """Return the split of each clip. No group is divided, and each class is as near to the shares as its groups allow.

    Groups are placed one by one, the largest first, and then moved as long as that improves the result. The best of
    several starts is returned. The same seed gives the same split.
    """
    group_names, group_numbers = np.unique(np.array(groups), return_inverse=True)
    classes, class_numbers = np.unique(np.array(labels), return_inverse=True)
    counts = np.zeros((len(group_names), len(classes)))  # (G, K) clips
    np.add.at(counts, (group_numbers, class_numbers), 1)
    problem = _SplitProblem(counts, np.array(shares))
    random = np.random.default_rng(seed)
    candidates = [problem.improve(problem.place_groups(random.permutation(len(group_names)))) for _ in range(_RESTARTS)]
    best = min(candidates, key=problem.compute_cost)
    return [SPLITS[side] for side in best[group_numbers].tolist()]


class _SplitProblem:
    """Search for a split: clips (G, K) by group and class, and the shares (S,) of the sides train, val and test."""

    def __init__(self, group_counts: ClassCounts, shares: ClassCounts) -> None:
        self._open_sides = np.flatnonzero(shares > 0)  # sides with a share above 0
        self._group_counts = group_counts
        self._totals = group_counts.sum(axis=0)
        self._targets = shares[self._open_sides][:, None] * self._totals  # (S, K)
        self._empty_costs = np.array(_EMPTY_CLASS_COST)[self._open_sides]

    def place_groups(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the side (G,) of each group. The largest group comes first, and each goes where it costs least."""
        order = order[np.argsort(-self._group_counts[order].sum(axis=1), kind="stable")]
        sides = np.zeros(len(order), np.int64)
        filled = np.zeros_like(self._targets)
        for group in order.tolist():
            added = filled + self._group_counts[group]
            best = int(np.argmin(self._compute_side_costs(added) - self._compute_side_costs(filled)))
            sides[group], filled[best] = best, added[best]
        return self._open_sides[sides]

    def improve(self, sides: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sides (G,) after moving groups one at a time until no move improves the cost.

        Each move is the one that improves the cost most.
        """
        at = np.searchsorted(self._open_sides, sides)
        all_groups = np.arange(len(at))
        for _ in range(4 * len(at)):
            filled = self._count_by_side(at)
            costs = self._compute_side_costs(filled)  # (S,)
            without = self._compute_side_costs(filled[at] - self._group_counts, at) - costs[at]  # (G,)
            with_group = self._compute_side_costs(filled + self._group_counts[:, None]) - costs  # (G, S)
            change = without[:, None] + with_group
            change[all_groups, at] = 0
            group, side = np.unravel_index(int(np.argmin(change)), change.shape)
            if change[group, side] > -1e-9:
                break
            at[group] = side
        return self._open_sides[at]

    def compute_cost(self, sides: NDArray[np.int64]) -> float:
        """Return how far the sides (G,) of the groups are from the shares."""
        return float(self._compute_side_costs(self._count_by_side(np.searchsorted(self._open_sides, sides))).sum())

    def _count_by_side(self, at: NDArray[np.int64]) -> ClassCounts:
        filled = np.zeros_like(self._targets)
        np.add.at(filled, at, self._group_counts)
        return filled

    def _compute_side_costs(self, filled: ClassCounts, at: NDArray[np.int64] | slice = slice(None)) -> ClassCounts:
        """Return the costs (..., S) of clips (..., S, K) by side and class.

        A cost is the squared distance from the target, relative to the size of each class, plus the cost of empty
        classes.
        """
        targets, empty_costs = self._targets[at], self._empty_costs[at]
        by_class = ((filled - targets) ** 2 / self._totals).sum(axis=-1)
        total = (filled.sum(axis=-1) - targets.sum(axis=-1)) ** 2 / self._totals.sum()
        missing = ((filled < 0.5) * self._totals).sum(axis=-1) * empty_costs
        return np.asarray(by_class + total + missing, np.float64)
