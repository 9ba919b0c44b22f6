"""The command `train-temporal`: train and evaluate a model on a feature cache."""

from pathlib import Path

import click

from features.utils.command_line import EXIT_OK, run_command, stop_on_signals, version_option


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@version_option
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the model, such as runs/NAME.",
)
@click.option("--config", type=click.Path(path_type=Path), help="YAML file with a section `train`.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Any setting; may be repeated.")
@click.option("--head", help="Name of a head, see docs/training.md. [lstm]")
@click.option("--baseline", help="Name of a baseline to train instead of a head.")
@click.option(
    "--ensemble",
    metavar="MODELS",
    help="Average several models: seeds:5 of the chosen head or baseline, NAME[:SEEDS][=WEIGHT],… or heads.",
)
@click.option(
    "--keep", type=click.Choice(["refit", "folds"]), help="Save a model fitted on all clips, or all folds' models."
)
@click.option("--compare", is_flag=True, help="Compare all heads and baselines on the same folds.")
@click.option("--folds", type=click.IntRange(2), help="Number of folds; no group is split.")
@click.option("--repeats", type=click.IntRange(1), help="Number of times the folds are drawn; scores are averaged. [1]")
@click.option("--split", metavar="FILE|COLUMN", help="CSV file (path, split), or `split`, the cache's column.")
@click.option(
    "--split-files",
    type=click.Path(path_type=Path),
    help="Folder of UCF101's or HMDB51's lists; all splits are evaluated.",
)
@click.option(
    "--show-leak",
    "random_folds",
    is_flag=True,
    default=None,
    help="Also evaluate on random folds and print the difference.",
)
@click.option(
    "--labels",
    "labels_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="CORRECTIONS.csv",
    help="Labels (path, label, start, end) that replace those of the cache, such as the corrections of a review.",
)
@click.option("--epochs", type=click.IntRange(1), help="Largest number of epochs. [what 1,500 training steps need]")
@click.option("--batch-size", type=click.IntRange(1), help="Clips per training step. [by number of clips]")
@click.option("--lr", type=float, help="Highest learning rate. [3e-3]")
@click.option("--seed", type=click.IntRange(0), help="Seed of splits, initial weights and batches. [0]")
@click.option(
    "--false-alarms-per-hour",
    type=click.FloatRange(min=0),
    metavar="F",
    help="Save the lowest threshold with at most F false alarms per hour of harmless video (a bound). [threshold 0.5]",
)
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), help="Precision of training. [fp32]")
@click.option(
    "--tune", type=click.IntRange(1), metavar="N", help="Search settings with N trials on inner folds of each fold."
)
@click.option("--tracker", metavar="none|tensorboard|wandb|mlflow", help="Also send curves to this tracker. [none]")
@click.option("--device", metavar="auto|cpu|cuda[:N]|mps", help="Device that trains heads. [auto]")
@click.option("--resume", is_flag=True, help="Continue an interrupted run of the same command.")
def train_temporal(
    cache: Path,
    output: Path,
    config: Path | None,
    overrides: tuple[str, ...],
    compare: bool,
    resume: bool,
    **flags: object,
) -> int:
    """Train a temporal head or a baseline on the feature cache CACHE and evaluate it on test clips.

    Without --folds or --split, the split column of the cache is used. If it has none, whole groups are held out for
    the test.
    """
    if flags["head"] and flags["baseline"]:
        raise click.UsageError("give either --head or --baseline, not both")
    # All libraries are imported in functions: the options are checked at once, and a missing library is one line.
    from features.utils.settings import load_settings
    from hazard.models.settings import TrainSettings

    if flags["head"]:
        overrides = (*overrides, "baseline=null")  # a head on the command line overrides a baseline in the file
    if (flags["head"] or flags["baseline"]) and not flags["ensemble"]:
        overrides = ("ensemble=null", *overrides)
    settings = load_settings(TrainSettings, "train", file=config, overrides=overrides, flags=flags)
    import torch

    from features.cache.hdf5 import read_cache
    from hazard.experiments.run import train_run
    from hazard.training.malloc import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(settings.threads)
    with stop_on_signals(
        lambda _: click.echo("stopping after the current epoch, which will be saved", err=True)
    ) as stop:
        train_run(read_cache(cache), settings, output, compare=compare, resume=resume, stop=stop, echo=click.echo)
    return EXIT_OK


def main() -> None:
    """Run the program `train-temporal`."""
    run_command(train_temporal)
