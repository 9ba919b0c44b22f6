"""Scores that detect unknown clips, which are unlike all training clips: three kinds, on synthetic and real clips.

    python benchmarks/unknown.py                                  # synthetic clips: about six minutes on two cores
    python benchmarks/unknown.py --real manifest.csv              # also real clips; each set is unknown to the other

Each action of the synthetic clips is left out in turn. Models and distances are fitted on the other three actions, in
five folds that never split a scene. Known clips are scored in the fold that held them out, together with the clips of
the unknown action in the same held-out scenes. AUROC is the probability that an unknown clip scores higher than a known
one. With --real, the clips of each set are also scored as unknown clips of the other.

A second table shows the shares of held-out known clips and of unknown clips that are called unknown, for each share
that can be set. The statistics, components and weights of the distance were chosen on the synthetic sets 0 to 2 and on
the real clips, but not on the sets from 3 on, which are the default.
"""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from features.cache.hdf5 import read_cache
from features.cache.reduction import fit as fit_reduction
from features.cli.extract import extract_features
from hazard.data.sequences import load_sequences
from hazard.data.splits import Fold, make_grouped_folds
from hazard.models.head_ensemble import HeadEnsemble
from hazard.models.open_set import POOLED_SCALES, energy_score, fit_open_set_detector, max_probability_score
from hazard.models.pooling import pool
from hazard.models.predictor import predict_probs
from hazard.models.settings import TrainSettings
from hazard.synthetic.clips import draw_dataset
from hazard.synthetic.people import ACTIONS
from hazard.training.fit import fit, training_rows
from hazard.types import Sequences

Array = NDArray[np.float64]
Scores = Mapping[str, Array]
OURS = "**relative and outside: saved with models**"
SHARES = (0.02, 0.05, 0.1, 0.2)
BASELINE = "logistic_regression"
FOLDS = 5
WIDTH = 512


@dataclass(frozen=True)
class TestClips:
    """The clips that a fold scores: first its held-out known clips, then unknown clips."""

    x: NDArray[np.float32]
    mask: NDArray[np.bool_]
    known: int


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default="runs/unknown", help="Folder for clips and caches.")
@click.option("--real", type=click.Path(exists=True, path_type=Path), help="Manifest of real clips.")
@click.option("--first-seed", default=3, help="Seed of the first set of synthetic clips.")
@click.option("--seeds", default=3, help="Number of sets of synthetic clips.")
@click.option("--clips", default=40, help="Synthetic clips per action.")
@click.option("--scenes", default=10, help="Scenes per set.")
@click.option("--head", default="lstm", help="Head whose probabilities and raw logits are scored.")
@click.option("--members", default=2, help="Number of heads in its ensemble.")
def main(
    work: Path, real: Path | None, first_seed: int, seeds: int, clips: int, scenes: int, head: str, members: int
) -> None:
    """Print the tables of docs/unknown.md."""
    torch.set_num_threads(1)
    settings = TrainSettings(device="cpu", members=members, head=head)
    drawn = [
        extract_and_load(work / f"drawn{seed}", draw(work, seed, clips, scenes))
        for seed in range(first_seed, first_seed + seeds)
    ]
    figures: dict[str, dict[str, list[Array]]] = defaultdict(lambda: defaultdict(list))
    for sequences in drawn:
        for label in range(len(sequences.labels)):
            for name, found in score_held_out_class(sequences, label, settings).items():
                figures[f"without {sequences.labels[label]}"][name].append(found)
    if real:
        others = extract_and_load(work / "real", real)
        for name, found in score_foreign(others, drawn[0], settings).items():
            figures["real, synthetic is foreign"][name].append(found)
        for name, found in score_foreign(drawn[0], others, settings).items():
            figures["synthetic, real is foreign"][name].append(found)
    for line in format_tables(figures):
        click.echo(line)


def draw(work: Path, seed: int, clips: int, scenes: int) -> Path:
    manifest = work / f"drawn{seed}" / "manifest.csv"
    if manifest.is_file():
        return manifest
    return draw_dataset(
        manifest.parent, classes={a: (a,) for a in ACTIONS}, clips_per_class=clips, scenes=scenes, seed=seed
    )


