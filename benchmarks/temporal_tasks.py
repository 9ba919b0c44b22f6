"""Tasks whose answer is known to lie in order, in appearance or in both: every head, ridge and a plain LSTM.

    python benchmarks/temporal_tasks.py                                   # all tasks and models, one thread
    python benchmarks/temporal_tasks.py --task order200 --model lstm --model plain --seed 100 --seed 101

A row is a model, a column a task: test accuracy and CPU seconds of training, averaged over the seeds. The plain LSTM
is what a reader would write in forty lines: a recurrent layer, the mean of its states, a linear layer, and Adam. Each
task is drawn so that the plain LSTM nearly solves it. A head of ours that does worse has a fault.

Settings of heads were chosen on seeds below 100. The defaults here, from 100 on, are kept for the final figures.
"""

import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hazard.data.splits import Fold, make_inner_split
from hazard.models.baselines import BASELINES
from hazard.models.heads import HEADS
from hazard.models.predictor import predict_probs
from hazard.models.settings import TrainSettings
from hazard.training.fit import fit
from hazard.types import Sequences

Array = NDArray[np.float32]
Cells = dict[tuple[str, str], list[tuple[float, float]]]
"""Model and task → accuracy and CPU seconds of each seed."""
TEST_CLIPS = 2_000
DEFAULT_SEEDS = (100, 101)
PLAIN_HIDDEN, PLAIN_STEPS, PLAIN_BATCH, PLAIN_LR = 64, 1_500, 32, 3e-3


@dataclass(frozen=True)
class Task:
    """One task: its number of training clips and its generator."""

    train: int
    draw: Callable[[int, np.random.Generator], tuple[Array, NDArray[np.int64]]]
    """Function from a number of clips and a source of random numbers to x (B, T, D) and labels (B,)."""


