"""Near-duplicate clips on two sides of a split: found in the features, reported, or put into one group.

A re-encoded or trimmed copy of a clip, or a second clip of the same scene under another name, makes metrics look better
than they are. docs/experiments.md says how the limit was chosen.

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
"""Lowest limit on similarity: the cosine between the standardised mean features of two clips."""
SIMILARITY_SPREADS = 5.0
"""The limit as a multiple of the root mean square of the cosines in this cache."""
SURE_SIMILARITY = 0.98
"""Highest limit. In narrow features, and with few scenes, even unrelated clips have high cosines."""
MAX_LISTED_PAIRS = 50
"""Number of pairs that metrics.json names, the most similar first."""
_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class NearDuplicatePairs:
    """Pairs of near-duplicate clips of different groups, the most similar first."""

    first: RowIndices  # (P,)
    second: RowIndices  # (P,)
    similarity: NDArray[np.float32]  # (P,) cosine
    limit: float

    def __len__(self) -> int:
        return len(self.first)

    def take(self, index: NDArray) -> "NearDuplicatePairs":
        """Return the pairs that `index` selects."""
        return NearDuplicatePairs(self.first[index], self.second[index], self.similarity[index], self.limit)


NO_PAIRS = NearDuplicatePairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), float("nan"))


def find_near_duplicates(sequences: Sequences) -> NearDuplicatePairs:
    """Return all pairs of near-duplicates of different groups, by the cosine of their standardised mean features.

    The cosines are computed in blocks; 13,000 clips take a few seconds.
    """
    descriptors = _compute_descriptors(sequences)  # (B, D)
    limit = _compute_limit(descriptors)
    groups = np.unique(sequences.groups, return_inverse=True)[1]
    found: list[tuple[RowIndices, RowIndices, NDArray[np.float32]]] = []
    for start in range(0, len(descriptors), _BLOCK_ROWS):
        cosines = descriptors[start : start + _BLOCK_ROWS] @ descriptors[start:].T
        rows, columns = np.nonzero(cosines >= limit)
        is_pair = (columns > rows) & (groups[start + rows] != groups[start + columns])
        rows, columns = rows[is_pair], columns[is_pair]
        found.append((start + rows, start + columns, cosines[rows, columns]))
    first, second, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
    return NearDuplicatePairs(first, second, similarity, limit).take(np.argsort(-similarity, kind="stable"))


def merge_near_duplicates(sequences: Sequences, pairs: NearDuplicatePairs) -> Sequences:
    """Return the same clips with one group, the first by name, in place of groups that share near-duplicates."""
    names, of_clip = np.unique(sequences.groups, return_inverse=True)
    links = (np.ones(len(pairs), bool), (of_clip[pairs.first], of_clip[pairs.second]))
    component = connected_components(csr_array(links, shape=(len(names),) * 2), directed=False)[1]
    first_name = np.unique(component, return_index=True)[1]  # names are sorted: the first of each component
    return replace(sequences, groups=names[first_name[component[of_clip]]])


def select_across_split(pairs: NearDuplicatePairs, splits: CrossValidationSplits) -> NearDuplicatePairs:
    """Return the pairs of which one clip is tested, in some fold, by a model that was fitted on the other."""
    return pairs.take(np.flatnonzero(np.any([_is_across_fold(pairs, fold) for fold in splits.folds], axis=0)))


def make_leakage_report(
    pairs: NearDuplicatePairs, sequences: Sequences, splits: CrossValidationSplits
) -> dict[str, Any]:
    """Return the section `leakage` of metrics.json; `pairs` are those across the split."""
    listed = [
        _make_pair_entry(pairs.take(np.array([number])), sequences, splits)
        for number in range(min(MAX_LISTED_PAIRS, len(pairs)))
    ]
    return {
        "split_groups": list(splits.split_groups),
        "duplicate_pairs": len(pairs),
        "duplicate_similarity": pairs.limit,
        "duplicates": listed,
        "warnings": _make_warnings(pairs, sequences, splits),
    }


def format_pairs(pairs: NearDuplicatePairs, sequences: Sequences) -> str:
    """Return the number of pairs and the names of the first two as text."""
    named = [
        f"{sequences.paths[a]} and {sequences.paths[b]} ({cosine:.2f})"
        for a, b, cosine in zip(pairs.first[:2], pairs.second[:2], pairs.similarity[:2], strict=True)
    ]
    return f"{format_count(len(pairs), 'pair')}, {'; '.join(named)}{'; …' if len(pairs) > 2 else ''}"


def _compute_descriptors(sequences: Sequences) -> NDArray[np.float32]:
    """Return the unit vectors (B, D) that clips are compared by: mean features over time, standardised over clips."""
    real = sequences.mask[..., None]
    means = np.sum(sequences.x, axis=1, where=real, dtype=np.float32) / sequences.mask.sum(axis=1)[:, None]  # (B, D)
    rows = (means - means.mean(axis=0)) / np.maximum(means.std(axis=0), 1e-6)
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)).astype(np.float32)


def _compute_limit(descriptors: NDArray[np.float32]) -> float:
    """Return the cosine from which on two clips of this cache count as near-duplicates."""
    count = len(descriptors)
    squares = float(np.square(descriptors.T @ descriptors).sum())  # sum over all B x B cosines, without computing them
    typical = np.sqrt(max(squares - count, 0) / max(count * (count - 1), 1))
    return float(np.clip(SIMILARITY_SPREADS * typical, MIN_SIMILARITY, SURE_SIMILARITY))


def _make_warnings(pairs: NearDuplicatePairs, sequences: Sequences, splits: CrossValidationSplits) -> list[str]:
    lines = []
    if len(pairs):
        lines.append(
            f"near-duplicate clips are on two sides of the split: {format_pairs(pairs, sequences)}; "
            "the metrics may be inflated; give such clips one group, or add --set duplicates=group"
        )
    if groups := splits.split_groups:
        lines.append(
            f"the official lists put {format_count(len(groups), 'group')} on two sides ({truncate_list(groups)}); "
            "the metrics follow the published protocol, but are inflated"
        )
    return lines


def _is_across_fold(pairs: NearDuplicatePairs, fold: Fold) -> NDArray[np.bool_]:
    last = int(max(part.max(initial=-1) for part in (fold.train, fold.val, fold.test, pairs.first, pairs.second)))
    is_tested, is_fitted = np.zeros(last + 1, bool), np.zeros(last + 1, bool)
    is_tested[fold.test] = True
    is_fitted[np.concatenate([fold.train, fold.val])] = True
    return (is_tested[pairs.first] & is_fitted[pairs.second]) | (is_fitted[pairs.first] & is_tested[pairs.second])


def _make_pair_entry(pair: NearDuplicatePairs, sequences: Sequences, splits: CrossValidationSplits) -> dict[str, Any]:
    folds = [number for number, fold in enumerate(splits.folds) if _is_across_fold(pair, fold)[0]]
    is_first_tested = pair.first[0] in splits.folds[folds[0]].test
    return {
        "a": str(sequences.paths[pair.first[0]]),
        "b": str(sequences.paths[pair.second[0]]),
        "similarity": float(pair.similarity[0]),
        "sides": ["test", "train"] if is_first_tested else ["train", "test"],
        "folds": folds,
    }