def extract_and_load(stem: Path, manifest: Path) -> Sequences:
    """Return the sequences of a manifest without a reduction, which each fold fits itself. Extract them if needed."""
    file = stem.with_suffix(".h5")
    if not file.is_file():
        extract_features.main([str(manifest), "-o", str(file), "--reduce", "none"], standalone_mode=False)
    return load_sequences(read_cache(file))


def score_held_out_class(sequences: Sequences, label: int, settings: TrainSettings) -> dict[str, Array]:
    """Return the scores for one class that is held out as unknown."""
    known, unknown = np.flatnonzero(sequences.y != label), np.flatnonzero(sequences.y == label)
    return score_folds(
        remove_class(sequences.take(known), label),
        lambda groups: sequences.take(unknown[np.isin(sequences.groups[unknown], groups)]),
        settings,
    )


def score_foreign(sequences: Sequences, others: Sequences, settings: TrainSettings) -> dict[str, Array]:
    """Return the scores for `others`, clips of another data set, as unknown clips."""
    return score_folds(sequences, lambda groups: others, settings)


def remove_class(sequences: Sequences, label: int) -> Sequences:
    labels = tuple(name for number, name in enumerate(sequences.labels) if number != label)
    return replace(sequences, y=np.where(sequences.y > label, sequences.y - 1, sequences.y), labels=labels)


def score_folds(
    sequences: Sequences, unknown_clips: Callable[[NDArray[np.str_]], Sequences], settings: TrainSettings
) -> dict[str, Array]:
    """Return the AUROC of each score; for ours also the shares of known, then of unknown clips called unknown."""
    scores: dict[str, list[tuple[Array, Array]]] = defaultdict(list)
    flags: list[tuple[Array, Array]] = []
    for fold in make_grouped_folds(sequences, FOLDS, seed=0):
        rows = training_rows(fold)
        other = unknown_clips(np.unique(sequences.groups[fold.test]))
        reduction = fit_reduction(
            f"select:{WIDTH}",
            [x[mask].astype(np.float16) for x, mask in zip(sequences.x[rows], sequences.mask[rows], strict=True)],
            width=sequences.x.shape[2],
        )
        channels = reduction.channels  # type: ignore[union-attr]
        small = replace(sequences, x=np.ascontiguousarray(sequences.x[..., channels]))
        both = concatenate(small, fold, replace(other, x=np.ascontiguousarray(other.x[..., channels])))
        for name, values in score_with_models(small, fold, both, settings):
            scores[name].append((values[: both.known], values[both.known :]))
        familiar = fit_open_set_detector(small, rows, seed=0)
        assert familiar is not None
        for name, values in score_with_distances(small, rows, both):
            scores[name].append((values[: both.known], values[both.known :]))
        ours = familiar.scores(both.x, both.mask)
        scores[OURS].append((ours[: both.known], ours[both.known :]))
        is_far = np.stack([ours >= familiar.threshold(share) for share in SHARES], axis=1)  # (B, shares)
        flags.append((is_far[: both.known], is_far[both.known :]))
    result = {name: np.array([auroc(parts)]) for name, parts in scores.items()}
    called = [np.concatenate(side).mean(axis=0) for side in zip(*flags, strict=True)]
    return result | {OURS: np.concatenate([result[OURS], *called])}


def concatenate(sequences: Sequences, fold: Fold, other: Sequences) -> TestClips:
    steps = max(sequences.x.shape[1], other.x.shape[1])
    parts = [(sequences.x[fold.test], sequences.mask[fold.test]), (other.x, other.mask)]
    x = [np.pad(x, ((0, 0), (0, steps - x.shape[1]), (0, 0))) for x, _ in parts]
    mask = [np.pad(mask, ((0, 0), (0, steps - mask.shape[1]))) for _, mask in parts]
    return TestClips(np.concatenate(x), np.concatenate(mask), len(fold.test))


