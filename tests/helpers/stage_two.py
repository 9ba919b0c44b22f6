"""Runs all of stage two in one process, on features made of random numbers, and prints the exit code of each command.

As a program: `python -m tests.helpers.stage_two FOLDER`. On Linux the process lacks what Windows lacks.
"""

import importlib
import json
import pkgutil
import sys
from importlib.util import find_spec
from pathlib import Path

if sys.platform == "linux" and __name__ == "__main__":
    from tests.helpers.windows_like import lack_what_windows_lacks

    lack_what_windows_lacks(Path(sys.argv[1]).resolve())

import click
import numpy as np

WINGS = (
    *("features.cache", "features.utils", "features.encoders.devices", "features.cli.manage"),
    *("hazard.utils", "hazard.metrics", "hazard.data", "hazard.models", "hazard.training", "hazard.experiments"),
    *("hazard.events", "hazard.report", "hazard.inference", "hazard.cli.train", "hazard.cli.infer"),
)
"""Packages and modules of stage two. All of their modules can be imported."""
LABELS = ("тихо", "wütend")
CLIPS = 8


def import_stage_two() -> None:
    """Import every module of stage two."""
    for name in WINGS:
        module = importlib.import_module(name)
        if hasattr(module, "__path__"):
            for found in pkgutil.walk_packages(module.__path__, f"{name}."):
                importlib.import_module(found.name)


def write_arrays(folder: Path) -> Path:
    """Write one .npy file of 5 steps with 16 features for each clip, in a folder per label."""
    random = np.random.default_rng(0)
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for i in range(CLIPS):
            drift = np.arange(5)[:, None] * (label == LABELS[0])
            np.save(folder / label / f"v_{label}_g{i:02d}_c01.npy", random.normal(size=(5, 16)).astype("f4") + drift)
    return folder


def list_commands(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the commands, by a short name, with their arguments."""
    cache, merged, model = (str(folder / name) for name in ("c.h5", "m.h5", "model"))
    train = ("train", cache, "--folds", "2", "--epochs", "2")
    commands = {
        "import": ("import", str(write_arrays(folder / "arrays")), "-o", cache),
        "inspect": ("inspect", cache),
        "verify": ("verify", cache, str(folder / "arrays")),
        "reduce": ("reduce", cache, "-o", str(folder / "r.h5"), "--reduce", "pca:4"),
        "merge": ("merge", cache, "-o", merged),
        "merge into an input": ("merge", merged, cache, "-o", merged),
        "import again": ("import", str(folder / "arrays"), "-o", cache),
        "export": ("export", merged, "-o", str(folder / "exported")),
        "train": (*train, "-o", model, "--set", "members=1"),
        "resume": (*train, "-o", model, "--set", "members=1", "--resume"),
        "ensemble": (*train, "-o", str(folder / "ensemble"), "--ensemble", "gru,ridge"),
        "compare": (*train[:-1], "1", "-o", str(folder / "compared"), "--compare", "--set", "members=1"),
    }
    if find_spec("pyarrow"):
        commands["export Parquet"] = ("export", merged, "-o", str(folder / "table"), "--format", "parquet")
    if find_spec("optuna"):
        commands["tune"] = (*train, "-o", str(folder / "tuned"), "--set", "members=1", "--tune", "2")
    return commands


def run_one(command: click.Command, arguments: tuple[str, ...]) -> int | str:
    """Run a command as a program and return its exit code, or the error that came out of it."""
    from features.utils.command_line import run_command

    try:
        run_command(command, list(arguments))
    except SystemExit as ended:
        return int(ended.code or 0)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no exit"


def main(folder: Path) -> None:
    """Run everything in an empty folder and print one JSON object as the last line."""
    import_stage_two()
    from features.cli.manage import features
    from hazard.cli.train import train_temporal
    from hazard.models.model_folder import open_model
    from tests.helpers.data.predictions import make_clip, make_failed_clip, write_test_report

    codes: dict[str, int | str] = {}
    for name, (word, *rest) in list_commands(folder).items():
        command, arguments = (train_temporal, rest) if word == "train" else (features, [word, *rest])
        codes[name] = run_one(command, tuple(arguments))
    if not codes["train"]:
        open_model(folder / "model")
    for _ in range(2):  # the second replaces the first
        write_test_report(folder / "report", [make_clip(), make_failed_clip()])
    print(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
