"""The command `hazard-infer`: videos and a saved model to a report."""

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from features.sources.discover import find_clips
from features.sources.urls import parse_source
from features.utils.command_line import EXIT_FAILED_ITEMS, EXIT_OK, run_command, stop_on_signals
from features.utils.settings import load_settings
from hazard.inference.settings import InferSettings


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("sources", metavar="SOURCE...", nargs=-1, type=parse_source)
@click.option("--model", "model_folder", type=click.Path(path_type=Path), help="A folder that training wrote.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="The report's folder."
)
@click.option("--window", "window_seconds", type=float, help="Seconds of a window. [as the model was trained]")
@click.option("--stride", "stride_seconds", type=float, help="Seconds from window to window. [half a window]")
@click.option("--threshold", type=click.FloatRange(0, 1), help="For the positive label. [the model's]")
@click.option("--false-alarms-per-hour", type=float, metavar="F", help="The threshold that allowed at most so many.")
@click.option("--cache", type=click.Path(path_type=Path, dir_okay=False), help="Features to reuse and extend.")
@click.option("--annotate", is_flag=True, default=None, help="Write videos with what was seen drawn in.")
@click.option("--highlights", is_flag=True, default=None, help="Write one video of all events.")
@click.option("--zero-shot", metavar="LABELS.json", help="What CLIP may call clips that the model does not know.")
@click.option("--parquet", is_flag=True, default=None, help="Write the tables as Parquet too.")
@click.option("--truth", type=click.Path(path_type=Path), help="A CSV of true events: path,start,end,label.")
@click.option(
    "--review", is_flag=True, help="Ask about the most doubtful predictions of the report; see docs/events.md."
)
@click.option("--retry-failed", is_flag=True, help="Try clips again that failed before.")
@click.option("--fresh", is_flag=True, help="Look at every clip again.")
@click.option("--config", type=click.Path(path_type=Path), help="A YAML file; its section `infer` is read.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Any setting; may be repeated.")
@click.option("--weights", metavar="auto|PATH", help="The backbone's weights. [auto]")
@click.option("--label-map", metavar="FILE", help="As given to the extraction, where SOURCE has labels.")
@click.option("--device", metavar="auto|cpu|cuda[:N]", help="Where the backbone runs. [auto]")
@click.option("--runtime", type=click.Choice(["auto", "torch", "openvino"]), help="On a CPU. [openvino, if installed]")
@click.option("--workers", type=click.IntRange(1), help="Worker processes. [one a core]")
@click.option("--batch-size", type=click.IntRange(1), help="Frames a forward pass.")
@click.option("--engine", type=click.Choice(["local", "ray"]), help="Who runs the workers. [local]")
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
    """Say what happens in SOURCE and when: predictions, windows and events as CSV, report.json and report.html.

    SOURCE is a folder, a CSV manifest, a video file or an address (https://…). Long videos are cut in overlapping
    windows. A clip that cannot be read is listed as failed, with the reason. The same command again looks only at what
    is new or changed, so that a run that was stopped goes on where it was.
    """
    settings = load_settings(InferSettings, "infer", file=config, overrides=overrides, flags=flags)
    if not sources and not review:
        raise click.UsageError("Missing argument 'SOURCE...'.")
    if sources and model_folder is None:
        raise click.UsageError("Missing option '--model'.")
    code = EXIT_OK
    if sources and model_folder:
        clips = find_clips(
            sources, label_map=settings.label_map, downloads=settings.downloads or _make_temporary_folder()
        )
        # Imported here: `--help` and wrong options answer at once.
        from hazard.inference.run import InferenceRun, run_inference

        batch = InferenceRun(
            clips, model_folder, output, settings, sources, retry_failed=retry_failed, reprocess_all=fresh
        )
        with stop_on_signals(lambda text: click.echo(text, err=True)) as stop:
            done = run_inference(batch, stop, echo=click.echo)
        if stop:
            click.echo("stopped; what was found is kept, the same command goes on", err=True)
            return stop.exit_code
        code = EXIT_FAILED_ITEMS if done.summary and done.summary.failed else EXIT_OK
    if review:
        from hazard.inference.run import review_report

        review_report(output, ask=lambda text: click.prompt(text, default="", show_default=False), echo=click.echo)
    return code


def _make_temporary_folder() -> Path:
    """A folder that is gone when the command ends."""
    return Path(click.get_current_context().with_resource(TemporaryDirectory(prefix="hazard-infer-")))


def main() -> None:
    """The program `hazard-infer`."""
    run_command(infer)
