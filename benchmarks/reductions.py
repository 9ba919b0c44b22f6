"""Scores with fewer numbers per frame: poolings × reductions × models on the same grouped folds, as one table.

Extract once with both poolings and no reduction. Everything else is computed in memory:

    python extract_features.py manifest.csv -o raw.h5 --pooling avg+max --reduce none
    python benchmarks/reductions.py raw.h5 --csv reductions.csv

Each fold fits its own reduction on the frames outside its test part, as a cache with a training split does. The models
are trained on the reduced frames of the same clips. A score is the ROC AUC of the out-of-fold predictions of all clips
together. Each shuffle draws other folds and gives the models another seed.

The name of a head may end in the number of heads in its ensemble (`lstm:2`). The default is five. Heads take most of
the time.

Each score is added to the CSV as soon as it is known. Scores that the CSV already holds are not computed again, so a
stopped run can be continued, and more models or shuffles can be added later. `--table` only prints the CSV.
"""

import csv
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click
import numpy as np
from numpy.typing import NDArray

from features.cache.hdf5 import read_cache
from features.cache.reduction import Reduction, fit
from hazard.data.sequences import load_sequences
from hazard.data.splits import CrossValidationSplits, Fold, make_grouped_folds
from hazard.experiments.cross_validation import cross_validate
from hazard.experiments.evaluation_metrics import find_positive_label
from hazard.metrics.classification import roc_auc
from hazard.models.baselines import BASELINES
from hazard.models.heads import HEADS
from hazard.models.settings import TrainSettings
from hazard.types import Sequences

POOLINGS = ("avg", "max", "avg+max")
REDUCTIONS = ("none", "select:512", "pca:512", "pca-scaled:512", "pca-whitened:512", "random:512")
MODELS = ("logistic_regression", "linear_svm", "lstm")
COLUMNS = ("shuffle", "pooling", "reduction", "model", "roc_auc", "seconds")


@dataclass(frozen=True)
class Case:
    """One cell of the table in one shuffle."""

    shuffle: int
    pooling: str
    reduction: str
    model: str


def parse_list(_: object, __: object, value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(","))


@click.command()
@click.argument("cache", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--csv",
    "file",
    type=click.Path(path_type=Path),
    default="reductions.csv",
    help="File that the scores are added to.",
)
@click.option("--poolings", callback=parse_list, default=",".join(POOLINGS), show_default=True)
@click.option("--reductions", callback=parse_list, default=",".join(REDUCTIONS), show_default=True)
@click.option(
    "--models", callback=parse_list, default=",".join(MODELS), show_default=True, help="Names of baselines and heads."
)
@click.option(
    "--shuffles", type=click.IntRange(1), default=3, show_default=True, help="Number of times the folds are drawn."
)
@click.option("--folds", type=click.IntRange(2), default=5, show_default=True)
@click.option("--table", "only_table", is_flag=True, help="Only print the scores in the CSV.")
def main(
    cache: Path,
    file: Path,
    poolings: tuple[str, ...],
    reductions: tuple[str, ...],
    models: tuple[str, ...],
    shuffles: int,
    folds: int,
    only_table: bool,
) -> None:
    """Measure each pooling, reduction and model on CACHE, which must hold avg+max features without a reduction."""
    check_names("pooling", poolings, POOLINGS)
    check_names("model", [model.partition(":")[0] for model in models], [*BASELINES, *HEADS])
    wanted = [Case(*names) for names in product(range(shuffles), poolings, reductions, models)]
    if not only_table:
        sequences = load_raw(cache)
        measure(sequences, wanted, file, folds)
    figures = read_figures(file)
    for line in format_table({case: figures[case] for case in wanted if case in figures}):
        click.echo(line)


