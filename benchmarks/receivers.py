"""The speed of the monitor with an alert receiver that works, hangs, is slow or returns 500 or 302. It must not differ.

    python benchmarks/receivers.py [--fps 5]

The cameras are those of `benchmarks/live.py`. The receivers take turns, round by round, each in its own process. One
more alert per second says that a camera is offline or back. Without `--fps`, the benchmark first looks for the highest
sustainable rate.
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
@click.option("--seconds", default=30.0, show_default=True, help="Seconds of each turn.")
@click.option("--rounds", default=2, show_default=True)
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
def main(
    cameras: int, seconds: float, rounds: int, fps: float | None, videos: Path | None, model: Path | None, runtime: str
) -> None:
    """Print the frames per second with each kind of receiver."""
    from live_run import find_max_fps
    from receivers_run import print_table, run_beside_receiver
    from sites import make_site
    from watching import Bucket
    from webhook_receiver import KINDS

    logging.disable(logging.ERROR)  # deliveries fail here by design
    found: dict[str, list[Bucket]] = {kind: [] for kind in KINDS}
    alerts: dict[str, list[dict[str, int]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as temporary, stop_on_signals(lambda text: click.echo("stopping")) as stop:
        folder = Path(temporary)
        site = make_site(cameras, videos, model, runtime, folder)
        click.echo(f"machine load before: {os.getloadavg()[0]:.2f}")
        if fps is None:
            fps = find_max_fps(site, folder, lambda: bool(stop)) if site.is_scalable else site.usual_fps()
        for turn in range(rounds):
            for kind in KINDS:
                if stop:
                    raise click.Abort
                rate = fps if site.is_scalable else None
                buckets, counts = run_beside_receiver(kind, site, rate, seconds, folder / f"{turn}-{kind}")
                found[kind] += buckets
                alerts[kind].append(counts)
                click.echo(f"  round {turn + 1}, {kind}: {buckets[0].fps:.2f} frames/s")
    print_table(found, alerts, fps)


if __name__ == "__main__":
    run_command(main)
