"""Which metric most often tells the better of two models, by the number of labels.

    python benchmarks/ranking_metrics.py              # about two minutes on one core

Two models predict the same test clips. Their logits are a signal, noise that both share (some clips are hard for every
model), and noise of their own, normal or with heavy tails. The second signal is 6 % stronger. The better model is the
one with the higher accuracy on 20,000 further clips. Temperatures are fitted first, so that no model wins by modesty.
A cell is the share of draws in which a metric prefers the better model; a tie counts half.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click
import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from hazard.models.calibration import apply_temperature, fit_temperature

SIZES = ((3, 200, 2.2), (5, 200, 2.5), (15, 568, 3.2), (15, 568, 4.5))
"""Labels, test clips, and size of the signal of the weaker model."""
FURTHER_CLIPS, STRONGER, SHARED, OWN = 20_000, 1.06, 0.8, 0.6
METRICS = ("accuracy", "balanced accuracy", "log likelihood", "mean ROC AUC")

Array = NDArray[np.float64]


def draw_logits(y: NDArray[np.int64], shared: Array, signal: float, heavy: bool, rng: np.random.Generator) -> Array:
    """Draw the logits (N, K) of one model for clips y (N,), whose common difficulty is `shared` (N, K)."""
    own = rng.standard_t(3, shared.shape) / np.sqrt(3) if heavy else rng.standard_normal(shared.shape)
    logits = SHARED * shared + OWN * own
    logits[np.arange(len(y)), y] += signal
    return logits


def measure(y: NDArray[np.int64], logits: Array) -> list[float]:
    """Return the METRICS of logits (N, K), calibrated, for labels y (N,)."""
    probs = softmax(logits, axis=1)
    probs = apply_temperature(probs, fit_temperature(probs, y))
    hits, labels = probs.argmax(1) == y, np.unique(y)
    likelihood = float(np.log(np.maximum(probs[np.arange(len(y)), y], 1e-12)).mean())
    areas = [roc_auc_score(y == label, probs[:, label]) for label in labels]
    recalls = [hits[y == label].mean() for label in labels]
    return [float(hits.mean()), float(np.mean(recalls)), likelihood, float(np.mean(areas))]


@click.command()
@click.option("--draws", default=120, show_default=True)
def main(draws: int) -> None:
    """Print one row for each size."""
    click.echo("| labels, clips, accuracy | " + " | ".join(METRICS) + " |\n|---|" + "---|" * len(METRICS))
    for labels, clips, signal in SIZES:
        preferred, accuracies = np.zeros(len(METRICS)), []
        for seed in range(draws):
            rng = np.random.default_rng(seed)
            y, further = rng.integers(0, labels, clips), rng.integers(0, labels, FURTHER_CLIPS)
            shared, shared_further = (rng.standard_normal((len(each), labels)) for each in (y, further))
            measured, true = [], []
            for number in range(2):
                strength, heavy = signal * (STRONGER if number else 1), seed % 2 == 1 and number == seed // 2 % 2
                measured.append(measure(y, draw_logits(y, shared, strength, heavy, rng)))
                logits = draw_logits(further, shared_further, strength, heavy, rng)
                true.append(float((logits.argmax(1) == further).mean()))
            sign = 1 if true[1] > true[0] else -1
            difference = sign * (np.array(measured[1]) - measured[0])
            preferred += np.where(difference == 0, 0.5, difference > 0)
            accuracies += true
        cells = " | ".join(f"{share:.2f}" for share in preferred / draws)
        click.echo(f"| {labels}, {clips}, {np.mean(accuracies):.2f} | {cells} |")


if __name__ == "__main__":
    main()
