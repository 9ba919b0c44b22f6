"""Annotated videos: decoded again, and played in a browser."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path, PurePosixPath

import av
import av.logging
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import ClipError, RuntimeEnvironmentError
from hazard.events.decision import Decision
from hazard.rendering.annotate import annotate_all, annotate_video, make_overlay_function, parse_clip_span
from hazard.rendering.overlay import OverlayState, ScoreTimeline, draw_overlay, max_value_per_column
from hazard.rendering.text import format_percent, format_timecode
from hazard.types import ClipPrediction, Event
from hazard.utils.safe_names import annotated_video_path
from tests.helpers.data.image_folders import write_images
from tests.helpers.data.movies import DECISION, GREY, inspect_video, make_decided_clip, write_movie
from tests.helpers.data.videos import make_fifo, read_number, truncate, write_audio_only, write_textured

QUIET, LOUD = 0.1, 0.9


@pytest.fixture(autouse=True)
def _quiet() -> None:
    av.logging.set_level(None)


def annotated(source: Path, clip: ClipPrediction, **options):
    target = source.parent / "annotated.mp4"
    annotate_video(source, target, clip, decision=DECISION, **options)
    assert [file.name for file in source.parent.iterdir() if file.name.startswith(".")] == []
    return inspect_video(target)


def test_a_browser_can_play_it_and_nothing_of_the_video_is_lost(tmp_path):
    source = write_movie(tmp_path / "a.mp4", 50)
    found = annotated(source, make_decided_clip(source, [QUIET, LOUD, LOUD, QUIET]))
    assert (found.codec, found.pix_fmt, found.size, found.has_index_in_front) == ("h264", "yuv420p", (160, 120), True)
    assert found.times == pytest.approx([i / 25 for i in range(50)], abs=1e-3)
    assert found.duration == pytest.approx(2.0, abs=1e-3)
    assert found.sound == "aac"
    assert found.sound_seconds == pytest.approx(2.0, abs=0.06)
    middles = [image[60, 20].astype(int) for image in found.images]
    assert all(np.abs(middle - (GREY + i)).max() < 8 for i, middle in enumerate(middles))


def test_the_banner_is_there_during_events_and_at_no_other_time(tmp_path):
    source = write_movie(tmp_path / "a.mp4", 50)
    clip = make_decided_clip(source, [QUIET, LOUD, QUIET, LOUD])
    assert [(event.start, event.end) for event in clip.events] == [(0.5, 1.0), (1.5, 2.0)]
    found = annotated(source, clip)
    assert found.find_banner_times() == [time for time in found.times if 0.499 < time < 0.999 or time > 1.499]


def test_the_cursor_moves_along_the_timeline(tmp_path):
    source = write_movie(tmp_path / "a.mp4", 50, size=(320, 240))
    found = annotated(source, make_decided_clip(source, [QUIET] * 4))
    columns = [int(image[-24:-21, 60:].mean(axis=(0, 2)).argmax()) for image in found.images]
    assert columns == sorted(columns)
    assert columns[-1] - columns[0] > 230


def test_times_are_those_of_the_stream(tmp_path):
    times = [0, 0.04, 0.3, 0.31, 0.9, 1.4]
    source = write_movie(tmp_path / "a.mkv", times=times)
    assert annotated(source, make_decided_clip(source, [QUIET] * 3)).times == pytest.approx(times, abs=2e-3)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_by_metadata_is_upright(tmp_path, rotation):
    turns = rotation // 90
    upright = look_at(write_textured(tmp_path / "upright.mp4", 3))
    source = write_textured(tmp_path / "turned.mp4", 3, quarter_turns=turns, rotation=360 - rotation)
    found = annotated(source, make_decided_clip(source, [QUIET]))
    if found.size != (160, 120):  # FFmpeg decides the sign of a rotation
        pytest.fail(f"expected 160x120, got {found.size}")
    error = np.abs(found.images[1][30:90].astype(int) - upright[1][30:90].astype(int)).mean()
    flipped = np.abs(found.images[1][30:90].astype(int) - upright[1][30:90][::-1, ::-1].astype(int)).mean()
    assert error < 12 < flipped


def look_at(path):
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((161, 121), (160, 120)), ((64, 48), (160, 120)), ((2560, 1440), (1920, 1080)), ((1080, 2400), (864, 1920))],
)
def test_sizes_are_even_and_neither_too_small_nor_too_large(tmp_path, size, expected):
    source = write_movie(tmp_path / "a.mkv", 3, size=size, codec="mjpeg", pix_fmt="yuvj444p", sound="")
    found = annotated(source, make_decided_clip(source, [QUIET]))
    assert (found.size, len(found.times), found.sound) == (expected, 3, "")


def test_pixels_that_are_not_square_become_so(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.codec_context.thread_count = 1
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((120, 160, 3), GREY, np.uint8), format="rgb24")))
        file.mux(stream.encode(None))
    assert annotated(path, make_decided_clip(path, [QUIET])).size == (320, 120)


@pytest.mark.parametrize(("start", "end"), [(0.4, 1.2), (6.5, 7.1), (7.0, float("inf"))])
@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_a_part_begins_and_ends_where_it_should(tmp_path, start, end, suffix):
    source = write_movie(tmp_path / f"a.{suffix}", 200, size=(320, 120))
    clip = make_decided_clip(source, [QUIET, LOUD], window=0.3)
    found = annotated(source, clip, span=(start, end))
    expected = [time - start for time in np.arange(200) / 25 if start - 1e-6 <= time < end - 1e-6]
    assert found.times[-len(expected) :] == pytest.approx(expected, abs=2e-3)
    assert (
        len(expected) <= len(found.times) <= len(expected) + 1
    )  # one more: the frame on the screen when the part begins
    assert found.duration == pytest.approx(min(end, 8) - start, abs=3e-3)
    assert found.sound_seconds == pytest.approx(found.duration, abs=0.08)
    first = GREY + int(start * 25 + 1e-6) % 150
    assert np.abs(found.images[0][60, 20].astype(int) - first).max() < 9
    assert all(0.299 < time < 0.599 for time in found.find_banner_times())


def test_a_part_after_the_end_is_a_reason(tmp_path):
    source = write_movie(tmp_path / "a.mp4", 50)
    for start in (2.5, 9.0):
        with pytest.raises(ClipError, match=r"starts at .* s, but the video lasts only 2\.0 s"):
            annotated(source, make_decided_clip(source, [QUIET]), span=(start, 99.0))


@pytest.mark.parametrize(
    ("suffix", "sound", "expected"),
    [
        ("mp4", "libmp3lame", "mp3float"),
        ("mkv", "libopus", "opus"),
        ("mkv", "pcm_s16le", "aac"),
        ("avi", "libmp3lame", "aac"),
        ("ts", "aac", "aac"),
    ],
)
def test_sound_that_fits_is_kept_and_other_sound_becomes_aac(tmp_path, suffix, sound, expected):
    source = write_movie(tmp_path / f"a.{suffix}", 50, sound=sound)
    found = annotated(source, make_decided_clip(source, [QUIET]))
    assert found.sound == expected
    assert found.sound_seconds == pytest.approx(2.0, abs=0.1)
    assert found.duration == pytest.approx(2.0, abs=0.05)


def test_what_can_be_decoded_of_a_damaged_video_is_shown(tmp_path):
    source = truncate(write_textured(tmp_path / "a.mkv", 100), 0.6)
    found = annotated(source, replace(make_decided_clip(source, [QUIET] * 8), status="partial"))
    assert 40 <= len(found.times) <= 70


def test_a_folder_of_images_is_a_video(tmp_path):
    folder = write_images(tmp_path / "images", 25)
    (folder / "frame_12.jpg").write_bytes(b"damaged")
    clip = make_decided_clip(folder, [QUIET, QUIET])
    found = annotated(folder, clip, folder_fps=25, span=(0.2, 0.8))
    assert found.duration == pytest.approx(0.6, abs=1e-3)
    assert [round(5 + time * 25) for time in found.times] == [i for i in range(5, 20) if i != 11]
    assert read_number(found.images[0][30:-30]) == 5


def test_a_full_disk_stops_the_job_and_leaves_nothing(tmp_path):
    source = write_textured(tmp_path / "a.mp4", 60, size=(640, 480))
    program = f"""
