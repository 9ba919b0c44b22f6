"""The command `hazard-infer`: a report from videos and a saved model."""

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from features.sources.urls import parse_source
from features.utils.command_line import EXIT_FAILED_ITEMS, EXIT_OK, run_command, stop_on_signals, version_option


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@version_option
@click.argument("sources", metavar="SOURCE...", nargs=-1, type=parse_source)
@click.option("--model", "model_folder", type=click.Path(path_type=Path), help="Folder of a trained model.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the report."
)
@click.option("--window", "window_seconds", type=float, help="Length of a window in seconds. [as the training clips]")
@click.option(
    "--stride", "stride_seconds", type=float, help="Seconds between the starts of two windows. [half a window]"
)
@click.option("--threshold", type=click.FloatRange(0, 1), help="Threshold of the positive label. [the model's]")
@click.option(
    "--false-alarms-per-hour", type=float, metavar="F", help="Use the threshold that gave at most F in evaluation."
)
@click.option("--cache", type=click.Path(path_type=Path, dir_okay=False), help="Feature cache to reuse and extend.")
@click.option("--annotate", is_flag=True, default=None, help="Write videos with the predictions drawn in.")
@click.option("--highlights", is_flag=True, default=None, help="Write one video with all events.")
@click.option("--zero-shot", metavar="LABELS.json", help="Labels that CLIP may give to unknown clips.")
@click.option("--parquet", is_flag=True, default=None, help="Also write the tables as Parquet.")
@click.option("--truth", type=click.Path(path_type=Path), help="CSV file of true events: path,start,end,label.")
@click.option(
    "--review", is_flag=True, help="Ask you about the least certain predictions of the report; see docs/events.md."
)
@click.option("--retry-failed", is_flag=True, help="Retry clips that failed before.")
@click.option("--fresh", is_flag=True, help="Analyse every clip again.")
@click.option("--config", type=click.Path(path_type=Path), help="YAML file with a section `infer`.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Any setting; may be repeated.")
@click.option("--weights", metavar="auto|PATH", help="The backbone's weights. [auto]")
@click.option("--label-map", metavar="FILE", help="Label map of the extraction, if SOURCE has labels.")
@click.option("--device", metavar="auto|cpu|cuda[:N]|mps", help="Device of the backbone. [auto]")
@click.option(
    "--runtime",
    type=click.Choice(["auto", "torch", "openvino"]),
    help="Library that runs the backbone on a CPU. [openvino, if installed]",
)
@click.option("--workers", type=click.IntRange(1), help="Worker processes. [one per core]")
@click.option("--batch-size", type=click.IntRange(1), help="Frames per forward pass.")
@click.option("--engine", type=click.Choice(["local", "ray"]), help="Engine that runs the workers. [local]")
def infer(
    sources: tuple[Path | str, ...],
    model_folder: Path | None,
    output: Path,
    config: Path | None,
    overrides: tuple[str, ...],
    review: bool,
    retry_failed: bool,
    fresh: bool,
    **flags: object,
) -> int:
    """Find out what happens in SOURCE and when; write report.html, report.json and CSV tables.

    SOURCE is a folder, a CSV manifest, a video file or a URL (https://…). Long videos are cut into overlapping windows.
    A clip that cannot be read is listed as failed, with the reason. If you run the command again, only new and changed
    clips are analysed, so a stopped run continues where it was.
    """
    # All libraries are imported in functions: the options are checked at once, and a missing library is one line.
    from features.utils.settings import load_settings
    from hazard.inference.settings import InferSettings

    settings = load_settings(InferSettings, "infer", file=config, overrides=overrides, flags=flags)
    if not sources and not review:
        raise click.UsageError("Missing argument 'SOURCE...'.")
    if sources and model_folder is None:
        raise click.UsageError("Missing option '--model'.")
    code = EXIT_OK
    if sources and model_folder:
        from features.sources.discover import find_clips

        clips = find_clips(
            sources, label_map=settings.label_map, downloads=settings.downloads or _make_temporary_folder()
        )
        from hazard.inference.run import InferenceRun, run_inference

        run = InferenceRun(
            clips, model_folder, output, settings, sources, retry_failed=retry_failed, reprocess_all=fresh
        )
        with stop_on_signals(lambda text: click.echo(text, err=True)) as stop:
            result = run_inference(run, stop, echo=click.echo)
        if stop:
            click.echo("stopped; the results so far are saved. Run the same command again to continue", err=True)
            return stop.exit_code
        code = EXIT_FAILED_ITEMS if result.summary and result.summary.failed else EXIT_OK
    if review:
        from hazard.inference.run import review_report

        review_report(output, ask=lambda text: click.prompt(text, default="", show_default=False), echo=click.echo)
    return code


def _make_temporary_folder() -> Path:
    """Create a folder that is removed when the command ends."""
    return Path(click.get_current_context().with_resource(TemporaryDirectory(prefix="hazard-infer-")))


def main() -> None:
    """Run the program `hazard-infer`."""
    run_command(infer)
