"""The command `hazard` with its subcommands."""

from pathlib import Path

import click

from features.utils.command_line import run_command, version_option
from hazard.cli.alerts import alert_list, alert_test
from hazard.cli.monitor import monitor
from hazard.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@version_option
def hazard() -> None:
    """Recognise hazardous activity in videos."""


@hazard.command()
@click.option(
    "--videos", type=click.Path(path_type=Path), help="Folder of class folders to use instead of synthetic clips."
)
@click.option(
    "-o",
    "--output",
    default="demo",
    type=click.Path(path_type=Path, file_okay=False),
    show_default=True,
    help="Folder of all results.",
)
@click.option(
    "--clips-per-class", default=80, type=click.IntRange(8), show_default=True, help="Synthetic clips per class."
)
@click.option("--seed", default=0, type=click.IntRange(0), show_default=True, help="Seed of clips and training.")
def demo(videos: Path | None, output: Path, clips_per_class: int, seed: int) -> int:
    """Run all three stages on synthetic clips.

    The stages are extraction, training and inference. --videos uses your own clips instead.
    """
    # Imported here so that `hazard --help` answers at once.
    from hazard.cli.demo import run_demo

    return run_demo(output, videos=videos, clips_per_class=clips_per_class, seed=seed, echo=click.echo)


@hazard.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option("--format", type=click.Choice(["onnx"]), default="onnx", show_default=True, help="File format.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="ONNX file to write. [RUN/model.onnx, RUN/whole.onnx]",
)
@click.option("--whole", is_flag=True, help="Include the backbone: the inputs are frames instead of features.")
@click.option("--weights", default="auto", metavar="auto|PATH", help="The backbone's weights, for --whole. [auto]")
def export(run: Path, format: str, output: Path | None, whole: bool, weights: str) -> None:
    """Export the model in the folder RUN to ONNX.

    The command writes one file, and checks in ONNX Runtime that it gives the same results.
    """
    from hazard.models.onnx.export import export_onnx

    exported = export_onnx(run, output, whole=whole, weights=weights)
    inputs = ", ".join(map(" ".join, exported.inputs.items()))
    click.echo(f"{exported.file}: {exported.size_bytes / 1e6:.1f} MB, inputs {inputs}")
    click.echo(
        "output: probabilities (B, K); "
        f"largest difference between ONNX Runtime and the model: {exported.difference:.1e}"
    )


hazard.add_command(alert_test)
hazard.add_command(monitor)
hazard.add_command(serve)
hazard.add_command(alert_list)


def main() -> None:
    """Run the program `hazard`."""
    run_command(hazard)