import resource
from pathlib import Path
from hazard.rendering.annotate import annotate_video
from tests.helpers.data.movies import DECISION, make_decided_clip
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
source = Path({str(source)!r})
annotate_video(source, source.parent / "b.mp4", make_decided_clip(source, [0.1]), decision=DECISION)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "RuntimeEnvironmentError: no space to write" in ran.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_every_clip_has_an_outcome(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    good = write_movie(videos / "good.mp4", 25)
    (videos / "text.mp4").write_text("no video")
    clips = [
        make_decided_clip(good, [QUIET, LOUD]),
        make_decided_clip(good, [LOUD], path="../../good.mp4"),
        make_decided_clip(good, [LOUD], path="good.mp4#t=0.2,0.6"),
        make_decided_clip(videos / "text.mp4", [LOUD]),
        make_decided_clip(videos / "absent.mp4", [LOUD]),
        make_decided_clip(make_fifo(videos / "pipe.mp4"), [LOUD]),
        make_decided_clip(write_audio_only(videos / "sound.m4a"), [LOUD]),
        make_decided_clip(good, [LOUD], path="nowhere.mp4", file=""),
        ClipPrediction("failed.mp4", "failed", "open: empty file", file=str(good)),
    ]
    folder = tmp_path / "report" / "annotated"
    folder.parent.mkdir()
    outcomes = dict(annotate_all(iter(clips), folder, decision=DECISION, workers=1))
    written = {path: file for path, file in outcomes.items() if isinstance(file, Path)}
    assert set(written) == {"good.mp4", "../../good.mp4", "good.mp4#t=0.2,0.6"}
    assert inspect_video(written["good.mp4#t=0.2,0.6"]).duration == pytest.approx(0.4, abs=1e-3)
    assert sorted(file for file in folder.parent.rglob("*") if file.is_file()) == sorted(written.values())
    assert "not a video" in outcomes.pop("text.mp4")
    assert outcomes.pop("absent.mp4") == "open: no such file or directory"
    assert outcomes.pop("pipe.mp4") == "open: not a regular file"
    assert outcomes.pop("sound.m4a") == "open: no video stream"
    assert "not on this machine" in outcomes.pop("nowhere.mp4")
    assert "failed.mp4" not in outcomes

    before = {path: file.stat().st_mtime_ns for path, file in written.items()}
    clips[1] = make_decided_clip(good, [QUIET], path="../../good.mp4")
    again = dict(annotate_all(iter(clips[:3]), folder, decision=DECISION, workers=1))
    assert again == written
    assert [path for path, file in written.items() if file.stat().st_mtime_ns != before[path]] == ["../../good.mp4"]


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "annotated").touch()
    with pytest.raises(RuntimeEnvironmentError):
        list(annotate_all([], tmp_path / "annotated", decision=DECISION))