def score_with_models(
    sequences: Sequences, fold: Fold, asked: TestClips, settings: TrainSettings
) -> Iterator[tuple[str, Array]]:
    """Yield scores from the outputs of a baseline and of a head."""
    count = len(sequences.labels)
    baseline, _ = fit(sequences, fold, settings.for_model("baseline", BASELINE))
    yield f"maximum probability, {BASELINE}", max_probability_score(predict_probs(baseline, asked.x, asked.mask, count))
    committee, _ = fit(sequences, fold, settings)
    yield (
        f"maximum probability, {settings.head}",
        max_probability_score(predict_probs(committee, asked.x, asked.mask, count)),
    )
    assert isinstance(committee, HeadEnsemble)
    with torch.inference_mode():
        x, mask = torch.from_numpy(asked.x), torch.from_numpy(asked.mask)
        logits = [
            head(x, mask).double().numpy() for head in committee.heads
        ]  # raw, because the logits of an ensemble are normalised
    yield f"energy, {settings.head}", np.mean([energy_score(each) for each in logits], axis=0)


def score_with_distances(
    sequences: Sequences, rows: NDArray[np.int64], asked: TestClips
) -> Iterator[tuple[str, Array]]:
    """Yield other distances, in the components of the distance that is saved."""
    familiar = fit_open_set_detector(sequences, rows, seed=0)
    assert familiar is not None
    train, test = (
        ((pool(x, mask, tuple(POOLED_SCALES)) - familiar.mean) * familiar.scale).astype(np.float64)
        for x, mask in ((sequences.x[rows], sequences.mask[rows]), (asked.x, asked.mask))
    )
    inside, inside_train = test @ familiar.components.T, train @ familiar.components.T  # (B, R)
    nearest = np.min([mahalanobis(inside - centre, familiar.within) for centre in familiar.centres], axis=0)
    yield "Mahalanobis", nearest
    yield "relative Mahalanobis", nearest - mahalanobis(inside, familiar.overall)
    yield "outside the components", np.square(test).sum(1) - np.square(inside).sum(1)
    yield "5th neighbour, normalised", neighbour(unit(train), unit(test))
    yield "5th neighbour, components", neighbour(inside_train, inside)


def mahalanobis(rows: Array, precision: NDArray[np.float32]) -> Array:
    return np.einsum("ij,jk,ik->i", rows, precision, rows)


def unit(rows: Array) -> Array:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def neighbour(train: Array, test: Array, k: int = 5) -> Array:
    squared = np.square(test).sum(1)[:, None] + np.square(train).sum(1) - 2 * test @ train.T
    return np.sort(squared, axis=1)[:, k - 1]


def auroc(parts: list[tuple[Array, Array]]) -> float:
    known, unknown = (np.concatenate(side) for side in zip(*parts, strict=True))
    truth = np.r_[np.zeros(len(known)), np.ones(len(unknown))]
    return float(roc_auc_score(truth, np.r_[known, unknown]))


def format_tables(figures: Mapping[str, Mapping[str, list[Array]]]) -> Iterator[str]:
    """Yield a table of the AUROC per score and case, the mean over the sets, and one of the shares called unknown."""
    cases = list(figures)
    classes = [case for case in cases if case.startswith("without ")]
    names = list(figures[cases[0]])
    yield "| score | held-out class | " + " | ".join(cases) + " |"
    yield "|---|---|" + "---|" * len(cases)
    for name in names:
        whole = np.mean([found[0] for case in classes for found in figures[case][name]])
        cells = [f"{np.mean([found[0] for found in figures[case][name]]):.2f}" for case in cases]
        yield f"| {name} | **{whole:.3f}** | " + " | ".join(cells) + " |"
    yield ""
    ours = [np.mean(figures[case][OURS], axis=0) for case in cases]
    yield "| share | called unknown of | " + " | ".join(cases) + " |"
    yield "|---|---|" + "---|" * len(cases)
    for i, share in enumerate(SHARES):
        for j, whom in enumerate(("known clips, held out", "unknown clips")):
            cells = [f"{found[1 + j * len(SHARES) + i]:.1%}" for found in ours]
            yield f"| {share:.0%} | {whom} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    began = time.monotonic()
    main(standalone_mode=False)
    click.echo(f"\n{time.monotonic() - began:.0f} s")
