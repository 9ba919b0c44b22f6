"""Labels that a split leaves out of training or of the test, said before anything is trained."""

from collections.abc import Sequence

import numpy as np

from features.errors import SettingsError
from features.utils.text import truncate_list
from hazard.data.splits import CrossValidationSplits
from hazard.training.fit import training_rows
from hazard.types import Sequences

NAMED_LABELS = 5
"""Labels that a line names; of more, only the number is given."""


def check_training_labels(sequences: Sequences, splits: CrossValidationSplits) -> None:
    """Check that every fold has training clips of two labels or more; raises SettingsError if not."""
    for number, fold in enumerate(splits.folds, 1):
        found = np.unique(sequences.y[training_rows(fold)])
        if len(found) < 2:
            has_folds = len(splits.folds) > 1
            where = f" of fold {number}" if has_folds else ""
            remedy = (
                "clips of more groups are needed for each label"
                if has_folds
                else "put clips of another label on the training side, or give --folds N"
            )
            raise SettingsError(
                f"all training clips{where} have the label '{sequences.labels[found[0]]}', but a model learns to tell "
                f"two or more labels apart; {remedy}"
            )


def make_label_warnings(sequences: Sequences, splits: CrossValidationSplits) -> list[str]:
    """Return one line for each kind of labels that cannot be learned and measured; none if all can."""
    counts = np.bincount(sequences.y, minlength=len(sequences.labels))  # (K,)
    groups = np.array([len(np.unique(sequences.groups[sequences.y == k])) for k in range(len(counts))])  # (K,)
    trained = [_mark_labels(sequences, training_rows(fold)) for fold in splits.folds]  # each (K,)
    tested = [_mark_labels(sequences, fold.test) for fold in splits.folds]
    never_tested = ~np.any(tested, axis=0)
    unlearned = np.any([test & ~train for train, test in zip(trained, tested, strict=True)], axis=0)
    single_clip, single_group = counts == 1, (groups == 1) & (counts > 1)
    lines = {
        "with a single clip, which is either trained on or tested": single_clip,
        "whose clips are all of one group, which is either trained on or tested": single_group,
        "that are tested without training clips, so that no model can name them": (
            unlearned & ~single_clip & ~single_group
        ),
        "without test clips, so that nothing is measured for them": never_tested & ~single_clip & ~single_group,
    }
    return [
        f"{_format_labels([sequences.labels[k] for k in np.flatnonzero(marked)])} {text}"
        for text, marked in lines.items()
        if marked.any()
    ]


def _mark_labels(sequences: Sequences, rows: np.ndarray) -> np.ndarray:
    return np.bincount(sequences.y[rows], minlength=len(sequences.labels)) > 0


def _format_labels(names: Sequence[str]) -> str:
    return f"{'label' if len(names) == 1 else 'labels'} {truncate_list(names, NAMED_LABELS)}"
