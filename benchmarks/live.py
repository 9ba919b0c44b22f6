"""`hazard monitor` on many cameras at the highest sustainable rate: frames, drops, latency and memory over time.

    python benchmarks/live.py -o live/          eight cameras, ten minutes, synthetic videos, a new model
    python benchmarks/live.py -o live/ --videos FOLDER --model runs/NAME

The cameras are files played in real time again and again, each read by its own process. The monitor is the function of
the command, with event log, snapshots, outbox and a webhook that accepts all alerts. First the benchmark looks for the
highest rate: it raises the frames per second of each camera until frames are dropped, are missing, or wait half the
time after which they would be dropped. The long run uses that rate, or `--fps`. Latency is the time from the arrival
of a frame until its results are written. Use an otherwise idle machine.
"""

import logging
import os
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import click

from features.utils.command_line import run_command, stop_on_signals

# Other imports follow in main(), because each reader process imports the top of this module too.


@click.command()
@click.option("--cameras", default=8, show_default=True)
@click.option("--minutes", default=10.0, show_default=True)
@click.option(
    "--fps",
    type=click.FloatRange(0, min_open=True),
    help="Frames per second of each camera. Default: the highest sustainable rate.",
)
@click.option(
    "--videos", type=click.Path(path_type=Path, exists=True), help="Folder of videos. Default: synthetic recordings."
)
@click.option("--model", type=click.Path(path_type=Path), help="Model folder. Default: a new model.")
@click.option("--runtime", type=click.Choice(["auto", "torch", "openvino"]), default="auto", show_default=True)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False))
def main(
    cameras: int, minutes: float, fps: float | None, videos: Path | None, model: Path | None, runtime: str, output: Path
) -> None:
    """Watch simulated cameras, then print and plot speed and resources. Ctrl-C ends the run early."""
    from live_run import find_max_fps, print_table, write_csv
    from sites import make_site
    from watching import measure_monitor
    from webhook_receiver import run_receiver

    logging.disable(logging.WARNING)  # the lines on single deliveries and clips
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, stop_on_signals(lambda text: click.echo("stopping")) as stop:
        folder = Path(temporary)
        site = make_site(cameras, videos, model, runtime, folder)
        click.echo(f"machine load before: {os.getloadavg()[0]:.2f}")
        if fps is None:
            fps = find_max_fps(site, folder, lambda: bool(stop)) if site.is_scalable else site.usual_fps()
        with run_receiver("fine", folder) as alerts_file:
            buckets = measure_monitor(
                site,
                fps if site.is_scalable else None,
                folder / "watched",
                seconds=60 * minutes,
                alerts_file=alerts_file,
                is_stopped=lambda: bool(stop),
            )
    if not buckets:
        raise click.ClickException("no frames were processed")
    from live_plot import draw  # imported here, so that its memory is not counted as the monitor's

    print_table(buckets, fps)
    write_csv(output / "live.csv", buckets)
    draw(output / "live.png", buckets, fps)
    click.echo(f"wrote {output / 'live.csv'} and {output / 'live.png'}")


if __name__ == "__main__":
    run_command(main)
