"""A report of thousands of clips: time and memory to write it, and time for Chromium to show and filter it.

python benchmarks/report.py --clips 5000
"""

import json
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import click
import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from hazard.events.decision import Decision, decide_clip
from hazard.events.rule import EventRule
from hazard.report.facts import ReportInfo
from hazard.report.writer import write_report
from hazard.types import ClipPrediction, WindowPredictions
from tests.helpers.chromium import CHROMIUM, MISSING, browser

LABELS = ("fight", "noFight")
RULE = EventRule("fight", 0, on_threshold=0.7, off_threshold=0.55, merge_seconds=1.0)
DECISION = Decision(LABELS, "fight", 0.7, (RULE,), unknown_from=3.0)
INFO = ReportInfo(
    LABELS, "fight", 0.7, {"name": "benchmark", "groups_known": True, "roc_auc": {"value": 0.9, "low": 0.8, "high": 1}},
    "2026-01-01T00:00:00+00:00", "benchmark/", rules=(RULE,), unknown_from=3.0, window_seconds=2.0, stride_seconds=1.0,
)  # fmt: skip


def make_thumbnails(rng: np.random.Generator, count: int = 60) -> list[bytes]:
    """Return small JPEGs of about the size of real thumbnails."""
    coarse = rng.integers(0, 255, (count, 16, 20, 3), dtype=np.uint8)
    large = (cv2.resize(image, (160, 120), interpolation=cv2.INTER_CUBIC) for image in coarse)
    return [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes() for image in large]


def fake_clips(count: int, *, long_share: float, strip: int) -> Iterator[ClipPrediction]:
    """Yield the same clips on each call, ordered by path: some of them long, a few failed, unknown or wrong."""
    rng = np.random.default_rng(0)
    stock = make_thumbnails(rng)
    for number in range(count):
        path = f"camera-{number // 100:04}/clip-{number:07}.mp4"
        if rng.random() < 0.01:
            yield ClipPrediction(path, "failed", "open: empty file")
            continue
        windows = int(rng.integers(60, 600)) if rng.random() < long_share else 1
        starts = np.arange(windows, dtype=np.float64)
        p = np.clip(rng.beta(1, 6, windows) + (rng.random(windows) < 0.01) * 0.8, 0, 1)
        seen = WindowPredictions(np.stack([starts, starts + 2], 1), np.stack([p, 1 - p], 1))
        clip = ClipPrediction(
            path, "partial" if rng.random() < 0.01 else "ok", truth=LABELS[int(rng.random() < 0.9)],
            duration=windows + 1.0, windows=seen,
            thumbnails=[stock[i] for i in rng.integers(0, len(stock), strip)],
            thumbnail_times=np.linspace(0, windows, strip).tolist(), unknown_score=float(rng.gamma(2, 0.5)),
        )  # fmt: skip
        yield decide_clip(clip, DECISION)


@click.command()
@click.option("--clips", "count", default=5000, show_default=True)
@click.option("--long-share", default=0.2, show_default=True, help="Share of clips with many windows.")
@click.option("--strip", default=12, show_default=True, help="Thumbnails per clip.")
@click.option("--parquet", is_flag=True)
@click.option("--memory", is_flag=True, help="Measure the peak memory of Python. Writing then takes longer.")
def main(count: int, long_share: float, strip: int, parquet: bool, memory: bool) -> None:
    """Write a report of made-up clips and open it in Chromium."""
    with tempfile.TemporaryDirectory() as folder:
        if memory:
            tracemalloc.start()
        began = time.monotonic()
        for _ in fake_clips(count, long_share=long_share, strip=strip):
            pass
        making = time.monotonic() - began
        held = tracemalloc.get_traced_memory()[1] if memory else 0
        began = time.monotonic()
        summary = write_report(
            Path(folder), lambda: fake_clips(count, long_share=long_share, strip=strip), INFO, parquet=parquet
        )
        seconds = time.monotonic() - began - 2 * making
        click.echo(
            f"{summary.clips} clips, {summary.events} events: written in {seconds:.1f} s (without making up the clips)"
        )
        if memory:
            most = tracemalloc.get_traced_memory()[1]
            click.echo(f"Python's peak memory: {most / 1e6:.0f} MB; {held / 1e6:.0f} MB of it to make up the clips")
        for file in sorted(Path(folder).iterdir()):
            click.echo(f"  {file.name}: {file.stat().st_size / 1e6:.1f} MB")
        if not CHROMIUM:
            click.echo(MISSING)
            return
        click.echo(json.dumps(measure(Path(folder) / "report.html"), indent=1))


def measure(page: Path) -> dict[str, float]:
    """Return milliseconds by the browser's clock: from navigation to a ready page, and from each action to paint."""
    with browser() as tab:
        tab.set_size(1280, 900)
        tab.open(page.resolve().as_uri())
        times = {
            "opened": tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"),
            "first contentful paint": tab.evaluate(
                "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1"
            ),
            "list ready": float(tab.evaluate("document.documentElement.dataset.readyMs")),
        }
        times["filter by text"] = tab.evaluate(
            make_timing_script("text.value = '42'; text.dispatchEvent(new Event('input'))")
        )
        times["filter by events"] = tab.evaluate(
            make_timing_script("show.value = 'events'; show.dispatchEvent(new Event('input'))")
        )
        times["clear filters"] = tab.evaluate(make_timing_script("document.getElementById('clear').click()"))
        times["sort by name"] = tab.evaluate(
            make_timing_script("document.querySelector('[data-sort=name] button').click()")
        )
        times["next page"] = tab.evaluate(make_timing_script("document.getElementById('page-on').click()"))
        times["open a clip"] = tab.evaluate(
            make_timing_script("location.hash = document.querySelector('#clips a').hash")
        )
        times["back to the list"] = tab.evaluate(make_timing_script("location.hash = ''"))
        if tab.complaints:
            raise click.ClickException("\n".join(tab.complaints))
    return {name: round(value) for name, value in times.items()}


def make_timing_script(action: str) -> str:
    """Return JavaScript that runs an action and returns the milliseconds until the next frame is painted."""
    return f"""new Promise((done) => {{
      const text = document.getElementById("filter-text"), show = document.getElementById("filter-show");
      const began = performance.now();
      {action};
      requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => done(performance.now() - began))));
    }})"""


if __name__ == "__main__":
    main()
