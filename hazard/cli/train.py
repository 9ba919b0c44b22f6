"""The command `train-temporal`."""

from pathlib import Path

import click

from features.utils.command_line import EXIT_OK, run_command, stop_on_signals
from features.utils.settings import load_settings


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder of the model, such as runs/NAME.",
)
@click.option("--config", type=click.Path(path_type=Path), help="A YAML file; its section `train` is read.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Any setting; may be repeated.")
@click.option("--head", help="A name in HEADS. [lstm]")
@click.option("--baseline", help="A name in BASELINES, instead of a head.")
@click.option(
    "--ensemble",
    metavar="MODELS",
    help="Several models as one: seeds:5 of the head or baseline that is set, NAME[:SEEDS][=WEIGHT],… or heads.",
)
@click.option("--keep", type=click.Choice(["refit", "folds"]), help="Save a refit on all clips, or the folds' models.")
@click.option("--compare", is_flag=True, help="Every head and baseline on the same folds: leaderboard.csv and a plot.")
@click.option("--folds", type=click.IntRange(2), help="So many folds, which never split a group.")
@click.option("--repeats", type=click.IntRange(1), help="Draw the folds so many times and average. [1]")
@click.option("--split", metavar="FILE|COLUMN", help="A CSV file (path, split), or `split` for the cache's own column.")
@click.option(
    "--split-files", type=click.Path(path_type=Path), help="A folder of UCF101's or HMDB51's lists: all splits in turn."
)
@click.option(
    "--show-leak",
    "random_folds",
    is_flag=True,
    default=None,
    help="Measure on random folds too, and say the difference.",
)
@click.option(
    "--labels",
    "labels_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="CORRECTIONS.csv",
    help="Labels (path, label, start, end) that outrank the cache's, such as a review of a report writes.",
)
@click.option("--epochs", type=click.IntRange(1), help="At most so many passes over the training clips. [30]")
@click.option("--batch-size", type=click.IntRange(1), help="Clips a training step. [by the number of clips]")
@click.option("--lr", type=float, help="Highest learning rate. [1e-3]")
@click.option("--seed", type=click.IntRange(0), help="Of splits, initial weights and batches. [0]")
@click.option(
    "--false-alarms-per-hour",
    type=click.FloatRange(min=0),
    metavar="F",
    help="Save the lowest threshold that raises no more of them an hour of harmless video. [threshold 0.5]",
)
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), help="Arithmetic of training. [fp32]")
@click.option("--tune", type=click.IntRange(1), metavar="N", help="N trials of a search on inner folds, for each fold.")
@click.option("--tracker", metavar="none|tensorboard|wandb|mlflow", help="Where curves are sent as well. [none]")
@click.option("--device", metavar="auto|cpu|cuda[:N]", help="Where heads are trained. [auto]")
@click.option("--resume", is_flag=True, help="Go on with what an interrupted run of the same command left behind.")
def train_temporal(
    cache: Path,
    output: Path,
    config: Path | None,
    overrides: tuple[str, ...],
    compare: bool,
    resume: bool,
    **flags: object,
) -> int:
    """Train a temporal head, or a baseline, on the feature cache CACHE and measure it on clips it has not seen.

    Without --folds or --split the cache's own split column is used, and where there is none a grouped hold-out.
    """
    if flags["head"] and flags["baseline"]:
        raise click.UsageError("give either --head or --baseline, not both")
    # Imported here: `--help` answers at once.
    from hazard.models.settings import TrainSettings

    if flags["head"]:
        overrides = (*overrides, "baseline=null")  # a head on the command line outranks a baseline in the file
    if (flags["head"] or flags["baseline"]) and not flags["ensemble"]:
        overrides = ("ensemble=null", *overrides)
    settings = load_settings(TrainSettings, "train", file=config, overrides=overrides, flags=flags)
    import torch

    from features.cache.hdf5 import read_cache
    from hazard.experiments.run import train_run
    from hazard.training.malloc import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(settings.threads)
    with stop_on_signals(lambda _: click.echo("stopping: the epoch in work is finished and kept", err=True)) as stop:
        train_run(read_cache(cache), settings, output, compare=compare, resume=resume, stop=stop, echo=click.echo)
    return EXIT_OK


def main() -> None:
    """The program `train-temporal`."""
    run_command(train_temporal)
