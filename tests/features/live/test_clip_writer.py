"""Clips of live cameras: what is buffered, what is written, and that no failed clip stops the reading of a camera."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.live.cameras import LiveCameras, open_cameras
from features.live.clip_writer import make_decoding_times, write_clip
from features.live.packet_buffer import PACKET_OVERHEAD_BYTES, EncodedPacket, PacketBuffer, PacketTap, StreamParameters
from features.live.source import Camera
from tests.helpers.data.videos import SIZE, numbered_frame, read_number, write_numbered
from tests.helpers.live_cameras import SHORT_TIMEOUTS, WHOLE, collect, frames_of, kinds_of, needs_rtsp
from tests.helpers.paths import ROOT
from tests.helpers.servers.rtsp import rtsp_camera

QUIET = {"x265-params": "log-level=none"}


# What is kept.

STEPS = st.lists(st.tuples(st.sampled_from([0.0, 0.04, 0.2, 3.0]), st.integers(0, 3000), st.booleans()), max_size=80)
SECONDS, MOST = 2.0, 20_000


def coded(arrived: float, size: int = 0, *, is_keyframe: bool = True, seconds: float | None = None) -> EncodedPacket:
    return EncodedPacket(bytes(size), arrived, is_keyframe, seconds=seconds)


@given(STEPS)
def test_a_ring_is_bounded_and_begins_with_a_keyframe(steps: list[tuple[float, int, bool]]) -> None:
    ring, now, came = PacketBuffer(SECONDS, max_bytes=MOST), 0.0, []
    for step, size, is_keyframe in steps:
        now += step
        came.append(coded(now, size, is_keyframe=is_keyframe))
        ring.add(came[-1])
        kept = ring.packets_between(-1.0, now)
        assert ring.size_bytes == sum(packet.size_bytes for packet in kept) <= MOST
        assert list(kept) == came[len(came) - len(kept) :]  # exactly the last ones
        if kept:
            assert kept[0].is_keyframe
            later = [packet.arrived for packet in kept[1:] if packet.is_keyframe]
            assert not later or later[0] > now - SECONDS  # no older group than needed


def test_of_a_calm_stream_all_wanted_seconds_are_there() -> None:
    ring = PacketBuffer(5.0)
    for number in range(1000):
        ring.add(coded(number * 0.04, is_keyframe=number % 50 == 0, seconds=number * 0.04))
    kept = ring.packets_between(-1.0, 99.0)
    assert kept[0].arrived <= 39.96 - 5.0 < kept[50].arrived
    asked = ring.packets_between(37.0, 38.5)
    assert asked[0].arrived == pytest.approx(36.0) and asked[-1].arrived == pytest.approx(38.48)
    assert ring.packets_between(0.0, 10.0) == () and ring.packets_between(40.0, 50.0) == ()


def test_keyframes_that_never_come_again_take_no_memory_for_ever() -> None:
    ring = PacketBuffer(5.0, max_bytes=100 * PACKET_OVERHEAD_BYTES)
    for number in range(1000):
        ring.add(coded(number * 0.04, is_keyframe=number == 0))
        assert ring.size_bytes <= 100 * PACKET_OVERHEAD_BYTES
    assert ring.packets_between(0.0, 99.0) == ()
    ring.add(coded(50.0))
    assert len(ring.packets_between(0.0, 99.0)) == 1


@pytest.mark.parametrize("leap", [-3.0, 30.0])
def test_what_came_before_a_leap_of_the_clock_is_forgotten(leap: float) -> None:
    ring = PacketBuffer(60.0)
    for number in range(100):
        ring.add(coded(number * 0.1, seconds=number * 0.1 + (leap if number >= 70 else 0.0)))
    assert len(ring.packets_between(0.0, 99.0)) == 30


# What is written.


@given(st.lists(st.integers(0, 300), min_size=1, max_size=40))
def test_packets_are_decoded_before_they_are_shown(times: list[int]) -> None:
    decoded = make_decoding_times(times)
    assert all(before < after for before, after in pairwise(decoded))
    if len(set(times)) == len(times):
        assert all(at <= shown for at, shown in zip(decoded, times, strict=True))
    assert make_decoding_times(sorted(set(times))) == sorted(set(times))  # no frame is delayed without need


def kept(file: Path) -> tuple[StreamParameters, tuple[EncodedPacket, ...]]:
    packet_tap = PacketTap(1000)
    with av.open(str(file)) as container:
        for _ in packet_tap.pass_through(container.demux(container.streams.video[0]), container.streams.video[0]):
            pass
    assert packet_tap.parameters
    return packet_tap.parameters, packet_tap.buffer.packets_between(0.0, time.monotonic())


def played(file: Path) -> tuple[list[int], list[float], Any]:
    """Return the numbers of a clip's frames, their presentation times, and the stream."""
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert file.read_bytes().index(b"moov") < file.read_bytes().index(b"mdat")
        return (
            [read_number(frame.to_ndarray(format="rgb24")) for frame in frames],
            [f.time or 0.0 for f in frames],
            stream,
        )