# ---- what is shown --------------------------------------------------------------------------------------------------


def test_the_number_is_that_of_the_window_whose_core_holds_the_moment():
    clip = make_decided_clip(Path("a.mp4"), [0.1, 0.7, 0.3], window=2.0)
    shown = make_overlay_function(clip, DECISION)
    found = [(shown(s).probability, shown(s).label, shown(s).is_event) for s in (0, 1.9, 2.1, 3.9, 4.1, 5.9, 7)]
    quiet, loud, after = (0.1, "calm", False), (0.7, "fight", True), (0.3, "calm", False)
    assert found == [quiet, quiet, loud, loud, after, after, after]
    assert shown(1).probability_label == "fight"


def test_several_labels_without_a_positive_one():
    clip = make_decided_clip(Path("a.mp4"), [0.2, 0.8])
    shown = make_overlay_function(clip, Decision(("fight", "calm"), "", 0.5, ()))
    assert [(shown(s).label, shown(s).probability) for s in (0.1, 0.9)] == [("calm", 0.8), ("fight", 0.8)]


def test_unknown_and_zero_shot_are_marked():
    clip = replace(make_decided_clip(Path("a.mp4"), [QUIET, QUIET]), is_unknown=True)
    assert (make_overlay_function(clip, DECISION)(0).label, make_overlay_function(clip, DECISION)(0).note) == (
        "unknown",
        "unlike the training clips",
    )
    named = make_overlay_function(replace(clip, zero_shot=(("running", 0.64), ("dancing", 0.2))), DECISION)(0)
    assert (named.label, named.note) == ("unknown", "zero-shot: running 64 %")


