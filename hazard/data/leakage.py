"""Clips that look alike on two sides of a split: found in the features, reported, or put into one group.

A clip re-encoded or cut again, or a second clip of the same scene under another name, makes figures look better than
they are. How the limit was chosen: docs/experiments.md.

B clips, P pairs.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from features.utils.text import counted, some
from hazard.data.splits import Division, Fold, Index
from hazard.types import Sequences

ALIKE = 0.75
"""Clips whose standardised mean features have this cosine or more look alike …"""
SPREADS = 5.0
"""… where it is also this many times the usual size of a cosine in this cache …"""
SURELY = 0.98
"""… which is asked for at most: in narrow features, and of few scenes, even strangers have high cosines."""
LISTED = 50
"""Pairs that metrics.json names, the most alike first."""
_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Pairs:
    """Pairs of clips of different groups that look alike, the most alike first."""

    first: Index  # (P,)
    second: Index  # (P,)
    similarity: NDArray[np.float32]  # (P,) cosine
    limit: float

    def __len__(self) -> int:
        return len(self.first)

    def take(self, index: NDArray) -> "Pairs":
        """Some of the pairs."""
        return Pairs(self.first[index], self.second[index], self.similarity[index], self.limit)


NONE = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), float("nan"))


def find_alike(sequences: Sequences) -> Pairs:
    """All pairs of clips of different groups that look alike, by the cosine of their standardised mean features.

    Of 13,000 clips in a few seconds: products of blocks.
    """
    looks = _looks(sequences)  # (B, D)
    limit = _limit(looks)
    groups = np.unique(sequences.groups, return_inverse=True)[1]
    found: list[tuple[Index, Index, NDArray[np.float32]]] = []
    for start in range(0, len(looks), _BLOCK_ROWS):
        cosines = looks[start : start + _BLOCK_ROWS] @ looks[start:].T
        rows, columns = np.nonzero(cosines >= limit)
        new = (columns > rows) & (groups[start + rows] != groups[start + columns])
        rows, columns = rows[new], columns[new]
        found.append((start + rows, start + columns, cosines[rows, columns]))
    first, second, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
    return Pairs(first, second, similarity, limit).take(np.argsort(-similarity, kind="stable"))


def join_alike(sequences: Sequences, pairs: Pairs) -> Sequences:
    """The same clips with one group, the first by name, where there were several that hold clips that look alike."""
    names, of_clip = np.unique(sequences.groups, return_inverse=True)
    links = (np.ones(len(pairs), bool), (of_clip[pairs.first], of_clip[pairs.second]))
    joined = connected_components(csr_array(links, shape=(len(names),) * 2), directed=False)[1]
    leader = np.unique(joined, return_index=True)[1]  # names are sorted: the first of each component
    return replace(sequences, groups=names[leader[joined[of_clip]]])


def across(pairs: Pairs, division: Division) -> Pairs:
    """The pairs of which one clip is tested, in some fold, by a model that was fitted on the other."""
    return pairs.take(np.flatnonzero(np.any([_crosses(pairs, fold) for fold in division.folds], axis=0)))


def report(pairs: Pairs, sequences: Sequences, division: Division) -> dict[str, Any]:
    """What metrics.json says under `leakage`; `pairs` are those across the division."""
    listed = [_entry(pairs.take(np.array([place])), sequences, division) for place in range(min(LISTED, len(pairs)))]
    return {
        "split_groups": list(division.split_groups),
        "duplicate_pairs": len(pairs),
        "duplicate_similarity": pairs.limit,
        "duplicates": listed,
        "warnings": _warnings(pairs, sequences, division),
    }


def words(pairs: Pairs, sequences: Sequences) -> str:
    """How many pairs there are, and the first of them by name."""
    named = [
        f"{sequences.paths[a]} and {sequences.paths[b]} ({cosine:.2f})"
        for a, b, cosine in zip(pairs.first[:2], pairs.second[:2], pairs.similarity[:2], strict=True)
    ]
    return f"{counted(len(pairs), 'pair')}, {'; '.join(named)}{'; …' if len(pairs) > 2 else ''}"


def _looks(sequences: Sequences) -> NDArray[np.float32]:
    """What clips are compared by (B, D): mean over time, in standard deviations from the cache's mean, unit length."""
    real = sequences.mask[..., None]
    means = np.where(real, sequences.x, 0).sum(axis=1) / sequences.mask.sum(axis=1)[:, None]  # (B, D)
    rows = (means - means.mean(axis=0)) / np.maximum(means.std(axis=0), 1e-6)
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)).astype(np.float32)


def _limit(looks: NDArray[np.float32]) -> float:
    """The cosine from which on two clips of this cache look alike."""
    count = len(looks)
    squares = float(np.square(looks.T @ looks).sum())  # of all B x B cosines, without making them
    usual = np.sqrt(max(squares - count, 0) / max(count * (count - 1), 1))
    return float(np.clip(SPREADS * usual, ALIKE, SURELY))


def _warnings(pairs: Pairs, sequences: Sequences, division: Division) -> list[str]:
    lines = []
    if len(pairs):
        lines.append(
            f"clips that look alike lie on two sides of the split: {words(pairs, sequences)}; these figures may be "
            "inflated: give such clips one group, or --set duplicates=group"
        )
    if torn := division.split_groups:
        lines.append(
            f"the official lists put {counted(len(torn), 'group')} on two sides ({some(torn)}), so these figures are "
            "inflated; they follow the published protocol"
        )
    return lines


def _crosses(pairs: Pairs, fold: Fold) -> NDArray[np.bool_]:
    last = int(max(part.max(initial=-1) for part in (fold.train, fold.val, fold.test, pairs.first, pairs.second)))
    tested, fitted = np.zeros(last + 1, bool), np.zeros(last + 1, bool)
    tested[fold.test] = True
    fitted[np.concatenate([fold.train, fold.val])] = True
    return (tested[pairs.first] & fitted[pairs.second]) | (fitted[pairs.first] & tested[pairs.second])


def _entry(pair: Pairs, sequences: Sequences, division: Division) -> dict[str, Any]:
    folds = [number for number, fold in enumerate(division.folds) if _crosses(pair, fold)[0]]
    tested = pair.first[0] in division.folds[folds[0]].test
    return {
        "a": str(sequences.paths[pair.first[0]]),
        "b": str(sequences.paths[pair.second[0]]),
        "similarity": float(pair.similarity[0]),
        "sides": ["test", "train"] if tested else ["train", "test"],
        "folds": folds,
    }