def draw_steps(rng: np.random.Generator, steps: int) -> tuple[int, int]:
    """Draw two of `steps` steps, the earlier one first, at least a quarter of the clip apart."""
    gap = rng.integers(steps // 4, steps)
    first = rng.integers(0, steps - gap)
    return int(first), int(first + gap)


def draw_order(
    clips: int, rng: np.random.Generator, *, steps: int, width: int, strength: float, ends: bool = False
) -> tuple[Array, NDArray[np.int64]]:
    """Draw clips in which two events happen, each at one step; the label is which of them came first.

    The events are fixed directions of length `strength` in noise of variance one. They happen at any two steps, or at
    the first and the last with `ends`.
    """
    events = rng.standard_normal((2, width))
    events *= strength / np.linalg.norm(events, axis=1, keepdims=True)
    x = rng.standard_normal((clips, steps, width), np.float32)  # (B, T, D)
    y = rng.integers(0, 2, clips)
    for i in range(clips):
        first, second = (0, steps - 1) if ends else draw_steps(rng, steps)
        x[i, first] += events[y[i]]
        x[i, second] += events[1 - y[i]]
    return x, y


def draw_looks_and_order(
    clips: int, rng: np.random.Generator, *, steps: int, width: int, strength: float, look: float
) -> tuple[Array, NDArray[np.int64]]:
    """Draw clips of four labels: two looks, which differ at all steps by the length 2 × `look`, times two orders."""
    x, order = draw_order(clips, rng, steps=steps, width=width, strength=strength)
    looks = rng.integers(0, 2, clips)
    direction = rng.standard_normal(width)
    direction *= look / np.linalg.norm(direction)
    x += ((2 * looks - 1)[:, None] * direction)[:, None].astype(np.float32)
    return x, 2 * looks + order


def draw_appearance(
    clips: int, rng: np.random.Generator, *, steps: int, width: int, classes: int, look: float
) -> tuple[Array, NDArray[np.int64]]:
    """Draw clips of labels that differ by a constant of length `look` alone; nothing happens in time."""
    directions = rng.standard_normal((classes, width))
    directions *= look / np.linalg.norm(directions, axis=1, keepdims=True)
    y = rng.integers(0, classes, clips)
    x = rng.standard_normal((clips, steps, width), np.float32) + directions[y].astype(np.float32)[:, None]
    return x, y


TASKS = {
    "order200": Task(200, partial(draw_order, steps=12, width=64, strength=15.0)),
    "order2000": Task(2_000, partial(draw_order, steps=12, width=64, strength=15.0)),
    "ends": Task(200, partial(draw_order, steps=64, width=64, strength=6.0, ends=True)),
    "looks": Task(1_000, partial(draw_looks_and_order, steps=12, width=512, strength=12.0, look=4.0)),
    "appearance": Task(600, partial(draw_appearance, steps=12, width=256, classes=15, look=2.6)),
}
"""Name → task."""


def draw_task(name: str, seed: int) -> tuple[Sequences, Fold]:
    """Draw the clips of a task, each its own group, and the fold of its training, validation and test clips."""
    task = TASKS[name]
    x, y = task.draw(task.train + TEST_CLIPS, np.random.default_rng(seed))
    names = np.array([f"clip{i}.mp4" for i in range(len(x))])
    mask = np.ones(x.shape[:2], bool)
    labels = tuple(f"label{k}" for k in range(int(y.max()) + 1))
    sequences = Sequences(x, mask, y, names, names, np.full(len(x), ""), labels)
    rows = np.arange(len(x))
    return sequences, Fold(*make_inner_split(sequences, rows[: task.train], seed=seed), test=rows[task.train :])


class PlainLstm(nn.Module):
    """An LSTM, the mean of its states and a linear layer."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, PLAIN_HIDDEN, batch_first=True)
        self.classify = nn.Linear(PLAIN_HIDDEN, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) of x (B, T, D)."""
        return self.classify(self.lstm(x)[0].mean(1))


def fit_plain_lstm(sequences: Sequences, fold: Fold, seed: int) -> PlainLstm:
    """Train the plain LSTM on all training clips, for a fixed number of steps."""
    torch.manual_seed(seed)
    rows = np.concatenate([fold.train, fold.val])
    x, y = torch.from_numpy(sequences.x[rows]), torch.from_numpy(sequences.y[rows])
    model = PlainLstm(x.shape[2], len(sequences.labels))
    adam = torch.optim.Adam(model.parameters(), PLAIN_LR)
    for _ in range(math.ceil(PLAIN_STEPS * PLAIN_BATCH / len(x))):
        for batch in torch.randperm(len(x)).split(PLAIN_BATCH):
            adam.zero_grad()
            nn.functional.cross_entropy(model(x[batch].float()), y[batch]).backward()
            adam.step()
    return model


def measure(sequences: Sequences, fold: Fold, model: str, seed: int, overrides: dict[str, str]) -> tuple[float, float]:
    """Return the test accuracy of the named head, baseline or `plain`, and the CPU seconds of its training."""
    x, mask, y = sequences.x[fold.test], sequences.mask[fold.test], sequences.y[fold.test]
    start = time.process_time()
    if model == "plain":
        plain = fit_plain_lstm(sequences, fold, seed)
        seconds = time.process_time() - start
        with torch.inference_mode():
            return float((plain(torch.from_numpy(x)).argmax(1).numpy() == y).mean()), seconds
    kind = "head" if model in HEADS else "baseline"
    settings = TrainSettings.model_validate({kind: model, "seed": seed, "jobs": 1, "device": "cpu"} | overrides)
    fitted, _ = fit(sequences, fold, settings)
    seconds = time.process_time() - start
    return float((predict_probs(fitted, x, mask, len(sequences.labels)).argmax(1) == y).mean()), seconds


def print_table(tasks: Iterable[str], models: Iterable[str], cells: Cells) -> None:
    """Print one row a model: mean accuracy and CPU seconds of each task."""
    tasks = list(tasks)
    click.echo("| model | " + " | ".join(tasks) + " |\n|---" + "|---" * len(tasks) + "|")
    for model in models:
        parts = [np.mean(cells[model, task], axis=0) for task in tasks]
        click.echo(
            f"| {model} | " + " | ".join(f"{accuracy:.3f}, {seconds:.1f} s" for accuracy, seconds in parts) + " |"
        )


@click.command()
@click.option("--task", "tasks", multiple=True, type=click.Choice(list(TASKS)), help="Tasks; all by default.")
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Choice(["plain", *HEADS, *BASELINES]),
    help="Models; by default every head, ridge, logistic regression and the plain LSTM.",
)
@click.option(
    "--seed", "seeds", multiple=True, type=int, help=f"Seeds of clips and models; {DEFAULT_SEEDS} by default."
)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Settings of heads other than the default."
)
def main(tasks: tuple[str, ...], models: tuple[str, ...], seeds: tuple[int, ...], overrides: tuple[str, ...]) -> None:
    """Train every model on every task and print accuracy and CPU seconds."""
    torch.set_num_threads(1)
    tasks, seeds = tasks or tuple(TASKS), seeds or DEFAULT_SEEDS
    models = models or ("plain", "ridge", "logistic_regression", *HEADS)
    given = dict(pair.split("=", 1) for pair in overrides)
    cells: Cells = {}
    for task in tasks:
        for seed in seeds:
            sequences, fold = draw_task(task, seed)
            for model in models:
                accuracy, seconds = measure(sequences, fold, model, seed, given)
                cells.setdefault((model, task), []).append((accuracy, seconds))
                click.echo(f"{task} seed {seed} {model}: {accuracy:.3f} in {seconds:.1f} s", err=True)
    print_table(tasks, models, cells)


if __name__ == "__main__":
    main()
