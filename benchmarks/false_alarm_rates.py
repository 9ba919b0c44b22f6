"""The true rate of false alarms against the target that a threshold was chosen for, by the size of the data.

    python benchmarks/false_alarm_rates.py        # about half a minute on one core

Scores are drawn from two normal distributions (ROC AUC 0.87), so the true rate of any threshold is known exactly.
"clips" and "hours" are the harmless ones; there are as many hazardous clips. "measured": the lowest threshold whose
measured rate is within the target. "bound": that of `find_operating_point`, which keeps an upper bound of the rate
within the target; training refuses targets that the hours cannot support. "over" is the share of the draws whose true
rate is above the target.
"""

import math
from dataclasses import dataclass

import click
import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from hazard.metrics.operating_points import (
    TARGET_FALSE_ALARMS_PER_HOUR,
    find_operating_point,
    hours_needed,
)

DISTANCE = 1.6  # between the means of the two distributions: ROC AUC 0.87


@dataclass(frozen=True)
class Case:
    """A data set of this many harmless clips and as many hazardous ones."""

    clips: int
    seconds: float

    @property
    def hours(self) -> float:
        """Return the hours of harmless video."""
        return self.clips * self.seconds / 3600


CASES = [Case(clips, seconds) for clips in (8, 100, 1000) for seconds in (2.0, 10.0)]


@click.command(help=__doc__)
@click.option("--draws", default=1000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(draws: int, seed: int) -> None:
    """Print one row a case and target."""
    click.echo("| clips | seconds | hours | target | measured: true rate | over | bound: true rate | over | recall |")
    click.echo("|---|---|---|---|---|---|---|---|---|")
    for case in CASES:
        for target in (*TARGET_FALSE_ALARMS_PER_HOUR, 300.0):
            click.echo(_format_row(case, target, draws, np.random.default_rng(seed)))


def _format_row(case: Case, target: float, draws: int, rng: np.random.Generator) -> str:
    hazardous = np.arange(2 * case.clips) % 2 == 0  # (N,)
    durations = np.full(len(hazardous), case.seconds)
    thresholds = np.empty((draws, 2))
    recalls = np.empty((draws, 2))
    for draw in range(draws):
        score = norm.cdf(rng.normal(size=len(hazardous)) + DISTANCE * hazardous)  # (N,) between 0 and 1
        thresholds[draw] = (
            _find_measured_threshold(hazardous, score, case.hours, target),
            find_operating_point(hazardous, score, durations, target=target).threshold,
        )
        recalls[draw] = 1 - norm.cdf(norm.ppf(thresholds[draw]) - DISTANCE)
    rates = (1 - thresholds) * 3600 / case.seconds  # (draws, 2): harmless scores are uniform
    over = (rates > target).mean(axis=0)
    cells = [f"{case.clips} | {case.seconds:g} | {case.hours:.3f} | {target:g}"]
    cells.append(f"{rates[:, 0].mean():.1f} | {over[0]:.0%}")
    supported = case.hours >= hours_needed(target)
    cells.append(
        f"{rates[:, 1].mean():.2f} | {over[1]:.1%} | {recalls[:, 1].mean():.2f} (was {recalls[:, 0].mean():.2f})"
        if supported
        else f"refused: needs {hours_needed(target):.2f} h | – | –"
    )
    return f"| {' | '.join(cells)} |"


def _find_measured_threshold(
    hazardous: NDArray[np.bool_], score: NDArray[np.float64], hours: float, target: float
) -> float:
    """Return the threshold midway below the lowest score whose measured rate is within the target."""
    allowed = math.floor(target * hours + 1e-9)
    harmless = np.sort(score[~hazardous])[::-1]
    if allowed >= len(harmless):
        return float(score.min())
    above = score[score > harmless[allowed]]
    return float(((above.min() if len(above) else 1.0) + harmless[allowed]) / 2)


if __name__ == "__main__":
    main()