def check_names(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise click.UsageError(f"unknown {what} '{name}'; choose one of: {', '.join(known)}")


def load_raw(path: Path) -> Sequences:
    """Return the unreduced frames of all labelled clips, with both poolings side by side."""
    cache = read_cache(path)
    spec = cache.spec
    if spec.pooling != "avg+max" or spec.reduction != "none":
        raise click.UsageError(
            f"{path} holds pooling {spec.pooling} and reduction {spec.reduction}; "
            "extract it again with --pooling avg+max --reduce none"
        )
    return load_sequences(cache)


def measure(sequences: Sequences, wanted: Sequence[Case], file: Path, folds: int) -> None:
    """Add the missing scores to `file`. Models with one shuffle, pooling and reduction share the fitted reductions."""
    missing = [case for case in wanted if case not in read_figures(file)]
    for number, (shuffle, pooling, reduction) in enumerate(
        groups := list(dict.fromkeys(map(reduction_key, missing))), 1
    ):
        pooled = select_pooling(sequences, pooling)
        reduced = [
            (fold, reduce_inside(pooled, fold, reduction)) for fold in make_grouped_folds(pooled, folds, seed=shuffle)
        ]
        for case in missing:
            if reduction_key(case) == (shuffle, pooling, reduction):
                began = time.perf_counter()
                value = out_of_fold_auc(reduced, make_settings(case))
                append_figure(file, case, value, time.perf_counter() - began)
                click.echo(f"{number}/{len(groups)} {case}: {value:.4f}", err=True)


def reduction_key(case: Case) -> tuple[int, str, str]:
    return case.shuffle, case.pooling, case.reduction


def select_pooling(sequences: Sequences, pooling: str) -> Sequences:
    """Return the sequences with the half of the columns that `pooling` names, or with both halves."""
    half = sequences.x.shape[2] // 2
    columns = {"avg": slice(0, half), "max": slice(half, None), "avg+max": slice(None)}[pooling]
    return replace(sequences, x=sequences.x[:, :, columns])


def reduce_inside(sequences: Sequences, fold: Fold, text: str) -> Sequences:
    """Return all clips, reduced by a reduction fitted on the clips outside the test part of the fold."""
    rows = np.sort(np.concatenate([fold.train, fold.val]))
    tracks = (get_track(sequences, row) for row in rows.tolist())
    reduction = fit(text, tracks, width=sequences.x.shape[2])
    return apply(reduction, sequences) if reduction else sequences


def get_track(sequences: Sequences, row: int) -> NDArray[np.float16]:
    """Return the frames (N, D) of a clip as the cache holds them."""
    return sequences.x[row][sequences.mask[row]].astype(np.float16)


def apply(reduction: Reduction, sequences: Sequences) -> Sequences:
    x = np.zeros((*sequences.mask.shape, reduction.width), np.float32)  # (B, T, K)
    for row in range(len(sequences)):
        x[row][sequences.mask[row]] = reduction.apply(get_track(sequences, row))
    return replace(sequences, x=x)


def make_settings(case: Case) -> TrainSettings:
    """Return the default settings of a model on the CPU. `lstm:2` is an ensemble of two heads."""
    name, _, members = case.model.partition(":")
    chosen = {"baseline" if name in BASELINES else "head": name} | ({"members": members} if members else {})
    return TrainSettings.model_validate({**chosen, "seed": case.shuffle, "device": "cpu"})


def out_of_fold_auc(reduced: Sequence[tuple[Fold, Sequences]], settings: TrainSettings) -> float:
    """Return the ROC AUC of all clips together, each predicted by the fold that did not train on it."""
    results = [
        (sequences, cross_validate(sequences, CrossValidationSplits((fold,), ""), settings))
        for fold, sequences in reduced
    ]
    labels = reduced[0][1].labels
    positive = find_positive_label(labels, settings)
    return roc_auc(
        np.concatenate([sequences.y[result.rows] for sequences, result in results]),
        np.concatenate([result.probs for _, result in results]),
        positive=labels.index(positive) if positive else None,
    )


def append_figure(file: Path, case: Case, value: float, seconds: float) -> None:
    is_new = not file.exists()
    with file.open("a", newline="") as stream:
        writer = csv.writer(stream)
        if is_new:
            writer.writerow(COLUMNS)
        writer.writerow([*vars(case).values(), f"{value:.6f}", f"{seconds:.2f}"])


def read_figures(file: Path) -> dict[Case, float]:
    if not file.exists():
        return {}
    with file.open(newline="") as stream:
        return {
            Case(int(row["shuffle"]), row["pooling"], row["reduction"], row["model"]): float(row["roc_auc"])
            for row in csv.DictReader(stream)
        }


def format_table(figures: dict[Case, float]) -> Iterator[str]:
    """Yield a row per pooling and reduction: mean, lowest and highest score of each model over the shuffles."""
    models = list(dict.fromkeys(case.model for case in figures))
    yield "| pooling | reduction | " + " | ".join(models) + " |"
    yield "|---|---|" + "---|" * len(models)
    for pooling, reduction in dict.fromkeys((case.pooling, case.reduction) for case in figures):
        cells = [format_cell(figures, pooling, reduction, model) for model in models]
        yield f"| {pooling} | {reduction} | " + " | ".join(cells) + " |"


def format_cell(figures: dict[Case, float], pooling: str, reduction: str, model: str) -> str:
    values = [
        value
        for case, value in figures.items()
        if (case.pooling, case.reduction, case.model) == (pooling, reduction, model)
    ]
    if not values:
        return ""
    spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


if __name__ == "__main__":
    main()
