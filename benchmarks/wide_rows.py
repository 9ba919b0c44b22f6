"""Rows as wide as those of VGG16 or a ResNet: CPU time, memory and accuracy of a head, of ridge and of a plain LSTM.

    python benchmarks/wide_rows.py                     # each model in a process of its own, one thread
    python benchmarks/wide_rows.py --model lstm --model plain --seed 3

The rows have the shape of UCF101's first 15 classes: 1,442 training and 568 test clips of 25 × 4,096 float16 numbers,
none negative, most of them small. Clips of a group share a place; a class has a look and a direction in which it moves.
Memory is the largest resident size of the process minus what it had after its imports.
"""

import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click
import numpy as np
import torch
from numpy.typing import NDArray
from temporal_tasks import fit_plain_lstm

from hazard.data.splits import Fold, make_inner_split
from hazard.models.baselines import BASELINES
from hazard.models.heads import HEADS
from hazard.models.predictor import predict_probs
from hazard.models.settings import TrainSettings
from hazard.training.fit import fit
from hazard.types import Sequences

TRAIN, TEST, STEPS, WIDTH, CLASSES, CLIPS_A_GROUP = 1_442, 568, 25, 4_096, 15, 5
DEFAULT_MODELS = ("ridge", "lstm", "plain")
MIB = 1024


def draw_rows(seed: int) -> tuple[Sequences, Fold]:
    """Draw the clips, and the fold of their training, validation and test parts; no group lies in two parts."""
    rng = np.random.default_rng(seed)
    clips = TRAIN + TEST
    y = np.arange(clips) // CLIPS_A_GROUP % CLASSES
    groups = np.arange(clips) // CLIPS_A_GROUP
    looks = rng.standard_normal((CLASSES, WIDTH)) * (rng.random((CLASSES, WIDTH)) < 0.05)  # few channels tell
    moves = rng.standard_normal((CLASSES, WIDTH)) * (rng.random((CLASSES, WIDTH)) < 0.05)
    places = rng.standard_normal((groups.max() + 1, WIDTH), np.float32)
    x = np.empty((clips, STEPS, WIDTH), np.float16)
    time_course = np.sin(np.linspace(0, np.pi, STEPS))[:, None]
    for i in range(clips):
        noise = rng.standard_normal((STEPS, WIDTH), np.float32)
        clip = 0.6 * looks[y[i]] + places[groups[i]] + 0.5 * time_course * moves[y[i]] + 0.7 * noise - 1
        x[i] = np.maximum(clip, 0)  # as after a ReLU
    names = np.array([f"clip{i}.mp4" for i in range(clips)])
    labels = tuple(f"class{k:02}" for k in range(CLASSES))
    mask = np.ones((clips, STEPS), bool)
    sequences = Sequences(x, mask, y, np.array([f"g{g}" for g in groups]), names, np.full(clips, ""), labels)
    train = np.arange(TRAIN)
    test = np.arange(TRAIN, clips)
    return sequences, Fold(*make_inner_split(sequences, train, seed=seed), test=test)


def measure(model: str, seed: int) -> str:
    """Train one model; return its row of the table."""
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sequences, fold = draw_rows(seed)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    fitted = (
        fit_plain_lstm(sequences, fold, seed)
        if model == "plain"
        else fit(
            sequences,
            fold,
            TrainSettings.model_validate(
                {"head" if model in HEADS else "baseline": model, "seed": seed, "jobs": 1, "device": "cpu"}
            ),
        )[0]
    )
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    x, mask = sequences.x[fold.test], sequences.mask[fold.test]
    if model == "plain":
        with torch.inference_mode():
            scores: NDArray = fitted(torch.from_numpy(x).float()).numpy()  # type: ignore[operator]
    else:
        scores = predict_probs(fitted, x, mask, CLASSES)  # type: ignore[arg-type]
    accuracy = float((scores.argmax(1) == sequences.y[fold.test]).mean())
    sizes = f"{(loaded - imported) // MIB} MiB | {(peak - imported) // MIB} MiB"
    return f"| {model} | {accuracy:.3f} | {seconds:.1f} s | {sizes} |"


@click.command()
@click.option("--model", "models", multiple=True, type=click.Choice(["plain", *HEADS, *BASELINES]))
@click.option("--seed", default=100, show_default=True)
@click.option("--one", is_flag=True, hidden=True, help="Measure in this process.")
def main(models: tuple[str, ...], seed: int, one: bool) -> None:
    """Print accuracy, CPU seconds of training, and memory with the rows and at the peak."""
    torch.set_num_threads(1)
    if one:
        click.echo(measure(models[0], seed))
        return
    click.echo("| model | accuracy | CPU | the rows | at the peak |\n|---|---|---|---|---|")
    for model in models or DEFAULT_MODELS:
        command = [sys.executable, __file__, "--one", "--model", model, "--seed", str(seed)]
        click.echo(subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip())


if __name__ == "__main__":
    main()
