"""Watching beside a receiver of alerts that is fine, hangs, drips, or answers 500 or 302: it must make no difference.

    python benchmarks/receivers.py [--fps 5]

The same cameras as in `benchmarks/live.py`, in turns, round by round; the receiver is a process of its own. Besides the
alerts of what cameras show, one is raised each second: a camera is said to be offline, or back. At first the rate that
the machine bears beside the receiver that is fine is looked for, unless `--fps` says it.
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
@click.option("--seconds", default=30.0, show_default=True, help="Of each turn.")
@click.option("--rounds", default=2, show_default=True)
@click.option("--fps", type=click.FloatRange(0, min_open=True), help="Of each camera. [what the machine bears]")
@click.option("--videos", type=click.Path(path_type=Path, exists=True), help="A folder; drawn recordings by default.")
@click.option("--model", type=click.Path(path_type=Path), help="A model folder; one trained on the spot by default.")
@click.option("--runtime", type=click.Choice(["auto", "torch", "openvino"]), default="auto", show_default=True)
def main(
    cameras: int, seconds: float, rounds: int, fps: float | None, videos: Path | None, model: Path | None, runtime: str
) -> None:
    """Print frames a second beside each kind of receiver."""
    from live_run import bearable_fps
    from receivers_run import beside, print_table
    from sites import some_site
    from watching import Bucket
    from webhook_receiver import KINDS

    logging.disable(logging.ERROR)  # of deliveries that fail, as they must
    found: dict[str, list[Bucket]] = {kind: [] for kind in KINDS}
    alerts: dict[str, list[dict[str, int]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as temporary, stop_on_signals(lambda text: click.echo("stopping")) as stop:
        folder = Path(temporary)
        site = some_site(cameras, videos, model, runtime, folder)
        click.echo(f"load of the machine before: {os.getloadavg()[0]:.2f}")
        if fps is None:
            fps = bearable_fps(site, folder, lambda: bool(stop)) if site.is_scalable else site.usual_fps()
        for turn in range(rounds):
            for kind in KINDS:
                if stop:
                    raise click.Abort
                rate = fps if site.is_scalable else None
                buckets, counts = beside(kind, site, rate, seconds, folder / f"{turn}-{kind}")
                found[kind] += buckets
                alerts[kind].append(counts)
                click.echo(f"  round {turn + 1}, {kind}: {buckets[0].fps:.2f} frames/s")
    print_table(found, alerts, fps)


if __name__ == "__main__":
    run_command(main)
