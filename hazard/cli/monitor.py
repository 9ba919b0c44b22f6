"""The command `hazard monitor`: live cameras and a saved model to alerts; a recording to what they are worth."""

import logging
from pathlib import Path

import click

from features.errors import SettingsError
from features.utils.command_line import EXIT_OK, stop_on_signals
from features.utils.settings import load_settings, read_settings_file
from features.utils.text import format_count
from hazard.inference.settings import InferSettings
from hazard.monitor.settings import MonitorSettings
from hazard.utils.structured_logging import (
    LogFormat,
    MessagePrinter,
    configure_log_format,
    log_final_error,
    make_message_printer,
)

log = logging.getLogger(__name__)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("sources", metavar="CAMERA...", nargs=-1)
@click.option("--model", "model_folder", required=True, type=click.Path(path_type=Path), help="A folder of training.")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Event log, pictures, outbox.")
@click.option(
    "--config", type=click.Path(path_type=Path), help="A YAML file: sections monitor, cameras, alerts, infer."
)
@click.option("--cameras", "cameras_file", type=click.Path(path_type=Path), help="Cameras of another YAML file.")
@click.option("--alerts", "alerts_file", type=click.Path(path_type=Path), help="Alert channels of another YAML file.")
@click.option("--window", "is_shown", is_flag=True, help="Show the cameras on the desktop; q closes it.")
@click.option("--metrics", metavar="[HOST:]PORT", help="Serve /metrics for Prometheus there. [nowhere]")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="json: an object a line. [text]")
@click.option(
    "--evaluate", "recording", type=click.Path(path_type=Path), help="Replay a recording instead, and measure."
)
@click.option("--truth", type=click.Path(path_type=Path), help="With --evaluate: a CSV of true events.")
@click.option("--offline-after", "silence_seconds", type=float, help="Seconds of silence. [20]")
@click.option("--window-seconds", type=float, help="Seconds of a window. [as the model was trained]")
@click.option("--stride", "stride_seconds", type=float, help="Seconds from window to window. [half a window]")
@click.option("--threshold", type=click.FloatRange(0, 1), help="An event begins at this probability. [the model's]")
@click.option("--false-alarms-per-hour", type=float, metavar="F", help="The threshold that allowed at most so many.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Any setting: infer's, or monitor.KEY.")
@click.option("--weights", metavar="auto|PATH", help="The backbone's weights. [auto]")
@click.option("--device", metavar="auto|cpu|cuda[:N]", help="Where the backbone runs. [auto]")
@click.option("--runtime", type=click.Choice(["auto", "torch", "openvino"]), help="On a CPU. [openvino, if installed]")
def monitor(
    sources: tuple[str, ...],
    model_folder: Path,
    output: Path | None,
    config: Path | None,
    cameras_file: Path | None,
    alerts_file: Path | None,
    is_shown: bool,
    recording: Path | None,
    overrides: tuple[str, ...],
    **flags: object,
) -> int:
    """Watch CAMERA... (an RTSP or HTTP address, a device number, a file as if live) and raise alerts.

    With --evaluate FILE --truth events.csv a recording is replayed, faster than real time, through the very same steps:
    recall of events, false alarms per hour, and how long after the start of an event the alert comes.
    """
    own = {key: flags.pop(key) for key in ("silence_seconds", "metrics", "log_format")}
    own_overrides = [text for text in overrides if text.strip().startswith("monitor.")]
    other_overrides = [text for text in overrides if text not in own_overrides]
    asked: LogFormat = "json" if own["log_format"] == "json" else "text"
    configure_log_format(asked)
    with log_final_error(asked):
        watching = load_settings(MonitorSettings, "monitor", file=config, overrides=own_overrides, flags=own)
    configure_log_format(watching.log_format)
    with log_final_error(watching.log_format):
        settings = load_settings(InferSettings, "infer", file=config, overrides=other_overrides, flags=flags)
        say = make_message_printer(watching.log_format)
        if recording is not None and is_shown:
            raise SettingsError("--window shows live cameras; to see a recording, use infer.py --annotate")
        if recording is not None:
            return _run_evaluation(recording, model_folder, settings, say, is_quiet=watching.log_format == "json")
        # Imported here: `--help` and wrong options answer at once.
        from hazard.alerts.settings import load_alert_settings
        from hazard.monitor.cameras import load_cameras, parse_camera_sources

        found = (read_settings_file(config) if config else {}).keys()
        cameras_file = cameras_file or (config if "cameras" in found else None)
        alerts_file = alerts_file or (config if "alerts" in found else None)
        cameras = (*(load_cameras(cameras_file) if cameras_file else ()), *parse_camera_sources(sources))
        if not cameras or output is None:
            raise SettingsError(
                "give cameras (CAMERA... or section `cameras` of --config) and a folder (-o), or --evaluate"
            )
        alerts = load_alert_settings(alerts_file) if alerts_file else None
        with stop_on_signals(lambda text: log.info("stopping")) as stop:
            from hazard.monitor.run import run_monitor  # seconds, in which SIGTERM counts already

            run_monitor(
                cameras,
                model_folder,
                output,
                settings,
                watching,
                alerts=alerts,
                is_shown=is_shown,
                is_stopped=lambda: bool(stop),
                echo=say,
            )
        return stop.exit_code if stop else EXIT_OK


def _run_evaluation(
    recording: Path, model_folder: Path, settings: InferSettings, say: MessagePrinter, *, is_quiet: bool
) -> int:
    from hazard.monitor.replay import evaluate_recording

    figures = evaluate_recording(recording, model_folder, settings, is_quiet=is_quiet)
    alert = figures["alert_delay_seconds"]
    said = f"{figures['found']} of {figures['truth']} true events found, recall {_format_number(figures['recall'])}"
    say(said, figures=figures)
    alarms, hours = format_count(figures["false_alarms"], "false alarm"), figures["hours"]
    say(f"{alarms} in {hours:.2f} hours, {_format_number(figures['false_alarms_per_hour'])} an hour")
    if figures["found"]:
        say(
            f"events begin {_format_number(figures['delay_seconds']['median'])} s after the true ones (median), "
            f"alerts come {_format_number(alert['median'])} s after (median; 90 %: {_format_number(alert['p90'])} s)"
        )
    return EXIT_OK


def _format_number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
