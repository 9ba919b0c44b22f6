"""Files of a search in the run's folder: a table of all trials and a plot."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from features.utils.files import write_atomically
from hazard.experiments.search.search import SearchResult, Trial
from hazard.experiments.search.space import format_value
from hazard.metrics import plots


def write_trials(folder: Path, trials: Sequence[Trial]) -> None:
    """Write trials.csv, one row per trial; `part` is the outer fold whose training clips were used.

    Raises RuntimeEnvironmentError if the file cannot be written.
    """
    names = list(dict.fromkeys(name for trial in trials for name in trial.parameters))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["part", "trial", *names, "value", "inner_folds", "state", "chosen"])
    for trial in trials:
        parameters = [_format_cell(trial.parameters.get(name)) for name in names]
        value = f"{trial.value:.6f}" if np.isfinite(trial.value) else ""
        writer.writerow(
            [trial.fold_name, trial.number, *parameters, value, trial.inner_folds, trial.state, int(trial.chosen)]
        )
    write_atomically(folder / "trials.csv", text.getvalue().encode())


def write_search_plot(folder: Path, searches: Sequence[SearchResult]) -> None:
    """Write trials.png; without any search remove the files that an earlier run left.

    Raises RuntimeEnvironmentError if the file cannot be written.
    """
    if not searches:
        for name in ("trials.csv", "trials.png"):
            (folder / name).unlink(missing_ok=True)
        return
    write_atomically(folder / "trials.png", plots.render_png(plot_searches(searches)))


def plot_searches(searches: Sequence[SearchResult]) -> Figure:
    """Plot the searches: left the value of each trial and the best so far, right the importance of each parameter."""
    names = _sort_by_importance(searches)
    figure = Figure(figsize=(11, max(4.8, 1.8 + 0.32 * len(names))), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    for number, search in enumerate(searches):
        _plot_progress(left, search, alpha=1.0 if len(searches) == 1 else 0.6, has_legend=number == 0)
    left.margins(x=0.1)  # room for the folds' names
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    objectives = list(dict.fromkeys(search.objective for search in searches))
    title = "Search" if len(searches) == 1 else f"{len(searches)} searches, on training clips only"
    left.set(xlabel="trial", ylabel=" / ".join(objectives), title=title)
    left.grid(axis="y", color="#dddddd")
    left.set_axisbelow(True)
    left.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)
    _plot_importances(right, searches, names)
    return figure


def _plot_progress(axes: Axes, search: SearchResult, *, alpha: float, has_legend: bool) -> None:
    """Draw the trials of one search and the best value so far.

    Trials that were ended early are only marked on the axis: their means cover fewer folds and cannot be compared.
    """
    complete = [trial for trial in search.trials if trial.state == "complete"]
    ended_early = [trial.number for trial in search.trials if trial.state != "complete"]
    names = ("complete trial", "ended early (no value)", "best so far") if has_legend else (None, None, None)
    numbers, values = [trial.number for trial in complete], [trial.value for trial in complete]
    axes.plot(numbers, values, "o", color=plots.BLUE, ms=4, alpha=alpha, label=names[0])
    floor = axes.get_xaxis_transform()
    axes.plot(
        ended_early,
        [0.02] * len(ended_early),
        "x",
        color=plots.GRAY,
        ms=5,
        alpha=alpha,
        label=names[1],
        transform=floor,
    )
    if complete:
        steps, best = [*numbers, len(search.trials) - 1], np.maximum.accumulate([*values, values[-1]])
        axes.step(steps, best, where="post", color=plots.VERMILION, lw=1.6, alpha=alpha, label=names[2])
        fold_text = (
            search.trials[0].fold_name
            if isinstance(search.trials[0].fold_name, str)
            else f"fold {search.trials[0].fold_name}"
        )
        axes.annotate(fold_text, (steps[-1], best[-1]), (4, 0), textcoords="offset points", va="center", fontsize=8)


def _plot_importances(axes: Axes, searches: Sequence[SearchResult], names: Sequence[str]) -> None:
    axes.set(xlabel="importance (PED-ANOVA, share)", title="Importance of each setting")
    importances = [search.importance for search in searches if search.importance]
    if not importances:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "too few trials", ha="center", va="center", transform=axes.transAxes, color=plots.GRAY)
        return
    for row, name in enumerate(names):
        shares = [importance.get(name, 0.0) for importance in importances]
        axes.barh(row, float(np.mean(shares)), color=plots.BLUE, height=0.62)
        if len(shares) > 1:
            axes.plot(shares, [row] * len(shares), "|", color="black", ms=8, label="one search" if not row else None)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    if len(importances) > 1:
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13))


def _sort_by_importance(searches: Sequence[SearchResult]) -> list[str]:
    names = dict.fromkeys(name for search in searches for name in search.importance)
    return sorted(names, key=lambda name: -sum(search.importance.get(name, 0.0) for search in searches))


def _format_cell(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else format_value(value)
