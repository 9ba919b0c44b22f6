"""The demo: extraction, training and inference on small synthetic clips or on the user's own folder."""

import csv
import json
import math
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from features.backbones.weights import find_weights
from features.cache.hdf5 import read_cache
from features.cache.parts import parts_folder
from features.cli.extract import extract_features
from features.errors import UserFacingError
from features.types import Clip
from features.utils.command_line import EXIT_FAILED_ITEMS, EXIT_OK
from features.utils.text import format_count
from hazard.cli.demo_clips import CLASSES, DemoClips, divide_own_clips, draw_demo_clips, get_groups, write_clips
from hazard.cli.infer import infer
from hazard.cli.train import train_temporal
from hazard.metrics.bootstrap import draw_groups
from hazard.metrics.intervals import Interval, compute_interval, measure_sample

MAX_FOLDS = 5
DOWNLOAD_SECONDS = 10.0
DRAWN_EXTRACTION = ["--fps", "12", "--size", "128", "--set", "fit=squash", "--pooling", "avg+max", "--reduce", "none"]
"""Motion at its true pace, read at the places where it shows most: this also works with random weights."""
DRAWN_TRAINING = ["--baseline", "ridge"]


@dataclass(frozen=True)
class DemoResult:
    """What the report found on clips that were not used in training."""

    right: int
    clips: int
    interval: Interval
    """95 % interval of the share of right clips, over groups."""
    groups: int
    false_alarms: int | None
    """None if there are no labels to compare events with."""


def run_demo(folder: Path, *, videos: Path | None, clips_per_class: int, seed: int, echo: Callable[[str], None]) -> int:
    """Extract features, train, and write a report on other clips; draw clips first unless `videos` are given.

    The training clips are evaluated on grouped folds. Return the exit code: 0, or 3 if a clip could not be read.
    """
    began = time.monotonic()
    clips = divide_own_clips(videos, seed) if videos else _draw_clips(folder, clips_per_class, seed, echo)
    weights = _choose_weights(echo)
    cache, model, report = folder / "features.h5", folder / "model", folder / "report"
    trained = write_clips(clips.training, folder / "training.csv")
    names = write_clips(clips.report, folder / "held_out.csv")
    extraction, training = ([], []) if videos else (DRAWN_EXTRACTION, DRAWN_TRAINING)
    folds = min(MAX_FOLDS, clips.training_groups)
    if not videos:
        _remove_cache(cache)
    arguments = [folder / "training.csv", "-o", cache, "--weights", weights, *extraction]
    codes = [
        _extract_only(trained, arguments, cache, echo),
        _run_command(
            train_temporal,
            "train_temporal.py",
            [cache, "-o", model, "--folds", folds, "--seed", seed, *training],
            echo,
        ),
        _run_command(infer, "infer.py", [folder / "held_out.csv", "--model", model, "-o", report], echo),
    ]
    echo("")
    echo(_describe_folds(model, folds, clips))
    echo(f"all stages took {time.monotonic() - began:.0f} s")
    echo(_describe_result(read_result(report, names), clips, weights))
    echo(f"report: {(report / 'report.html').resolve()}")
    echo(f"to analyse clips in a browser, run {_format_serve_command(folder)} and open http://127.0.0.1:8000")
    return EXIT_FAILED_ITEMS if EXIT_FAILED_ITEMS in codes else EXIT_OK


def read_result(report: Path, clips: Mapping[str, Clip]) -> DemoResult:
    """Return what a report found on `clips`, which are given by their names in it. Clips that failed do not count."""
    with open(report / "predictions.csv", newline="", encoding="utf-8") as file:
        predicted = {row["path"]: row["label"] for row in csv.DictReader(file) if row["status"] != "failed"}
    found = [clip for name, clip in clips.items() if name in predicted]
    hits = np.array([predicted[name] == clip.label for name, clip in clips.items() if name in predicted])
    groups = get_groups(found)
    evaluation = json.loads((report / "report.json").read_text(encoding="utf-8")).get("evaluation") or {}
    events = evaluation.get("events")
    return DemoResult(
        int(hits.sum()),
        len(hits),
        _compute_interval(hits, groups),
        len(set(groups)),
        None if events is None else int(events["false_alarms"]),
    )


