"""The command `hazard monitor`: alerts from live cameras and a saved model, or metrics from a recording."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from features.errors import SettingsError
from features.utils.command_line import EXIT_OK, stop_on_signals, version_option
from features.utils.text import format_count
from hazard.utils.structured_logging import (
    LogFormat,
    MessagePrinter,
    configure_log_format,
    log_final_error,
    make_message_printer,
)

if TYPE_CHECKING:
    from hazard.inference.settings import InferSettings

log = logging.getLogger(__name__)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@version_option
@click.argument("sources", metavar="CAMERA...", nargs=-1)
@click.option(
    "--model", "model_folder", required=True, type=click.Path(path_type=Path), help="Folder of a trained model."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the event log, snapshots, clips and outbox.",
)
@click.option(
    "--config", type=click.Path(path_type=Path), help="YAML file with sections monitor, cameras, alerts and infer."
)
@click.option("--cameras", "cameras_file", type=click.Path(path_type=Path), help="Another YAML file with the cameras.")
@click.option(
    "--alerts", "alerts_file", type=click.Path(path_type=Path), help="Another YAML file with the alert channels."
)
@click.option("--window", "is_shown", is_flag=True, help="Show the cameras in a desktop window; q closes it.")
@click.option("--metrics", metavar="[HOST:]PORT", help="Serve /metrics for Prometheus at this address. [off]")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="json: one object per line. [text]")
@click.option("--evaluate", "recording", type=click.Path(path_type=Path), help="Replay a recording and print metrics.")
@click.option("--truth", type=click.Path(path_type=Path), help="With --evaluate: CSV file of true events.")
@click.option(
    "--offline-after",
    "silence_seconds",
    type=float,
    help="Seconds without a frame after which a camera is offline. [20]",
)
@click.option("--window-seconds", type=float, help="Length of a window in seconds. [as the training clips]")
@click.option(
    "--stride", "stride_seconds", type=float, help="Seconds between the starts of two windows. [half a window]"
)
@click.option("--threshold", type=click.FloatRange(0, 1), help="Probability at which an event begins. [the model's]")
@click.option(
    "--false-alarms-per-hour", type=float, metavar="F", help="Use the threshold that gave at most F in evaluation."
)
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Any setting of infer, or monitor.KEY.")
@click.option("--weights", metavar="auto|PATH", help="The backbone's weights. [auto]")
@click.option("--device", metavar="auto|cpu|cuda[:N]|mps", help="Device of the backbone. [auto]")
@click.option(
    "--runtime",
    type=click.Choice(["auto", "torch", "openvino"]),
    help="Library that runs the backbone on a CPU. [openvino, if installed]",
)
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
    """Watch live cameras and send alerts.

    CAMERA is an RTSP or HTTP URL, a device number, or a video file that is played as if live.

    With --evaluate FILE --truth events.csv a recording is replayed faster than real time through the same steps. The
    command then prints the recall of events, the false alarms per hour and the delay of alerts.
    """
    monitor_flags = {key: flags.pop(key) for key in ("silence_seconds", "metrics", "log_format")}
    monitor_overrides = [text for text in overrides if text.strip().startswith("monitor.")]
    infer_overrides = [text for text in overrides if text not in monitor_overrides]
    requested_format: LogFormat = "json" if monitor_flags["log_format"] == "json" else "text"
    configure_log_format(requested_format)
    with log_final_error(requested_format):
        # All libraries are imported in functions: the options are checked at once, and a missing library is one line.
        from features.utils.settings import load_settings, read_settings_file
        from hazard.inference.settings import InferSettings
        from hazard.monitor.settings import MonitorSettings

        settings = load_settings(
            MonitorSettings, "monitor", file=config, overrides=monitor_overrides, flags=monitor_flags
        )
    configure_log_format(settings.log_format)
    with log_final_error(settings.log_format):
        infer_settings = load_settings(InferSettings, "infer", file=config, overrides=infer_overrides, flags=flags)
        echo = make_message_printer(settings.log_format)
        if recording is not None and is_shown:
            raise SettingsError("--window only shows live cameras; for a recording use infer.py --annotate")
        if recording is not None:
            is_quiet = settings.log_format == "json"
            return _run_evaluation(recording, model_folder, infer_settings, echo, is_quiet=is_quiet)
        from hazard.alerts.settings import load_alert_settings
        from hazard.monitor.cameras import load_cameras, parse_camera_sources

        sections = (read_settings_file(config) if config else {}).keys()
        cameras_file = cameras_file or (config if "cameras" in sections else None)
        alerts_file = alerts_file or (config if "alerts" in sections else None)
        cameras = (*(load_cameras(cameras_file) if cameras_file else ()), *parse_camera_sources(sources))
        if not cameras or output is None:
            raise SettingsError(
                "give cameras (CAMERA... or section `cameras` of --config) and an output folder (-o), or --evaluate"
            )
        alerts = load_alert_settings(alerts_file) if alerts_file else None
        with stop_on_signals(lambda text: log.info("stopping")) as stop:
            from hazard.monitor.run import run_monitor  # takes seconds; SIGTERM must work meanwhile

            run_monitor(
                cameras,
                model_folder,
                output,
                infer_settings,
                settings,
                alerts=alerts,
                is_shown=is_shown,
                is_stopped=lambda: bool(stop),
                echo=echo,
            )
        return stop.exit_code if stop else EXIT_OK


def _run_evaluation(
    recording: Path, model_folder: Path, settings: "InferSettings", echo: MessagePrinter, *, is_quiet: bool
) -> int:
    from hazard.monitor.replay import evaluate_recording

    metrics = evaluate_recording(recording, model_folder, settings, is_quiet=is_quiet)
    event_delay, alert_delay = metrics["delay_seconds"], metrics["alert_delay_seconds"]
    recall = f"{metrics['found']} of {metrics['truth']} true events found, recall {_format_number(metrics['recall'])}"
    echo(recall, figures=metrics)
    alarms, hours = format_count(metrics["false_alarms"], "false alarm"), metrics["hours"]
    echo(f"{alarms} in {hours:.2f} hours, {_format_number(metrics['false_alarms_per_hour'])} per hour")
    if metrics["found"]:
        echo(
            f"delay of events: {_format_number(event_delay['median'])} s (median); of alerts: "
            f"{_format_number(alert_delay['median'])} s (median), {_format_number(alert_delay['p90'])} s (90 %)"
        )
    return EXIT_OK


def _format_number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
