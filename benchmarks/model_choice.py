"""How often the best of equal models is said to be better than the others, and what choosing it promises.

    python benchmarks/model_choice.py                 # 17 equal models, 300 draws, about five minutes on one core
    python benchmarks/model_choice.py --models 2

Each draw has 200 clips of 32 groups. All models are equally good: their scores share the difficulty of groups and clips
and differ by noise of their own. `pair` compares the best with each other model as if these two had been named before;
`among all` is what the leaderboard says. Both are shares of comparisons with p < .05, which should be .05 or less. Then
follow the mean ROC AUC of all models, that of the best, and that of `chosen_elsewhere`, which should be near the first.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click
import numpy as np

from hazard.data.splits import make_splits
from hazard.experiments.cross_validation import Evaluation
from hazard.experiments.evaluation_metrics import EvaluationMetrics, compute_metrics
from hazard.experiments.leaderboard import evaluate_model_choice
from hazard.experiments.significance import compare_with_best
from hazard.models.calibration import calibrate_at_temperature
from hazard.models.settings import TrainSettings
from hazard.types import Sequences

CLIPS, GROUPS, FOLDS, SIGNAL, OWN_NOISE = 200, 32, 5, 1.3, 0.6
SETTINGS = TrainSettings(positive_label="yes")


def draw_clips(rng: np.random.Generator) -> Sequences:
    """Draw labels and groups; the features are never used."""
    groups = np.sort(rng.integers(0, GROUPS, CLIPS))
    names = np.array([f"clip{i}" for i in range(CLIPS)])
    x, mask = np.zeros((CLIPS, 1, 1), np.float32), np.ones((CLIPS, 1), bool)
    y = rng.integers(0, 2, CLIPS)
    return Sequences(x, mask, y, np.array([f"g{g}" for g in groups]), names, np.full(CLIPS, ""), ("no", "yes"))


def draw_models(count: int, seed: int) -> tuple[Sequences, list[Evaluation], list[EvaluationMetrics]]:
    """Draw predictions of `count` equal models on the same folds, and measure them; the best first."""
    rng = np.random.default_rng(seed)
    clips = draw_clips(rng)
    splits = make_splits(clips, folds=FOLDS, seed=seed)
    rows = np.concatenate([fold.test for fold in splits.folds])
    folds = np.concatenate([np.full(len(fold.test), number) for number, fold in enumerate(splits.folds)])
    shared = (
        SIGNAL * (2 * clips.y - 1) / 2
        + rng.standard_normal(CLIPS)
        + 0.5 * rng.standard_normal(GROUPS + 1)[np.unique(clips.groups, return_inverse=True)[1]]
    )
    results = []
    for number in range(count):
        score = 1 / (1 + np.exp(-(shared + OWN_NOISE * rng.standard_normal(CLIPS))[rows]))
        probs = np.stack([1 - score, score], axis=1)
        calibrated = calibrate_at_temperature(probs, 1.0)
        results.append(
            Evaluation(f"m{number}", "head", rows, folds, np.zeros_like(rows), probs, calibrated, 0.0, 0, (), ())
        )
    measured = [compute_metrics(clips, result, SETTINGS) for result in results]
    order = sorted(range(count), key=lambda k: -measured[k].metrics["roc_auc"]["value"])
    return clips, [results[k] for k in order], [measured[k] for k in order]


@click.command()
@click.option("--models", default=17, show_default=True)
@click.option("--draws", default=300, show_default=True)
def main(models: int, draws: int) -> None:
    """Print the shares of p < .05 and the ROC AUC of choosing."""
    pair, among, values = [], [], []
    for seed in range(draws):
        clips, results, measured = draw_models(models, seed)
        splits = make_splits(clips, folds=FOLDS, seed=seed)
        among += [row["roc_auc_behind_p"] < 0.05 for row in compare_with_best(measured, splits)[1:]]
        pair += [compare_with_best([measured[0], m], splits)[1]["roc_auc_behind_p"] < 0.05 for m in measured[1:]]
        areas = [m.metrics["roc_auc"]["value"] for m in measured]
        chosen = evaluate_model_choice(clips, results, SETTINGS)
        assert chosen is not None
        values.append((np.mean(areas), areas[0], chosen["roc_auc"]["value"]))
    every, best, elsewhere = np.mean(values, axis=0)
    click.echo(
        f"{models} equal models, {draws} draws: p < .05 as a pair {np.mean(pair):.3f}, among all {np.mean(among):.3f}"
    )
    click.echo(f"ROC AUC: mean {every:.3f}, of the best {best:.3f}, chosen elsewhere {elsewhere:.3f}")


if __name__ == "__main__":
    main()