def write_motion_jpeg(path: Path, count: int) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuvj420p"
        for number in range(count):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")))
        file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "options", "tag"),
    [
        ("a.mp4", "libx264", {}, "avc1"),
        ("a.ts", "libx264", {}, "avc1"),
        ("a.ts", "libx265", QUIET, "hvc1"),
        ("a.webm", "libvpx-vp9", {}, "vp09"),
        ("a.nut", "rawvideo", {}, None),
        ("a.avi", "mpeg4", {}, None),
        ("a.avi", "mjpeg", {}, None),
    ],
)
def test_any_codec_becomes_a_file_that_browsers_play(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], tag: str | None
) -> None:
    file = (
        write_motion_jpeg(tmp_path / name, 60)
        if codec == "mjpeg"
        else write_numbered(tmp_path / name, 60, codec=codec, options=options)
    )
    coding, packets = kept(file)
    assert coding.is_browser_playable == (tag is not None)
    assert write_clip(coding, packets, tmp_path / "clip.mp4") == pytest.approx(2.4)
    numbers, times, stream = played(tmp_path / "clip.mp4")
    assert numbers == list(range(60)) and times == pytest.approx([i / 25 for i in range(60)], abs=2e-3)
    assert stream.codec_context.codec_tag == (tag or "avc1") and float(stream.duration * stream.time_base) == 2.4
    assert sorted(os.listdir(tmp_path)) == sorted([name, "clip.mp4"])