@pytest.mark.parametrize("size", [(2, 2), (30, 20), (160, 120), (320, 240), (720, 1280), (3840, 2160)])
def test_it_is_drawn_at_any_size(size):
    events = (Event("fight", 1.0, 2.0, 0.9, 0.8),)
    timeline = ScoreTimeline(0, 4, np.array([[0, 2], [2, 4.0]]), np.array([0.9, 0.2]), events, 0.6)
    image = np.full((size[1], size[0], 3), GREY, np.uint8)
    draw_overlay(image, OverlayState(1.5, "0:01.5", "драка – قتال\n\udcff", "note", 0.9, "fight", 0.6, True, timeline))
    changed = (image != GREY).any(axis=(1, 2))
    assert changed[0]
    assert changed[-1]
    if size[1] >= 120:
        assert not changed[int(0.2 * size[1]) : int(0.8 * size[1])].any()
        assert (image[: size[1] // 6] > 230).all(axis=2).any()  # letters


def test_a_short_peak_shows_on_a_long_timeline():
    spans = np.stack([np.arange(10_000), np.arange(10_000) + 1.0], axis=1)
    values = np.zeros(10_000)
    values[7_003] = 1.0
    found = max_value_per_column(ScoreTimeline(0, 10_000, spans, values), np.linspace(0, 10_000, 101))
    assert np.flatnonzero(found).tolist() == [70]


def test_clocks_and_numbers():
    assert [format_timecode(s) for s in (0, 4.25, 59.99, 60, 3723.4)] == [
        "0:00.0",
        "0:04.2",
        "0:59.9",
        "1:00.0",
        "1:02:03.4",
    ]
    assert [format_percent(p) for p in (0, 0.004, 0.5, 0.996, 1)] == ["0 %", "<1 %", "50 %", ">99 %", "100 %"]


# ---- names ----------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    ["a", "b.mp4", "a.mp4", "..", ".", "", "#t=1,2", "ü", "\udcff", "x" * 300, "a b", "C:\\x", "\n"]
)
PATHS = st.lists(PIECES, min_size=1, max_size=4).map("/".join) | st.text(max_size=30)


@given(st.lists(PATHS, unique=True, max_size=30))
def test_names_of_outputs_are_distinct_and_stay_inside(paths):
    names = [annotated_video_path(path) for path in paths]
    assert len(set(names)) == len(paths)
    folders = {parent for name in names for parent in name.parents}
    assert not folders & set(names)
    for name in names:
        assert not name.is_absolute()
        assert name.suffix == ".mp4"
        assert all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in name.parts)
        assert "\\" not in str(name)


@given(st.lists(PATHS, unique=True, max_size=5))
def test_a_name_that_was_given_out_is_not_given_to_another_clip(paths):
    """An annotated video that is itself a source gets another name."""
    given = [str(annotated_video_path(path)) for path in paths]
    both = list(dict.fromkeys([*paths, *given]))
    assert len({annotated_video_path(path) for path in both}) == len(both)


def test_harmless_names_are_kept():
    assert annotated_video_path("fight/fi 001 (a).mp4") == PurePosixPath("fight/fi 001 (a).mp4")
    assert annotated_video_path("größe/a.mp4") == PurePosixPath("größe/a.mp4")
    assert annotated_video_path("fight/a.avi").match("fight/a.avi-*.mp4")
    assert annotated_video_path("fight/a.mp4#t=1,2").match("fight/a.mp4_t_1_2-*.mp4")
    assert annotated_video_path("https://example.org/v.mp4?x=1").match("v.mp4_x_1-*.mp4")


def test_the_part_that_a_clip_is():
    def clip(path, file="/videos/a.mp4"):
        return ClipPrediction(path, "ok", file=file)

    assert parse_clip_span(clip("a.mp4#t=12,15.5")) == (12, 15.5)
    assert parse_clip_span(clip("a.mp4#t=12")) == (12, float("inf"))
    assert parse_clip_span(clip("https://example.org/a.mp4#t=,3")) == (0, 3)
    assert parse_clip_span(clip("a.mp4")) == (0, float("inf"))
    assert parse_clip_span(clip("odd#t=1,2", "/videos/odd#t=1,2")) == (0, float("inf"))


# ---- in a browser ---------------------------------------------------------------------------------------------------

PAGE = """<!doctype html><title>player</title><body><video muted src="{name}"></video><script>
const video = document.querySelector("video");
const say = (what) => document.body.setAttribute("data-said", what);
video.onerror = () => say("error " + video.error.code);
video.oncanplaythrough = () =>
  say([video.error === null, video.duration.toFixed(2), video.videoWidth, video.videoHeight].join(" "));
</script>"""


def test_it_plays_in_chromium(tmp_path):
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine (Debian package: chromium)")
    source = write_movie(tmp_path / "a.mp4", 50)
    annotated(source, make_decided_clip(source, [QUIET, LOUD, QUIET, QUIET]))
    page = tmp_path / "page.html"
    page.write_text(PAGE.format(name="annotated.mp4"))
    is_fine, duration, *size = browsed(chromium, page, tmp_path / "profile").split()
    assert (is_fine, size) == ("true", ["160", "120"])
    assert float(duration) == pytest.approx(2.0, abs=0.05)  # AAC comes in packets of 21 ms


def browsed(chromium, page, profile):
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    switches += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"]
    command = [chromium, *switches, "--timeout=15000", "--virtual-time-budget=4000", "--dump-dom", page.as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    return ran.stdout.partition('data-said="')[2].partition('"')[0]
