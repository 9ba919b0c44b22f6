"""The command `hazard monitor`: live cameras and a saved model to alerts; a recording to what they are worth."""

import time
from datetime import UTC, datetime
from pathlib import Path

import click

from features.commands import stop_on_signals
from features.config import load_settings
from features.errors import SettingsError
from hazard.infer_config import InferSettings

MARK_SECONDS = 5.0
"""How often it is noted that an event goes on."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("sources", metavar="CAMERA...", nargs=-1)
@click.option("--model", "model_folder", required=True, type=click.Path(path_type=Path), help="A folder of training.")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Event log, snapshots, outbox.")
@click.option("--cameras", "cameras_file", type=click.Path(path_type=Path), help="A YAML file of cameras.")
@click.option("--alerts", "alerts_file", type=click.Path(path_type=Path), help="A YAML file of alert channels.")
@click.option(
    "--evaluate", "recording", type=click.Path(path_type=Path), help="Replay a recording instead, and measure."
)
@click.option("--truth", type=click.Path(path_type=Path), help="With --evaluate: a CSV of true events.")
@click.option("--offline-after", default=20.0, show_default=True, type=click.FloatRange(1), help="Seconds of silence.")
@click.option("--window", "window_seconds", type=float, help="Seconds of a window. [as the model was trained]")
@click.option("--stride", "stride_seconds", type=float, help="Seconds from window to window. [half a window]")
@click.option("--threshold", type=click.FloatRange(0, 1), help="An event begins at this probability. [the model's]")
@click.option("--false-alarms-per-hour", type=float, metavar="F", help="The threshold that allowed at most so many.")
@click.option("--config", type=click.Path(path_type=Path), help="A YAML file; its section `infer` is read.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Any setting of inference.")
@click.option("--weights", metavar="auto|PATH", help="The backbone's weights. [auto]")
@click.option("--device", metavar="auto|cpu|cuda[:N]", help="Where the backbone runs. [auto]")
@click.option("--runtime", type=click.Choice(["auto", "torch", "openvino"]), help="On a CPU. [openvino, if installed]")
def monitor(
    sources: tuple[str, ...],
    model_folder: Path,
    output: Path | None,
    cameras_file: Path | None,
    alerts_file: Path | None,
    recording: Path | None,
    offline_after: float,
    config: Path | None,
    overrides: tuple[str, ...],
    **flags: object,
) -> int:
    """Watch CAMERA... (an RTSP or HTTP address, a device number, a file as if live) and raise alerts.

    With --evaluate FILE --truth events.csv a recording is replayed, faster than real time, through the very same steps:
    recall of events, false alarms per hour, and how long after the start of an event the alert comes.
    """
    settings = load_settings(InferSettings, "infer", file=config, overrides=overrides, flags=flags)
    # Imported here: `--help` and wrong options answer at once.
    from hazard.cameras import cameras_of, load_cameras

    if recording is not None:
        return _evaluate(recording, model_folder, settings)
    cameras = (*(load_cameras(cameras_file) if cameras_file else ()), *cameras_of(sources))
    if not cameras or output is None:
        raise SettingsError("give cameras (CAMERA... or --cameras FILE) and a folder (-o), or --evaluate FILE")
    from contextlib import ExitStack

    from features.live import open_cameras
    from hazard.alert_config import load_alerts
    from hazard.delivery import delivering
    from hazard.monitor import OUTBOX, open_desk, watch
    from hazard.monitoring import brain_for, prepared

    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals(lambda text: click.echo("stopping", err=True)))
        output.mkdir(parents=True, exist_ok=True)
        ready = prepared(model_folder, settings)
        outbox = stack.enter_context(delivering(output / OUTBOX, load_alerts(alerts_file))) if alerts_file else None
        desk = stack.enter_context(open_desk(output, outbox))
        brain = stack.enter_context(brain_for(ready, settings, {c.name: c.threshold for c in cameras}))
        live = stack.enter_context(
            open_cameras(
                [camera.camera for camera in cameras],
                ready.spec.preprocessing,
                ready.grid.fps,
                picture_width=640,
                silence_seconds=offline_after,
                offline=set(desk.offline),
            )
        )
        click.echo(f"watching {len(cameras)} cameras, {ready.grid.fps:.1f} frames a second of each")
        schedules = {camera.name: camera for camera in cameras}
        marked = time.monotonic()

        def mark() -> None:
            nonlocal marked
            if time.monotonic() - marked > MARK_SECONDS:
                marked = time.monotonic()
                going_on = [(name, label) for name, w in brain.watchers.items() for label in w.going_on()]
                desk.mark(going_on, datetime.now(UTC))

        for happening in watch(live, brain, is_stopped=lambda: bool(stop), each=mark):
            if schedules[happening.camera].is_watched(happening.wall):
                alert = desk.take(happening)
                if alert:
                    click.echo(f"{alert.kind} {alert.camera} {alert.label} {alert.started:%Y-%m-%d %H:%M:%S} UTC")
        return stop.exit_code if stop else 0


def _evaluate(recording: Path, model_folder: Path, settings: InferSettings) -> int:
    from hazard.monitoring import evaluate_recording

    figures = evaluate_recording(recording, model_folder, settings)
    alert = figures["alert_delay_seconds"]
    click.echo(f"{figures['found']} of {figures['truth']} true events found, recall {_show(figures['recall'])}")
    click.echo(
        f"{figures['false_alarms']} false alarms in {figures['hours']:.2f} hours, "
        f"{_show(figures['false_alarms_per_hour'])} an hour"
    )
    click.echo(
        f"events begin {_show(figures['delay_seconds']['median'])} s after the true ones (median), "
        f"alerts come {_show(alert['median'])} s after (median; 90 %: {_show(alert['p90'])} s)"
    )
    return 0


def _show(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