def _compute_interval(hits: np.ndarray, groups: list[str]) -> Interval:
    """Return the 95 % interval of the share of hits, as in a report."""
    names, column = np.array(groups), np.zeros(len(hits), np.int64)
    sample = measure_sample(column, names, classes=1)
    if sample.explain_missing("accuracy"):
        return compute_interval("accuracy", math.nan, {}, sample)
    weights = draw_groups(names)
    draws = weights.sum_by(column, 1, hits.astype(float))[0] / weights.sum_by(column, 1)[0]
    return compute_interval("accuracy", float(hits.mean()), {"accuracy": draws}, sample)


def _describe_result(result: DemoResult, clips: DemoClips, weights: str) -> str:
    if not result.clips:
        return "found: no clip of the report could be read"
    of_groups = "" if clips.group_noun == "clip" else f"of {format_count(result.groups, clips.group_noun)} "
    alarms = "" if result.false_alarms is None else f"; {format_count(result.false_alarms, 'false alarm')}"
    share = f"{100 * result.right / result.clips:.0f} %"
    low, high = (100 * float(result.interval[end]) for end in ("low", "high"))
    reason = result.interval.get("reason")
    interval = f"no interval: {reason}" if reason else f"95 % interval {low:.0f} to {high:.0f} %"
    kind = "drawn clip" if clips.is_drawn else "clip"  # drawn clips are easier than real ones
    return (
        f"found: {result.right} of {format_count(result.clips, kind)} right ({share}, {interval}): "
        f"clips {of_groups}that were not used in training{alarms}{'; RANDOM weights' if weights == 'random' else ''}"
    )


def _describe_folds(model: Path, folds: int, clips: DemoClips) -> str:
    accuracy = json.loads((model / "metrics.json").read_text(encoding="utf-8"))["accuracy"]
    apart = "a clip" if clips.group_noun == "clip" else f"a {clips.group_noun}"
    return (
        f"training clips, each predicted by a model that was trained without it "
        f"({folds} folds, never splitting {apart}): "
        f"{100 * accuracy['value']:.0f} % right"
    )


def _format_serve_command(folder: Path) -> str:
    program = Path(sys.executable).with_name("hazard")
    hazard = os.path.relpath(program) if program.is_file() else f"{sys.executable} -m hazard"
    return f"{hazard} serve --model {folder / 'model'} --data {folder / 'serve'}"


def _draw_clips(folder: Path, clips_per_class: int, seed: int, echo: Callable[[str], None]) -> DemoClips:
    actions = "; ".join(f"{label}: {' or '.join(names)}" for label, names in CLASSES.items())
    echo(f"drawing {2 * clips_per_class} synthetic clips ({actions})")
    return draw_demo_clips(folder / "videos", clips_per_class, seed)


def _choose_weights(echo: Callable[[str], None]) -> str:
    """Return `auto` if pretrained weights can be found or downloaded; otherwise print a warning and return `random`."""
    echo(f"looking for pretrained weights; without a network this can wait {DOWNLOAD_SECONDS:.0f} s")
    socket.setdefaulttimeout(DOWNLOAD_SECONDS)
    try:
        find_weights("mobilenet_v2", "auto")
    except UserFacingError as error:
        echo(f"pretrained weights could not be found or downloaded: {str(error).partition('. ')[0]}")
        echo("the demo continues with RANDOM weights; no other command does this. "
             "For your own videos, use pretrained weights")  # fmt: skip
        return "random"
    finally:
        socket.setdefaulttimeout(None)
    return "auto"


def _extract_only(clips: Mapping[str, Clip], arguments: list[object], cache: Path, echo: Callable[[str], None]) -> int:
    """Extract `clips`; if the cache then holds others too, such as clips of the report, make it again."""
    code = _run_command(extract_features, "extract_features.py", arguments, echo)
    if set(read_cache(cache).clips.path.tolist()) <= clips.keys():
        return code
    echo(f"{cache} also holds clips of an earlier run that are not for training now; it is made again")
    _remove_cache(cache)
    return _run_command(extract_features, "extract_features.py", arguments, echo)


def _remove_cache(cache: Path) -> None:
    cache.unlink(missing_ok=True)
    shutil.rmtree(parts_folder(cache), ignore_errors=True)


def _run_command(command: click.Command, script: str, arguments: list[object], echo: Callable[[str], None]) -> int:
    words = [str(argument) for argument in arguments]
    echo(f"\n$ python {script} {' '.join(words)}")
    return int(command.main(words, standalone_mode=False) or 0)
