"""`hazard monitor` on many cameras at the rate that this machine bears: frames, drops, latency and memory over time.

    python benchmarks/live.py -o live/          eight cameras, ten minutes, drawn videos, a model trained on the spot
    python benchmarks/live.py -o live/ --videos FOLDER --model runs/NAME

Cameras are files as if live, played again and again, each read by a process of its own; the monitor is the command's
own function, with its event log, its snapshots, its outbox and a webhook that takes all alerts. First the rate: frames
a second of each camera are raised until some are dropped, do not come in time, or wait for half the time after which
they would be dropped. The highest without any of it is kept for the long run; `--fps` says it instead. Latency is from
a frame's arrival until all that it means is written down. Use an otherwise idle machine.
"""

import logging
import os
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import click

from features.utils.command_line import run_command, stop_on_signals

# All else is imported later: what this module imports each reader process imports too.


@click.command()
@click.option("--cameras", default=8, show_default=True)
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--fps", type=click.FloatRange(0, min_open=True), help="Of each camera. [what the machine bears]")
@click.option("--videos", type=click.Path(path_type=Path, exists=True), help="A folder; drawn recordings by default.")
@click.option("--model", type=click.Path(path_type=Path), help="A model folder; one trained on the spot by default.")
@click.option("--runtime", type=click.Choice(["auto", "torch", "openvino"]), default="auto", show_default=True)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False))
def main(
    cameras: int, minutes: float, fps: float | None, videos: Path | None, model: Path | None, runtime: str, output: Path
) -> None:
    """Watch simulated cameras, and print and plot what it took. Ctrl-C ends the run and shows what there is."""
    from live_run import bearable_fps, print_table, write_csv
    from sites import some_site
    from watching import watched
    from webhook_receiver import receiver

    logging.disable(logging.WARNING)  # of deliveries and clips, line by line
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, stop_on_signals(lambda text: click.echo("stopping")) as stop:
        folder = Path(temporary)
        site = some_site(cameras, videos, model, runtime, folder)
        click.echo(f"load of the machine before: {os.getloadavg()[0]:.2f}")
        if fps is None:
            fps = bearable_fps(site, folder, lambda: bool(stop)) if site.is_scalable else site.usual_fps()
        with receiver("fine", folder) as alerts_file:
            buckets = watched(
                site,
                fps if site.is_scalable else None,
                folder / "watched",
                seconds=60 * minutes,
                alerts_file=alerts_file,
                is_stopped=lambda: bool(stop),
            )
    if not buckets:
        raise click.ClickException("nothing was seen")
    from live_plot import draw  # here: what it holds is not the monitor's

    print_table(buckets, fps)
    write_csv(output / "live.csv", buckets)
    draw(output / "live.png", buckets, fps)
    click.echo(f"{output / 'live.csv'} and {output / 'live.png'} are written")


if __name__ == "__main__":
    run_command(main)
