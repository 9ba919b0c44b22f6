"""How often "95 %" intervals hold the truth, by the number of groups: several kinds of intervals, drawn predictions.

    python benchmarks/interval_coverage.py                      # about three minutes on two cores
    python benchmarks/interval_coverage.py --world one-label    # each group has clips of one label only
    python benchmarks/interval_coverage.py --world alike        # up to 40 clips a group, which are more alike

Each draw has G groups of 1 to 12 clips. Each group shifts the scores of its clips and has a difficulty of its own, and
two groups of five have one label only. The truth is the metric of 20,000 groups. A cell of the tables is the share of
draws whose interval holds it, then the mean width. Draws without a value (one label) or an interval do not count.

`effective` is the interval of `hazard.metrics.intervals`. The others are the ones that it was chosen from.
"""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hazard.metrics import bootstrap
from hazard.metrics.intervals import SampleSize, compute_interval, measure_sample

Array = NDArray[np.float64]
Interval = tuple[float, float]
GROUPS = (3, 5, 6, 8, 16, 32, 100)
LEVELS = (0.65, 0.85, 0.97)
METRICS = ("accuracy", "roc_auc")
ROUNDING = 1e-9
TRUTH_GROUPS = 20_000


@dataclass(frozen=True)
class World:
    """How predictions are drawn."""

    clips: int
    """Most clips of a group."""
    shift: float
    """Standard deviation of a group's shift of all scores; a clip's is one."""
    difficulty: float
    """Standard deviation of the logarithm of a group's distance between the labels."""
    one_label: float
    """Share of groups with one label only."""


WORLDS = {"usual": World(12, 0.5, 0.5, 0.4), "one-label": World(12, 0.5, 0.5, 1.0), "alike": World(40, 1.0, 0.7, 0.4)}


@dataclass(frozen=True)
class Predictions:
    """Drawn predictions of N clips: labels, scores and groups."""

    y: NDArray[np.int64]  # (N,)
    probs: Array  # (N, 2)
    groups: NDArray[np.int64]  # (N,)


@dataclass(frozen=True)
class Drawn:
    """A metric of drawn predictions: its value, its bootstrap draws (R,), and its values without each group (G,)."""

    value: float
    draws: Array
    left_out: Array
    metric: str
    sample: SampleSize


def percentile(drawn: Drawn) -> Interval:
    low, high = np.nanquantile(drawn.draws, [0.025, 0.975])
    return float(low), float(high)


def bca(drawn: Drawn) -> Interval:
    """Bias-corrected and accelerated (Efron 1987)."""
    draws = drawn.draws[np.isfinite(drawn.draws)]
    share = (np.mean(draws < drawn.value) + np.mean(draws <= drawn.value)) / 2
    bias = stats.norm.ppf(np.clip(share, 1 / len(draws), 1 - 1 / len(draws)))
    gaps = np.nanmean(drawn.left_out) - drawn.left_out[np.isfinite(drawn.left_out)]
    spread = float(np.sum(gaps**2)) ** 1.5
    speed = float(np.sum(gaps**3)) / (6 * spread) if spread > 0 else 0.0
    z = bias + stats.norm.ppf([0.025, 0.975])
    low, high = np.quantile(draws, stats.norm.cdf(bias + z / (1 - speed * z)))
    return float(low), float(high)


def expanded_percentile(drawn: Drawn) -> Interval:
    """Percentiles further out, by the t distribution and the bootstrap's narrowness (Hesterberg 2015)."""
    tail = stats.norm.cdf(-expansion(drawn.sample.groups) * stats.norm.ppf(0.975))
    low, high = np.nanquantile(drawn.draws, [tail, 1 - tail])
    return float(low), float(high)


def jackknife_t_logit(drawn: Drawn) -> Interval:
    """Jackknife over groups, t with G - 1 degrees of freedom on the logit scale."""
    left_out = drawn.left_out[np.isfinite(drawn.left_out)]
    error = float(np.sqrt((len(left_out) - 1) * np.var(left_out)))
    v = min(max(drawn.value, 1e-9), 1 - 1e-9)
    margin = stats.t.ppf(0.975, drawn.sample.groups - 1) * error / (v * (1 - v))
    low, high = 1 / (1 + np.exp(-(np.log(v / (1 - v)) + np.array([-margin, margin]))))
    return float(low), float(high)


def jackknife_t_arcsine(drawn: Drawn) -> Interval:
    """Jackknife over groups, t with G - 1 degrees of freedom on the arcsine scale."""
    left_out = np.arcsin(np.sqrt(drawn.left_out[np.isfinite(drawn.left_out)]))
    middle = float(np.arcsin(np.sqrt(drawn.value)))
    margin = stats.t.ppf(0.975, drawn.sample.groups - 1) * float(np.sqrt((len(left_out) - 1) * np.var(left_out)))
    low, high = np.sin(np.clip([middle - margin, middle + margin], 0, np.pi / 2)) ** 2
    return float(low), float(high)


