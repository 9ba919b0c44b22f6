"""Take the pictures of README.md: a report, the page of a video and the page of the cameras, all of drawn clips.

python benchmarks/screenshots.py -o docs/

Takes about three minutes and needs Chromium. The pictures in docs/ were taken with pretrained weights.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import httpx
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from hazard.cli.demo_clips import FRAME_RATE, make_calm_scene
from hazard.synthetic.recordings import PlantedEvent, draw_recording
from tests.helpers.chromium import CHROMIUM, MISSING, Tab, browser
from tests.helpers.paths import ROOT

CAMERAS = {"hall": 9, "gate": 8, "yard": 2}
"""Name of each camera → seed of its recording."""
EVENTS = (PlantedEvent(14, 21, "fight"), PlantedEvent(42, 50, "fight"))
SECONDS, SIZE = 64, (384, 288)
PAGE_WIDTH = 1000
MAX_BYTES = 150_000  # of a picture
PATIENCE = 120.0  # seconds


@click.command()
@click.option("-o", "--output", default=ROOT / "docs", type=click.Path(path_type=Path, file_okay=False))
def main(output: Path) -> None:
    """Run the demo, analyse and watch three drawn recordings, and write three PNG files."""
    if CHROMIUM is None:
        raise click.ClickException(MISSING)
    with tempfile.TemporaryDirectory() as folder, browser() as tab:
        take_pictures(tab, Path(folder), output.resolve())


def take_pictures(tab: Tab, work: Path, output: Path) -> None:
    """Write report.png, page.png and cameras.png to `output`."""
    subprocess.run(program("demo", "-o", "demo"), cwd=work, env=environment(), check=True)
    for name, seed in CAMERAS.items():
        scene = make_calm_scene(seed, size=SIZE)
        draw_recording(
            work / "recordings" / f"{name}.mp4", events=EVENTS, seconds=SECONDS, background=("walk",),
            seed=seed, scene=scene, frame_rate=FRAME_RATE,
        )  # fmt: skip
    take_report(tab, work, output / "report.png")
    take_page(tab, work, output / "page.png")
    take_cameras(tab, work, output / "cameras.png")


def take_report(tab: Tab, work: Path, file: Path) -> None:
    """Analyse the recordings; write the report's page of one of them, with its frames, curve and events."""
    words = ("recordings", "--model", "demo/model", "-o", "report")
    subprocess.run([sys.executable, ROOT / "infer.py", *words], cwd=work, env=environment(), check=True)
    tab.set_size(1200, 900)
    tab.open((work / "report" / "report.html").as_uri() + "#clip=1")
    start = int(tab.evaluate("document.querySelector('#detail h2').getBoundingClientRect().top + scrollY")) - 8
    write_picture(tab, file, start=start, end=find_end(tab, "Probability over time"))


def take_page(tab: Tab, work: Path, file: Path) -> None:
    """Upload one recording to `hazard serve`; write the page of its result, at the moment of an event."""
    with serving(work, "--model", "demo/model") as url:
        with open(work / "recordings" / "hall.mp4", "rb") as video:
            sent = httpx.post(f"{url}/jobs", files={"video": ("hall.mp4", video)}).json()
        wait_for(lambda: httpx.get(url + sent["links"]["self"]).json()["state"] == "done")
        tab.set_size(PAGE_WIDTH, 900)
        tab.open(url + sent["links"]["page"])
        wait_for(lambda: tab.evaluate("(document.querySelector('video')?.readyState ?? 0) >= 2"))
        tab.evaluate("document.querySelector('video').currentTime = 46")
        wait_for(lambda: tab.evaluate("document.querySelector('video').readyState == 4"))
        time.sleep(1)  # the player's controls fade
        write_picture(tab, file, end=find_end(tab, "Over time"))


def take_cameras(tab: Tab, work: Path, file: Path) -> None:
    """Watch the recordings as cameras; write the page when both events of each are over."""
    cameras = [f"{name}=recordings/{name}.mp4" for name in CAMERAS]
    words = program("monitor", *cameras, "--model", "demo/model", "-o", "watch")
    monitor = subprocess.Popen(words, cwd=work, env=environment())
    try:
        wait_for((work / "watch" / "watching.json").exists)
        with serving(work, "--monitor", "site=watch") as url:
            wait_for(lambda: len(find_cameras_with_both_events(work / "watch")) == len(CAMERAS))
            tab.set_size(PAGE_WIDTH, 900)
            tab.open(f"{url}/cameras")
            time.sleep(1)
            write_picture(tab, file, end=866)
    finally:
        monitor.terminate()
        monitor.wait()


def find_cameras_with_both_events(folder: Path) -> set[str]:
    """Return the cameras whose second event is over."""
    log = folder / "events.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    events = [line for line in lines if line["kind"] == "event" and line["over"]]
    return {event["camera"] for event in events if event["seconds"][0] > EVENTS[1].start - 4}


@contextmanager
def serving(work: Path, *options: str) -> Iterator[str]:
    """Run `hazard serve` on a free port and yield its URL."""
    words = program("serve", *options, "--data", "serve", "--port", "0")
    server = subprocess.Popen(words, cwd=work, env=environment(), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        yield next(found[0] for line in server.stdout if (found := re.search(r"http://[\d.:]+", line)))
    finally:
        server.terminate()
        server.communicate()


def program(*words: str) -> list[str]:
    return [sys.executable, "-m", "hazard", *words]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def wait_for(condition: Callable[[], object]) -> None:
    """Return when the condition holds. Raises TimeoutError after PATIENCE seconds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the page did not become ready")
        time.sleep(0.2)


def find_end(tab: Tab, title: str) -> int:
    """Return where the part of the page with this title ends, in pixels from the top."""
    headings = "[...document.querySelectorAll('h2, h3')].find(each => each.textContent == " + json.dumps(title) + ")"
    return int(tab.evaluate(f"{headings}.closest('.card').getBoundingClientRect().bottom + scrollY")) + 8


def write_picture(tab: Tab, file: Path, *, end: int, start: int = 0) -> None:
    """Write a part of the page as a small PNG; `start` and `end` are pixels from the top."""
    tab.screenshot(file)
    with Image.open(file) as image:
        part = image.convert("RGB").crop((0, start, image.width, min(end, image.height)))
    for colors in (256, 128, 64):
        part.quantize(colors, kmeans=2, dither=Image.Dither.NONE).save(file, optimize=True)
        if file.stat().st_size <= MAX_BYTES:
            break
    click.echo(f"{file}: {part.width} x {part.height}, {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
