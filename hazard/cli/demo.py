"""The demo: extraction, training and inference on small synthetic clips or on the user's own folder."""

import csv
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from features.backbones.weights import find_weights
from features.cli.extract import extract_features
from features.errors import UserFacingError
from hazard.cli.infer import infer
from hazard.cli.train import train_temporal
from hazard.synthetic.clips import draw_dataset

CLASSES = {"normal": ("walk", "run"), "hazardous": ("fall", "fight")}
DOWNLOAD_SECONDS = 20.0


def run_demo(folder: Path, *, videos: Path | None, clips_per_class: int, seed: int, echo: Callable[[str], None]) -> int:
    """Extract features, train, and write a report on the test clips; draw clips first unless `videos` are given.

    Return the exit code of the report: 0, or 3 if a clip could not be read.
    """
    began = time.monotonic()
    source = videos or _draw_clips(folder, clips_per_class, seed, echo)
    weights = _choose_weights(echo)
    cache, model, report = folder / "features.h5", folder / "model", folder / "report"
    _run_command(extract_features, "extract_features.py", [source, "-o", cache, "--weights", weights], echo)
    _run_command(train_temporal, "train_temporal.py", [cache, "-o", model, "--seed", seed], echo)
    held_out = _write_held_out_manifest(source, model, folder)
    code = _run_command(infer, "infer.py", [held_out, "--model", model, "-o", report], echo)
    metrics = json.loads((model / "metrics.json").read_text(encoding="utf-8"))
    accuracy = metrics["accuracy"]
    echo("")
    if weights == "random":
        echo("The features come from RANDOM weights. For your own videos, use pretrained weights.")
    echo(f"accuracy on clips from scenes that were not used in training: {_format_interval(accuracy)}")
    echo(f"all three stages took {time.monotonic() - began:.0f} s")
    echo(f"report: {(report / 'report.html').resolve()}")
    echo(f"to analyse clips in a browser, run {_format_serve_command(folder)} and open http://127.0.0.1:8000")
    return code


def _format_serve_command(folder: Path) -> str:
    program = Path(sys.executable).with_name("hazard")
    hazard = os.path.relpath(program) if program.is_file() else f"{sys.executable} -m hazard"
    return f"{hazard} serve --model {folder / 'model'} --data {folder / 'serve'}"


def _draw_clips(folder: Path, clips_per_class: int, seed: int, echo: Callable[[str], None]) -> Path:
    echo(f"making {2 * clips_per_class} synthetic clips: {', '.join(CLASSES['normal'])} are normal, "
         f"{', '.join(CLASSES['hazardous'])} are hazardous")  # fmt: skip
    scenes = max(4, clips_per_class // 4)
    return draw_dataset(
        folder / "videos", classes=CLASSES, clips_per_class=clips_per_class, scenes=scenes, seed=seed, progress=True
    )


def _choose_weights(echo: Callable[[str], None]) -> str:
    """Return `auto` if pretrained weights can be found or downloaded; otherwise print a warning and return `random`."""
    socket.setdefaulttimeout(DOWNLOAD_SECONDS)
    try:
        find_weights("mobilenet_v2", "auto")
    except UserFacingError as error:
        echo(f"pretrained weights could not be found or downloaded: {error}")
        echo("the demo continues with RANDOM weights; no other command does this")
        return "random"
    finally:
        socket.setdefaulttimeout(None)
    return "auto"


def _run_command(command: click.Command, script: str, arguments: list[object], echo: Callable[[str], None]) -> int:
    words = [str(argument) for argument in arguments]
    echo(f"\n$ python {script} {' '.join(words)}")
    return int(command.main(words, standalone_mode=False) or 0)


def _write_held_out_manifest(source: Path, model: Path, folder: Path) -> Path:
    """Write a manifest of the test clips, so that the report only shows clips that the model was not trained on."""
    with open(model / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = [(row["path"], row["label"]) for row in csv.DictReader(file)]
    base = source.parent if source.is_file() else source
    manifest = folder / "held_out.csv"
    with open(manifest, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label"))
        writer.writerows((os.path.relpath(base / path, folder), label) for path, label in rows)
    return manifest


def _format_interval(metric: dict[str, float]) -> str:
    return f"{metric['value']:.2f} ({metric['low']:.2f} to {metric['high']:.2f}, 95 % interval)"