def test_a_clip_of_turned_video_is_turned_and_a_transcoded_one_keeps_its_colours(tmp_path: Path) -> None:
    for name, codec in (("a.mp4", "libx264"), ("b.mp4", "mpeg4")):
        write_clip(*kept(write_numbered(tmp_path / name, 12, codec=codec, rotation=90)), tmp_path / "clip.mp4")
        with av.open(str(tmp_path / "clip.mp4")) as container:
            assert next(container.decode(video=0)).rotation == 90
    write_clip(*kept(write_motion_jpeg(tmp_path / "c.avi", 5)), tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        image = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    assert np.abs(image - numbered_frame(0)).mean() < 4  # the color range is written: black is black, white is white


def test_a_clip_may_begin_at_any_keyframe_whatever_refers_to_what_was_before(tmp_path: Path) -> None:
    options = {"x265-params": "log-level=none:open-gop=1:bframes=3:keyint=20:min-keyint=20"}
    coding, packets = kept(write_numbered(tmp_path / "a.mp4", 100, codec="libx265", options=options, gop=20))
    second = [i for i, packet in enumerate(packets) if packet.is_keyframe][2]
    write_clip(coding, packets[second:], tmp_path / "clip.mp4")
    numbers, times, _ = played(tmp_path / "clip.mp4")
    assert numbers == list(range(100 - len(numbers), 100)) and 55 <= len(numbers) <= 60 and times[0] == 0.0


# Cameras.


@contextmanager
def watching(source: str, **options: Any) -> Iterator[LiveCameras]:
    """Read a camera that has already delivered a frame."""
    settings = {"clip_seconds": 5.0, "timeouts": SHORT_TIMEOUTS, "silence_seconds": 2, "random": lambda: 0.3, **options}
    with open_cameras([Camera("yard", source, is_repeated=True)], WHOLE, 10, **settings) as live:
        collect(live, frames_of)
        yield live


def watch_on(live: LiveCameras, seconds: float) -> float:
    """Poll for a while and return the time at its end."""
    end = time.monotonic() + seconds
    collect(live, lambda _: time.monotonic() >= end)
    return time.monotonic()


def record(live: LiveCameras, file: Path, since: float, until: float) -> None:
    """Request a clip, and poll until it is written or has failed."""
    live.record("yard", file, since=since, until=until)
    assert live.is_writing or not file.exists()  # requested, but not waited for
    collect(live, lambda _: not live.is_writing)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of numbered frames, 25 a second, a keyframe each half second."""
    return write_numbered(tmp_path_factory.mktemp("clips") / "recording.mp4", 250)


def test_a_clip_shows_what_came_between_two_moments(recording: Path, tmp_path: Path) -> None:
    with watching(str(recording)) as live:
        began = time.monotonic()
        now = watch_on(live, 3.0)
        record(live, tmp_path / "clip.mp4", began + 1.0, now - 0.5)
        numbers, times, _ = played(tmp_path / "clip.mp4")
        assert len(frames_of(collect(live, lambda found: len(frames_of(found)) > 5))) > 5
    wanted = (now - 0.5) - (began + 1.0)
    assert is_whole(numbers) and numbers[0] % 12 == 0 and wanted - 0.5 <= len(numbers) / 25 <= wanted + 1
    assert times[:-3] == pytest.approx([i / 25 for i in range(len(times) - 3)], abs=1e-3)
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_motion_jpeg_is_transcoded_and_goes_by_the_clock(motion_jpeg: str, tmp_path: Path) -> None:
    with watching(motion_jpeg) as live:
        began = time.monotonic()
        now = watch_on(live, 2.0)
        record(live, tmp_path / "clip.mp4", began, now)
    numbers, times, stream = played(tmp_path / "clip.mp4")
    assert stream.codec_context.name == "h264" and is_whole(numbers)
    assert len(numbers) > 10 and now - began - 0.5 < times[-1] < now - began + 0.5


def test_what_lies_behind_a_packet_in_memory_is_not_read(tmp_path: Path) -> None:
    """Decoders read beyond a packet's end. An MPEG-4 decoder would take these bytes for more of the packet."""
    file = write_numbered(tmp_path / "a.avi", 60, codec="mpeg4", options={"threads": "1"})
    coding, packets = kept(file)
    beside: Any = [replace(p, data=memoryview(p.data + b"\0\x80" + bytes(62))[: len(p.data)]) for p in packets]
    write_clip(coding, beside, tmp_path / "clip.mp4")
    assert played(tmp_path / "clip.mp4")[0] == list(range(60))


def is_whole(numbers: list[int]) -> bool:
    """Check that no frame is missing. Frames that depend on a frame shown later may be missing at the end."""
    return numbers[:-3] == list(range(numbers[0], numbers[0] + len(numbers) - 3))


@needs_rtsp
def test_what_came_before_a_camera_was_lost_is_still_to_be_had(recording: Path, tmp_path: Path) -> None:
    with rtsp_camera(recording) as server, watching(server.url, random=lambda: 0.99) as live:
        began = time.monotonic()
        watch_on(live, 2.0)
        server.kill()
        killed = time.monotonic()
        collect(live, kinds_of)
        record(live, tmp_path / "clip.mp4", began, killed)
    numbers, times, _ = played(tmp_path / "clip.mp4")
    assert is_whole(numbers) and killed - began - 0.5 < times[-1] < killed - began + 1


@needs_rtsp
def test_packets_that_are_passed_over_to_catch_up_are_in_the_clip(recording: Path, tmp_path: Path) -> None:
    with rtsp_camera(recording) as server, watching(server.url, clip_seconds=20) as live:
        began, process = time.monotonic(), live._processes[0]._process.pid or 0
        os.kill(process, signal.SIGSTOP)
        watch_on(live, 3.2)
        os.kill(process, signal.SIGCONT)
        collect(live, lambda _: live.counters()["yard"].skipped > 20)
        record(live, tmp_path / "clip.mp4", began, watch_on(live, 0.5))
    numbers, _, _ = played(tmp_path / "clip.mp4")
    assert numbers == sorted(set(numbers)) and len(numbers) > 75  # the server may drop packets that are not read


@pytest.mark.parametrize("trouble", ["no folder", "full", "folder"])
def test_a_disk_that_takes_no_clip_is_a_warning(
    trouble: str, recording: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / ("none/clip.mp4" if trouble == "no folder" else "clip.mp4")
    with watching(str(recording)) as live:
        if trouble == "full":
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.prlimit(live._processes[0]._process.pid or 0, resource.RLIMIT_FSIZE, (3000, hard))
        elif trouble == "folder":
            file.mkdir()
        began = time.monotonic() - 1
        record(live, file, began, watch_on(live, 0.5))
        collect(live, lambda found: len(frames_of(found)) > 5)
        assert live.counters()["yard"].reconnects == 0
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    said = {"no folder": "No such file or directory", "full": "File too large", "folder": "Is a directory"}[trouble]
    assert warning == f"camera yard: clip {file} not saved: {said}"
    assert [path for path in tmp_path.rglob("*") if path != file] == []


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage().partition("not saved: ")[2] for record in caplog.records if record.levelname == "WARNING"
    ]


@pytest.mark.parametrize("options", [{"clip_seconds": 0.0}, {"is_paced": False}])
def test_nothing_is_kept_where_it_was_not_asked_for_or_time_is_not_real(
    options: dict[str, Any], recording: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with watching(str(recording), **options) as live:
        record(live, tmp_path / "clip.mp4", 0.0, time.monotonic())
    assert warnings(caplog) == ["no video of that time is buffered"] and os.listdir(tmp_path) == []


def test_a_camera_that_is_down_gives_no_clip_and_holds_up_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    camera = Camera("yard", str(tmp_path / "none.mp4"))
    with open_cameras([camera], WHOLE, 5, clip_seconds=5, silence_seconds=0.2, random=lambda: 0.99) as live:
        collect(live, kinds_of)
        record(live, tmp_path / "clip.mp4", 0.0, time.monotonic())
        assert warnings(caplog) == ["no video of that time is buffered"]
    live.record("yard", tmp_path / "clip.mp4", since=0.0, until=time.monotonic())
    assert warnings(caplog)[1:] == ["the reader process has ended"]


def test_a_reader_that_is_killed_leaves_nothing_half_written_and_few_orders_wait(
    recording: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with watching(str(recording)) as live:
        process = live._processes[0]._process.pid or 0
        os.kill(process, signal.SIGSTOP)
        (tmp_path / f".clip0.mp4.tmp-{socket.gethostname()}-{process}").touch()  # an unfinished temporary file
        for number in range(6):
            live.record("yard", tmp_path / f"clip{number}.mp4", since=0.0, until=time.monotonic())
        assert warnings(caplog) == ["4 other clips are still waiting to be written"] * 2
        os.kill(process, signal.SIGKILL)
        collect(live, lambda _: not live.is_writing)
        assert warnings(caplog)[2:] == ["the reader process ended before the clip was written"] * 4
        collect(live, lambda found: any(frame.session == 2 for frame in frames_of(found)))
        assert os.listdir(tmp_path) == []
        record(live, tmp_path / "clip.mp4", 0.0, watch_on(live, 0.3))
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_other_processes_find_their_modules_in_the_fork_server_of_the_readers(recording: Path) -> None:
    script = f"""
import sys
from features.live.cameras import open_cameras
from features.live.source import Camera
from features.utils.worker_pool import make_worker_context
from features.spec import Preprocessing
with open_cameras([Camera("yard", {str(recording)!r})], Preprocessing(size=32), 5, preload=["wave"]):
    context = make_worker_context(["colorsys"])
    process = context.Process(target=exec, args=("import sys; sys.exit(7 * ('wave' in sys.modules))",))
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True)
    assert ran.returncode == 7, ran.stderr.decode()
