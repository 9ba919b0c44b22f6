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

from features.utils.text import format_count, truncate_list
from hazard.data.splits import CrossValidationSplits, Fold, RowIndices
from hazard.types import Sequences

MIN_SIMILARITY = 0.75
"""Clips whose standardised mean features have this cosine or more look alike …"""
SIMILARITY_SPREADS = 5.0
"""… where it is also this many times the usual size of a cosine in this cache …"""
SURE_SIMILARITY = 0.98
"""… which is asked for at most: in narrow features, and of few scenes, even strangers have high cosines."""
MAX_LISTED_PAIRS = 50
"""Pairs that metrics.json names, the most alike first."""
_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class NearDuplicatePairs:
    """Pairs of clips of different groups that look alike, the most alike first."""

    first: RowIndices  # (P,)
    second: RowIndices  # (P,)
    similarity: NDArray[np.float32]  # (P,) cosine
    limit: float

    def __len__(self) -> int:
        return len(self.first)

    def take(self, index: NDArray) -> "NearDuplicatePairs":
        """Some of the pairs."""
        return NearDuplicatePairs(self.first[index], self.second[index], self.similarity[index], self.limit)


NO_PAIRS = NearDuplicatePairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), float("nan"))


def find_near_duplicates(sequences: Sequences) -> NearDuplicatePairs:
    """All pairs of clips of different groups that look alike, by the cosine of their standardised mean features.

    Of 13,000 clips in a few seconds: products of blocks.
    """
    looks = _compute_descriptors(sequences)  # (B, D)
    limit = _compute_limit(looks)
    groups = np.unique(sequences.groups, return_inverse=True)[1]
    found: list[tuple[RowIndices, RowIndices, NDArray[np.float32]]] = []
    for start in range(0, len(looks), _BLOCK_ROWS):
        cosines = looks[start : start + _BLOCK_ROWS] @ looks[start:].T
        rows, columns = np.nonzero(cosines >= limit)
        new = (columns > rows) & (groups[start + rows] != groups[start + columns])
        rows, columns = rows[new], columns[new]
        found.append((start + rows, start + columns, cosines[rows, columns]))
    first, second, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
    return NearDuplicatePairs(first, second, similarity, limit).take(np.argsort(-similarity, kind="stable"))


def merge_near_duplicates(sequences: Sequences, pairs: NearDuplicatePairs) -> Sequences:
    """The same clips with one group, the first by name, where there were several that hold clips that look alike."""
    names, of_clip = np.unique(sequences.groups, return_inverse=True)
    links = (np.ones(len(pairs), bool), (of_clip[pairs.first], of_clip[pairs.second]))
    joined = connected_components(csr_array(links, shape=(len(names),) * 2), directed=False)[1]
    leader = np.unique(joined, return_index=True)[1]  # names are sorted: the first of each component
    return replace(sequences, groups=names[leader[joined[of_clip]]])


def select_across_split(pairs: NearDuplicatePairs, splits: CrossValidationSplits) -> NearDuplicatePairs:
    """The pairs of which one clip is tested, in some fold, by a model that was fitted on the other."""
    return pairs.take(np.flatnonzero(np.any([_is_across_fold(pairs, fold) for fold in splits.folds], axis=0)))


def make_leakage_report(
    pairs: NearDuplicatePairs, sequences: Sequences, splits: CrossValidationSplits
) -> dict[str, Any]:
    """What metrics.json says under `leakage`; `pairs` are those across the division."""
    listed = [
        _make_pair_entry(pairs.take(np.array([place])), sequences, splits)
        for place in range(min(MAX_LISTED_PAIRS, len(pairs)))
    ]
    return {
        "split_groups": list(splits.split_groups),
        "duplicate_pairs": len(pairs),
        "duplicate_similarity": pairs.limit,
        "duplicates": listed,
        "warnings": _make_warnings(pairs, sequences, splits),
    }


def format_pairs(pairs: NearDuplicatePairs, sequences: Sequences) -> str:
    """How many pairs there are, and the first of them by name."""
    named = [
        f"{sequences.paths[a]} and {sequences.paths[b]} ({cosine:.2f})"
        for a, b, cosine in zip(pairs.first[:2], pairs.second[:2], pairs.similarity[:2], strict=True)
    ]
    return f"{format_count(len(pairs), 'pair')}, {'; '.join(named)}{'; …' if len(pairs) > 2 else ''}"


def _compute_descriptors(sequences: Sequences) -> NDArray[np.float32]:
    """What clips are compared by (B, D): mean over time, in standard deviations from the cache's mean, unit length."""
    real = sequences.mask[..., None]
    means = np.where(real, sequences.x, 0).sum(axis=1) / sequences.mask.sum(axis=1)[:, None]  # (B, D)
    rows = (means - means.mean(axis=0)) / np.maximum(means.std(axis=0), 1e-6)
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)).astype(np.float32)


def _compute_limit(descriptors: NDArray[np.float32]) -> float:
    """The cosine from which on two clips of this cache look alike."""
    count = len(descriptors)
    squares = float(np.square(descriptors.T @ descriptors).sum())  # of all B x B cosines, without making them
    usual = np.sqrt(max(squares - count, 0) / max(count * (count - 1), 1))
    return float(np.clip(SIMILARITY_SPREADS * usual, MIN_SIMILARITY, SURE_SIMILARITY))


def _make_warnings(pairs: NearDuplicatePairs, sequences: Sequences, splits: CrossValidationSplits) -> list[str]:
    lines = []
    if len(pairs):
        lines.append(
            f"clips that look alike lie on two sides of the split: {format_pairs(pairs, sequences)}; these figures may be "
            "inflated: give such clips one group, or --set duplicates=group"
        )
    if torn := splits.split_groups:
        lines.append(
            f"the official lists put {format_count(len(torn), 'group')} on two sides ({truncate_list(torn)}), so these figures are "
            "inflated; they follow the published protocol"
        )
    return lines


def _is_across_fold(pairs: NearDuplicatePairs, fold: Fold) -> NDArray[np.bool_]:
    last = int(max(part.max(initial=-1) for part in (fold.train, fold.val, fold.test, pairs.first, pairs.second)))
    tested, fitted = np.zeros(last + 1, bool), np.zeros(last + 1, bool)
    tested[fold.test] = True
    fitted[np.concatenate([fold.train, fold.val])] = True
    return (tested[pairs.first] & fitted[pairs.second]) | (fitted[pairs.first] & tested[pairs.second])


def _make_pair_entry(pair: NearDuplicatePairs, sequences: Sequences, splits: CrossValidationSplits) -> dict[str, Any]:
    folds = [number for number, fold in enumerate(splits.folds) if _is_across_fold(pair, fold)[0]]
    tested = pair.first[0] in splits.folds[folds[0]].test
    return {
        "a": str(sequences.paths[pair.first[0]]),
        "b": str(sequences.paths[pair.second[0]]),
        "similarity": float(pair.similarity[0]),
        "sides": ["test", "train"] if tested else ["train", "test"],
        "folds": folds,
    }
