"""The highlights, decoded again."""

from dataclasses import replace
from pathlib import Path

import av.logging
import numpy as np
import pytest

from features.errors import RuntimeEnvironmentError
from hazard.rendering.excerpts import Excerpt, ExcerptJob, ExcerptTask
from hazard.rendering.highlights import HighlightReel, write_highlights
from hazard.types import ClipPrediction, Event
from tests.helpers.data.movies import GREY, inspect_video, write_movie


@pytest.fixture(autouse=True)
def _quiet() -> None:
    av.logging.set_level(None)


def clip(source: Path, *events: tuple[float, float, float], path: str = "", **more) -> ClipPrediction:
    """Make a clip with events (start, end, peak)."""
    found = tuple(Event("fight", start, end, peak, peak) for start, end, peak in events)
    return ClipPrediction(path or source.name, "ok", file=str(source), duration=8.0, events=found, **more)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of eight seconds; the left half of each frame encodes its number."""
    return write_movie(tmp_path_factory.mktemp("reel") / "a.mp4", 200, size=(480, 270))


def numbers(images, area=(480, 270)):
    return [int(image[area[1] // 2, area[0] // 4].astype(int).mean()) - GREY for image in images]


def film(tmp_path: Path, excerpt: Excerpt, area: tuple[int, int] = (480, 270)):
    """Write one excerpt in this process; return its frame size and content."""
    task = ExcerptTask(excerpt, 0, 1, tmp_path / "film.mp4")
    make = ExcerptJob().start()
    size = make(task, lambda: None)
    assert make(replace(task, frame_area=area), lambda: None) is None
    return size, inspect_video(task.file)


def is_banner(image: np.ndarray) -> bool:
    red, _, blue = image[-3, 4:-4].astype(int).mean(axis=0)
    return red - blue > 60


def test_an_excerpt_shows_the_event_and_what_is_around_it(source, tmp_path):
    event = Event("fight", 2.0, 3.0, 0.9, 0.8)
    size, found = film(tmp_path, Excerpt("a.mp4", str(source), 0.0, 1.0, 4.5, (event,)))
    assert size == (480, 270)
    assert found.size[0] == 480
    assert found.size[1] > 270
    assert (found.codec, found.pix_fmt, found.sound) == ("h264", "yuv420p", "")
    assert found.times == pytest.approx(np.arange(88) / 25, abs=1e-3)
    assert numbers(found.images) == pytest.approx(list(range(25, 113)), abs=4)
    assert [round(time, 2) for time, image in zip(found.times, found.images, strict=True) if is_banner(image)] == [
        round(1 + i / 25, 2) for i in range(25)
    ]


def test_other_rates_and_shapes_are_letterboxed_at_one_rate(tmp_path):
    source = write_movie(tmp_path / "b.mp4", times=[0, 0.5, 0.52, 1.0], size=(120, 240), sound="")
    size, found = film(tmp_path, Excerpt("b.mp4", str(source), 0.0, 0.0, 9.0, (Event("x", 0, 1, 1, 1),)))
    assert size == (120, 240)
    assert found.times == pytest.approx(np.arange(len(found.times)) / 25, abs=1e-3)
    assert found.duration == pytest.approx(1.04, abs=0.05)
    image = found.images[5]
    assert image[100, 20].max() < 20  # black beside the frame
    assert abs(int(image[100, 260].mean()) - GREY) < 8


def test_events_are_shown_in_order_and_the_least_probable_are_left_out(source, tmp_path):
    other = write_movie(tmp_path / "b.mp4", 50, size=(160, 120), sound="")
    clips = [
        clip(other, (0.5, 1.0, 0.7), path="z.mp4"),
        clip(source, (6.0, 6.5, 0.8), (1.0, 1.5, 0.95), (1.75, 2.0, 0.9)),
        clip(source, (3.0, 4.0, 0.99), path="part.mp4#t=2,7"),
        clip(source, (3.0, 4.0, 0.6), path="weak.mp4"),
        clip(tmp_path / "absent.mp4", (0.0, 1.0, 0.9), path="gone.mp4"),
        ClipPrediction("failed.mp4", "failed", "open: empty file"),
    ]
    target = tmp_path / "report" / "highlights.mp4"
    reel = write_highlights(iter(clips), target, around_seconds=0.2, max_events=6, workers=1)
    assert (reel.file, reel.events, reel.omitted_events) == (target, 5, 1)
    assert reel.failures == (("gone.mp4", "open: No such file or directory"),)
    assert "the 1 least probable" in reel.summary_text
    assert "1 excerpt failed" in reel.summary_text
    assert [file.name for file in target.parent.iterdir()] == ["highlights.mp4"]
    found = inspect_video(target)
    assert (found.size[0], found.sound, found.has_index_in_front) == (480, "", True)
    lengths = [1.4, 0.9, 1.4, 0.9]  # a.mp4: two events in one excerpt, then one; the part; z.mp4
    assert found.duration == pytest.approx(sum(lengths), abs=0.13)
    assert reel.seconds == pytest.approx(found.duration, abs=1e-3)
    assert np.diff(found.times) == pytest.approx(1 / 25, abs=1e-3)
    seen = numbers(found.images)
    assert seen[0] == pytest.approx(20, abs=4)
    assert seen[37] == pytest.approx(147, abs=6)
    assert seen[60] == pytest.approx(120 + 2, abs=6)  # 4.8 s of the file, whose part begins at 2 s


def test_long_events_and_long_reels_are_cut(source, tmp_path):
    reel = write_highlights(
        [clip(source, (1.0, 7.0, 0.9)), clip(source, (1.0, 2.0, 0.8), path="b.mp4")],
        tmp_path / "h.mp4",
        around_seconds=0.2,
        longest_seconds=1.0,
        max_seconds=2.0,
        workers=1,
    )
    assert (reel.events, reel.omitted_events) == (1, 1)
    assert reel.seconds == pytest.approx(1.4, abs=0.05)


def test_nothing_to_show_writes_nothing(source, tmp_path):
    target = tmp_path / "h.mp4"
    target.write_bytes(b"of the last run")
    reel = write_highlights([clip(source)], target)
    assert reel == HighlightReel(None, 0, 0, 0.0)
    assert reel.summary_text == "no highlights: there are no events"
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_can_be_shown_writes_nothing(tmp_path):
    reel = write_highlights([clip(tmp_path / "absent.mp4", (0.0, 1.0, 0.9))], tmp_path / "h.mp4", workers=1)
    assert reel.file is None
    assert "none of 1 event could be shown (open: No such file" in reel.summary_text
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_cannot_be_written(source, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeEnvironmentError):
        write_highlights([clip(source, (1.0, 2.0, 0.9))], tmp_path / "file" / "h.mp4")