def effective(drawn: Drawn) -> Interval:
    """Wilson's, on the effective number of clips, t with G - 1 degrees of freedom; NaN if there is none."""
    found = compute_interval(drawn.metric, drawn.value, {drawn.metric: drawn.draws}, drawn.sample)
    return float(found["low"]), float(found["high"])


def expansion(groups: int) -> float:
    return float(np.sqrt(groups / (groups - 1)) * stats.t.ppf(0.975, groups - 1) / stats.norm.ppf(0.975))


CANDIDATES: dict[str, Callable[[Drawn], Interval]] = {
    "percentile": percentile,
    "BCa": bca,
    "expanded": expanded_percentile,
    "jack-t logit": jackknife_t_logit,
    "jack-t arcsine": jackknife_t_arcsine,
    "effective": effective,
}


def draw_predictions(rng: np.random.Generator, groups: int, distance: float, world: World) -> Predictions:
    """Draw predictions whose labels are about `distance` apart."""
    sizes = rng.integers(1, world.clips + 1, size=groups)
    unit = np.repeat(np.arange(groups), sizes)
    share = np.where(rng.random(groups) < world.one_label, rng.integers(2, size=groups), 0.5)
    y = (rng.random(len(unit)) < share[unit]).astype(np.int64)
    apart = distance * np.exp(world.difficulty * rng.normal(size=groups))[unit]
    score = (y - 0.5) * apart + world.shift * rng.normal(size=groups)[unit] + rng.normal(size=len(unit))
    p = 1 / (1 + np.exp(-score))
    return Predictions(y, np.stack([1 - p, p], axis=1), unit)


def measure(predictions: Predictions, weights: bootstrap.DrawWeights, metric: str) -> Array:
    return bootstrap.headline_metrics(predictions.y, predictions.probs, weights, positive=1)[metric]


def compute_truth(distance: float, metric: str, world: World) -> float:
    many = draw_predictions(np.random.default_rng(1), TRUTH_GROUPS, distance, world)
    if metric == "accuracy":
        return float(np.mean((many.probs[:, 1] >= 0.5) == many.y))
    ranks = stats.rankdata(many.probs[:, 1])
    p, n = int(many.y.sum()), int((1 - many.y).sum())
    return float((ranks[many.y == 1].sum() - p * (p + 1) / 2) / (p * n))


def find_distance(level: float, metric: str, world: World) -> tuple[float, float]:
    """Return the distance between the labels at which the metric is about `level`, and the metric's true value."""
    low, high = 0.0, 30.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if compute_truth(middle, metric, world) < level else (low, middle)
    return low, compute_truth(low, metric, world)


def run_cell(cell: tuple[int, str, float, float, int, World]) -> dict[str, Array | None]:
    """Return the coverage and the mean width (2,) of each candidate in one cell; None without any interval."""
    groups, metric, distance, truth, draws, world = cell
    rng = np.random.default_rng([groups, METRICS.index(metric), int(1000 * truth)])
    found: dict[str, list[tuple[bool, float]]] = {name: [] for name in CANDIDATES}
    while len(found["percentile"]) < draws:
        predictions = draw_predictions(rng, groups, distance, world)
        if len(np.unique(predictions.y)) < 2:
            continue
        clips = len(predictions.y)
        value = measure(predictions, bootstrap.make_unit_weights(clips), metric)[0]
        left_out = measure(predictions, bootstrap.DrawWeights(predictions.groups, 1 - np.eye(groups)), metric)
        resampled = measure(predictions, bootstrap.draw_groups(predictions.groups), metric)
        sample = measure_sample(predictions.y, predictions.groups, classes=2, positive=1)
        drawn = Drawn(value, resampled, left_out, metric, sample)
        for name, candidate in CANDIDATES.items():
            low, high = candidate(drawn)
            if np.isfinite(low):
                found[name].append((low - ROUNDING <= truth <= high + ROUNDING, high - low))
    return {name: np.mean(each, axis=0) if each else None for name, each in found.items()}


@click.command()
@click.option("--draws", default=300, show_default=True)
@click.option("--world", "name", type=click.Choice(list(WORLDS)), default="usual", show_default=True)
@click.option("--workers", default=2, show_default=True)
def main(draws: int, name: str, workers: int) -> None:
    """Print one table a metric and level."""
    world = WORLDS[name]
    with ProcessPoolExecutor(workers) as pool:
        for metric, level in product(METRICS, LEVELS):
            distance, truth = find_distance(level, metric, world)
            cells = list(pool.map(run_cell, [(g, metric, distance, truth, draws, world) for g in GROUPS]))
            click.echo(f"\n{metric}, truth {truth:.3f}\n\n| groups | " + " | ".join(CANDIDATES) + " |")
            click.echo("|" + "---|" * (len(CANDIDATES) + 1))
            for groups, cell in zip(GROUPS, cells, strict=True):
                row = ["none" if each is None else f"{each[0]:.2f}, {each[1]:.2f}" for each in cell.values()]
                click.echo(f"| {groups} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
