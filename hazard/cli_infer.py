"""The command `hazard-infer`: videos and a saved model to a report."""

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from features.addresses import as_source
from features.clips import find_clips
from features.commands import DONE, FAILED_ITEMS, run_command, stop_on_signals
from features.config import load_settings
from features.files import check_writable
from hazard.config import InferSettings


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=as_source)
@click.option(
    "--model", "model_folder", required=True, type=click.Path(path_type=Path), help="A folder that training wrote."
)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="The report's folder."
)
@click.option("--config", type=click.Path(path_type=Path), help="A YAML file; its section `infer` is read.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Any setting; may be repeated.")
@click.option("--weights", metavar="auto|PATH", help="The backbone's weights. [auto]")
@click.option("--label-map", metavar="FILE", help="As given to the extraction, where SOURCE has labels.")
@click.option("--threshold", type=click.FloatRange(0, 1), help="For the positive label. [the model's]")
@click.option("--device", metavar="auto|cpu|cuda[:N]", help="Where the backbone runs. [auto]")
@click.option("--runtime", type=click.Choice(["auto", "torch", "openvino"]), help="On a CPU. [openvino, if installed]")
@click.option("--workers", type=click.IntRange(1), help="Worker processes. [one a core]")
@click.option("--batch-size", type=click.IntRange(1), help="Frames a forward pass.")
def infer(
    sources: tuple[Path | str, ...],
    model_folder: Path,
    output: Path,
    config: Path | None,
    overrides: tuple[str, ...],
    **flags: object,
) -> int:
    """Say what happens in each clip of SOURCE: predictions.csv, report.json and report.html.

    SOURCE is a folder, a CSV manifest, a video file or an address (https://…). A clip that cannot be read is listed
    as failed, with the reason.
    """
    settings = load_settings(InferSettings, "infer", file=config, overrides=overrides, flags=flags)
    clips = find_clips(sources, label_map=settings.label_map, downloads=settings.downloads or _temporary_folder())
    check_writable(output / "report.html")
    # Imported here: `--help` and wrong options answer at once.
    from features.progress import progress_bar
    from hazard.model_files import open_model
    from hazard.predict import predict_clips
    from hazard.report import summarise, write_report
    from hazard.report_info import report_info

    predictor = open_model(model_folder).with_threshold(settings.threshold)
    predictions = []
    with (
        stop_on_signals(lambda text: click.echo(text, err=True)) as stop,
        progress_bar(len(clips), what="infer", unit="clip") as bar,
    ):
        for prediction in predict_clips(
            clips, predictor, settings, weights=settings.weights, is_stopped=lambda: bool(stop)
        ):
            predictions.append(prediction)
            bar.update()
    if stop:
        click.echo(f"stopped after {len(predictions)} of {len(clips)} clips; no report was written", err=True)
        return stop.exit_code
    predictions.sort(key=lambda prediction: prediction.path)
    info = report_info(predictor, model_folder, sources, created=datetime.now(UTC))
    write_report(output, lambda: predictions, info)
    summary = summarise(predictions, info)
    click.echo(f"{summary.looked_at} clips looked at, {summary.failed} failed")
    if info.positive_label:
        click.echo(f"{summary.flagged} look like '{info.positive_label}'")
    if summary.accuracy is not None:
        click.echo(f"accuracy against the folder's labels: {summary.accuracy:.3f} ({summary.with_truth} clips)")
    for prediction in predictions:
        if prediction.status == "failed":
            click.echo(f"  failed {prediction.path!r}: {prediction.reason}")
    click.echo(f"report: {output / 'report.html'}")
    return FAILED_ITEMS if summary.failed else DONE


def _temporary_folder() -> Path:
    """A folder that is gone when the command ends."""
    return Path(click.get_current_context().with_resource(TemporaryDirectory(prefix="hazard-infer-")))


def main() -> None:
    """The program `hazard-infer`."""
    run_command(infer)
