"""A plot of frame rate, latency and memory of a monitor over time."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from watching import Bucket, median_and_p95

from hazard.metrics.plots import BLUE, GRAY, GREEN, ORANGE, VERMILION, render_png


def draw(file: Path, buckets: Sequence[Bucket], fps: float) -> None:
    """Write a PNG with three panels: frames per second, latency and memory."""
    figure = Figure(figsize=(8, 7), dpi=120, layout="constrained")
    frames, latency, memory = figure.subplots(3, sharex=True)
    minutes = [(b.start + b.seconds / 2) / 60 for b in buckets]
    cameras = len(buckets[0].taken)

    frames.axhline(fps * cameras, color=GRAY, linestyle=":", label="requested")
    frames.plot(minutes, [b.fps for b in buckets], color=BLUE, label="processed")
    frames.plot(minutes, [sum(b.dropped.values()) / b.seconds for b in buckets], color=VERMILION, label="dropped")
    frames.set(ylabel="frames/s", ylim=(-0.03 * fps * cameras, 1.15 * fps * cameras))
    frames.set_title(f"{cameras} cameras, {fps:.1f} frames/s each", loc="left", fontsize=10)

    found = [median_and_p95(list(b.latencies.values())) for b in buckets]
    latency.plot(minutes, [1000 * late for _, late in found], color=ORANGE, label="95 %")
    latency.plot(minutes, [1000 * median for median, _ in found], color=BLUE, label="median")
    latency.set(ylabel="latency, ms")
    latency.set_ylim(bottom=0)

    memory.plot(minutes, [b.monitor.own_bytes / 1e6 for b in buckets], color=BLUE, label="monitor")
    memory.plot(minutes, [b.others.own_bytes / 1e6 for b in buckets], color=GREEN, label="readers and others")
    memory.set(ylabel="memory, MB", xlabel="minutes")
    memory.set_ylim(bottom=0, top=1.3 * max(max(b.monitor.own_bytes, b.others.own_bytes) for b in buckets) / 1e6)

    for axes in (frames, latency, memory):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    frames.set_xlim(left=0)
    figure.align_ylabels()
    file.write_bytes(render_png(figure))
