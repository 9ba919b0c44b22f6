"""What a search leaves in the run's folder: every trial as a row, and a picture."""

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
    """trials.csv, one row a trial; `part` is the outer fold whose training clips served. Raises EnvironmentStopped."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.parameters))
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["part", "trial", *names, "value", "inner_folds", "state", "chosen"])
    for trial in trials:
        drawn = [_format_cell(trial.parameters.get(name)) for name in names]
        value = f"{trial.value:.6f}" if np.isfinite(trial.value) else ""
        out.writerow([trial.fold_name, trial.number, *drawn, value, trial.inner_folds, trial.state, int(trial.chosen)])
    write_atomically(folder / "trials.csv", text.getvalue().encode())


def write_search_plot(folder: Path, searches: Sequence[SearchResult]) -> None:
    """trials.png; without any search none, nor what an earlier run left. Raises EnvironmentStopped."""
    if not searches:
        for name in ("trials.csv", "trials.png"):
            (folder / name).unlink(missing_ok=True)
        return
    write_atomically(folder / "trials.png", plots.render_png(plot_searches(searches)))


def plot_searches(searches: Sequence[SearchResult]) -> Figure:
    """Left the value of each trial and the best so far, a line a search; right how much each parameter mattered."""
    names = _sort_by_importance(searches)
    figure = Figure(figsize=(11, max(4.8, 1.8 + 0.32 * len(names))), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    for number, search in enumerate(searches):
        _plot_progress(left, search, alpha=1.0 if len(searches) == 1 else 0.6, has_legend=number == 0)
    left.margins(x=0.1)  # room for the folds' names
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    goals = list(dict.fromkeys(search.objective for search in searches))
    what = "Search" if len(searches) == 1 else f"{len(searches)} searches, on training clips alone"
    left.set(xlabel="trial", ylabel=" / ".join(goals), title=what)
    left.grid(axis="y", color="#dddddd")
    left.set_axisbelow(True)
    left.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)
    _plot_importances(right, searches, names)
    return figure


def _plot_progress(axes: Axes, search: SearchResult, *, alpha: float, has_legend: bool) -> None:
    """Trials that were ended early are marked on the axis: their means are of fewer folds, and not to be compared."""
    complete = [trial for trial in search.trials if trial.state == "complete"]
    ended = [trial.number for trial in search.trials if trial.state != "complete"]
    names = ("complete trial", "ended early (no value)", "best so far") if has_legend else (None, None, None)
    numbers, values = [trial.number for trial in complete], [trial.value for trial in complete]
    axes.plot(numbers, values, "o", color=plots.BLUE, ms=4, alpha=alpha, label=names[0])
    floor = axes.get_xaxis_transform()
    axes.plot(ended, [0.02] * len(ended), "x", color=plots.GREY, ms=5, alpha=alpha, label=names[1], transform=floor)
    if complete:
        steps, best = [*numbers, len(search.trials) - 1], np.maximum.accumulate([*values, values[-1]])
        axes.step(steps, best, where="post", color=plots.VERMILION, lw=1.6, alpha=alpha, label=names[2])
        part = (
            search.trials[0].fold_name
            if isinstance(search.trials[0].fold_name, str)
            else f"fold {search.trials[0].fold_name}"
        )
        axes.annotate(part, (steps[-1], best[-1]), (4, 0), textcoords="offset points", va="center", fontsize=8)


def _plot_importances(axes: Axes, searches: Sequence[SearchResult], names: Sequence[str]) -> None:
    axes.set(xlabel="importance (PED-ANOVA, share)", title="What made a difference")
    known = [search.importance for search in searches if search.importance]
    if not known:
        axes.set_yticks([])
        axes.text(
            0.5, 0.5, "too few trials to tell", ha="center", va="center", transform=axes.transAxes, color=plots.GREY
        )
        return
    for place, name in enumerate(names):
        shares = [each.get(name, 0.0) for each in known]
        axes.barh(place, float(np.mean(shares)), color=plots.BLUE, height=0.62)
        if len(shares) > 1:
            axes.plot(
                shares, [place] * len(shares), "|", color="black", ms=8, label="one search" if not place else None
            )
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    if len(known) > 1:
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13))


def _sort_by_importance(searches: Sequence[SearchResult]) -> list[str]:
    names = dict.fromkeys(name for search in searches for name in search.importance)
    return sorted(names, key=lambda name: -sum(search.importance.get(name, 0.0) for search in searches))


def _format_cell(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else format_value(value)
