"""The reader processes of live cameras, tested with files, stub servers and a real RTSP server.

Row 43 of the fault table.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from features.errors import SettingsError
from features.live.cameras import open_cameras
from features.live.source import Camera
from features.live.types import StatusChange
from tests.helpers.data.videos import SIZE, numbered_frame, read_number, truncate, write_numbered
from tests.helpers.live_cameras import SHORT_TIMEOUTS, WHOLE, collect, frames_of, kinds_of, needs_rtsp
from tests.helpers.servers.local_http import serve
from tests.helpers.servers.rtsp import rtsp_camera, silent_server


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of numbered frames, 25 a second."""
    return write_numbered(tmp_path_factory.mktemp("live") / "recording.mp4", 250)


def test_a_replay_gives_the_very_frames_of_the_file_and_drops_none(recording: Path) -> None:
    cameras = [Camera("yard", str(recording)), Camera("gate", str(recording))]
    with open_cameras(cameras, WHOLE, 5, is_paced=False, thumbnail_width=40, ring_frames=2) as live:
        found = collect(live, lambda _: live.is_over)
        counters = live.counters()["yard"]
    assert (counters.state, counters.decoded, counters.picked, counters.dropped) == ("ended", 250, 50, 0)
    for camera in ("yard", "gate"):
        frames = frames_of(found, camera)
        assert [read_number(frame.pixels) for frame in frames] == list(range(2, 250, 5))
        assert [frame.seconds for frame in frames] == pytest.approx([0.08 + 0.2 * i for i in range(50)])
        assert kinds_of(found, camera) == ["ended"] and {frame.session for frame in frames} == {1}
    picture = cv2.imdecode(np.frombuffer(frames[7].jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and picture.shape[1] == 40


def test_a_slow_consumer_sees_the_present_and_knows_what_it_missed(recording: Path) -> None:
    with open_cameras([Camera("yard", str(recording), is_repeated=True)], WHOLE, 25, ring_frames=4) as live:
        before = frames_of(collect(live, frames_of))[-1]
        busy = time.monotonic() + 1.0
        threading.Event().wait(1.0)  # the consumer is elsewhere
        frames = frames_of(collect(live, frames_of))
        assert len(frames) <= 4 and frames[-1].arrived > busy - 0.5
        passed_over = round(25 * (frames[0].seconds - before.seconds)) - 1
        counters = live.counters()["yard"]
        assert passed_over >= 8 and counters.dropped + counters.skipped >= passed_over and counters.state == "live"


def test_a_frozen_reader_and_a_crashed_one_are_replaced(recording: Path) -> None:
    with open_cameras([Camera("yard", str(recording))], WHOLE, 5, timeouts=SHORT_TIMEOUTS, silence_seconds=1) as live:
        collect(live, frames_of)
        process = live._processes[0]._process
        os.kill(process.pid or 0, signal.SIGSEGV)
        found = collect(live, lambda found: any(frame.session == 2 for frame in frames_of(found)))
        assert "the decoder crashed (SIGSEGV)" in live.counters()["yard"].reason
        assert live.counters()["yard"].reconnects == 1
        assert kinds_of(found) in ([], ["offline", "back"])  # as the machine is quick or slow
        os.kill(live._processes[0]._process.pid or 0, signal.SIGSTOP)
        found = collect(live, lambda found: any(frame.session == 3 for frame in frames_of(found)))
        assert kinds_of(found) == ["offline", "back"]
        assert "the reader process hung" in live.counters()["yard"].reason


def test_a_file_that_is_none_is_tried_again_and_then_offline(tmp_path: Path) -> None:
    source = tmp_path / "none.mp4"
    with open_cameras([Camera("yard", str(source))], WHOLE, 5, silence_seconds=0.5, random=lambda: 0.0) as live:
        (notice,) = collect(live, len)
        assert isinstance(notice, StatusChange) and notice.kind == "offline" and notice.since is None
        assert notice.reason == "No such file or directory"
        source.symlink_to(write_numbered(tmp_path / "there.mp4", 50))
        assert kinds_of(collect(live, frames_of)) == ["back"]


def test_a_playlist_among_files_opens_nothing_else(tmp_path: Path, recording: Path) -> None:
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"ffconcat version 1.0\nfile {recording}\n")
    with open_cameras([Camera("yard", str(playlist))], WHOLE, 5, silence_seconds=0.5, random=lambda: 0.1) as live:
        assert not frames_of(collect(live, len)) and "not a video" in live.counters()["yard"].reason


def test_a_truncated_file_is_played_up_to_where_it_is_cut(tmp_path: Path) -> None:
    file = truncate(write_numbered(tmp_path / "cut.mkv", 250), 0.6)
    with open_cameras([Camera("yard", str(file))], WHOLE, 5, is_paced=False) as live:
        found = collect(live, lambda _: live.is_over)
    numbers = [read_number(frame.pixels) for frame in frames_of(found)]
    assert numbers[:-1] == list(range(2, 5 * len(numbers) - 5, 5)) and 20 < len(numbers) < 45
    assert kinds_of(found) == ["ended"]


def test_a_replay_of_what_is_no_video_ends_and_says_why(tmp_path: Path) -> None:
    file = tmp_path / "text.mp4"
    file.write_text("no video")
    with open_cameras([Camera("yard", str(file))], WHOLE, 5, is_paced=False) as live:
        (notice,) = collect(live, lambda _: live.is_over)
    assert isinstance(notice, StatusChange) and notice.kind == "ended" and "not a video" in notice.reason


def test_a_camera_known_to_be_offline_is_not_told_of_again(tmp_path: Path, recording: Path) -> None:
    cameras = [Camera("yard", str(tmp_path / "none.mp4")), Camera("gate", str(recording))]
    with open_cameras(
        cameras, WHOLE, 5, silence_seconds=1, random=lambda: 0.1, offline_cameras=["yard", "gate"]
    ) as live:
        found = collect(live, lambda found: len(frames_of(found, "gate")) > 9)
    assert kinds_of(found, "yard") == [] and kinds_of(found, "gate") == ["back"]


def test_two_cameras_of_one_name_are_refused() -> None:
    with (
        pytest.raises(SettingsError, match="expected cameras with different names, got: a, a"),
        open_cameras([Camera("a", "0"), Camera("a", "1")], WHOLE, 5),
    ):
        pass


@pytest.fixture
def hls(tmp_path: Path) -> Iterator[str]:
    """URL of an HLS folder: `live.m3u8`, which never ends, and `evil.m3u8`, which names a local file."""
    options = {"hls_time": "1", "hls_list_size": "0", "hls_flags": "omit_endlist"}
    with av.open(str(tmp_path / "live.m3u8"), "w", format="hls", options=options) as file:
        stream = file.add_stream("libx264", rate=25)
        stream.codec_context.thread_count = 1
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.gop_size = 25
        for number in range(150):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")))
        file.mux(stream.encode(None))
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n"
    (tmp_path / "evil.m3u8").write_text(f"{head}file://{tmp_path}/live1.ts\n#EXT-X-ENDLIST\n")

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_: object) -> None: ...

    with serve(Handler) as url:
        yield url


def test_hls_is_played_at_its_own_pace_and_opens_no_file(hls: str) -> None:
    cameras = [Camera("yard", f"{hls}/live.m3u8"), Camera("evil", f"{hls}/evil.m3u8")]
    with open_cameras(cameras, WHOLE, 5, silence_seconds=1.5, random=lambda: 0.5) as live:
        found = collect(live, lambda found: len(frames_of(found)) >= 8 and "evil" in {item.camera for item in found})
    frames = frames_of(found)
    numbers = [read_number(frame.pixels) for frame in frames]
    assert numbers == list(range(numbers[0], 150, 5))[: len(numbers)]
    assert frames[-1].arrived - frames[0].arrived == pytest.approx(frames[-1].seconds - frames[0].seconds, abs=1)
    assert kinds_of(found, "evil") == ["offline"] and not frames_of(found, "evil")


def test_motion_jpeg_goes_by_the_clock(motion_jpeg: str) -> None:
    """The demuxer assumes 25 frames a second: by that clock a slower camera would fall behind more and more."""
    with open_cameras([Camera("yard", motion_jpeg)], WHOLE, 5) as live:
        frames = frames_of(collect(live, lambda found: len(frames_of(found)) >= 25))
        assert live.counters()["yard"].skipped == 0 and {frame.session for frame in frames} == {1}
    steps, arrived = (np.diff([getattr(frame, name) for frame in frames]) for name in ("seconds", "arrived"))
    assert steps == pytest.approx(arrived, abs=1e-3) and steps.mean() > 0.15
    numbers = [read_number(frame.pixels) for frame in frames]
    assert numbers == sorted(set(numbers))


def test_a_wrong_password_is_said_without_it(motion_jpeg: str, caplog: pytest.LogCaptureFixture) -> None:
    source = motion_jpeg.replace("guard:s3cret@", "").replace("/video", "/video?password=s3cret")
    caplog.set_level("DEBUG")
    with open_cameras([Camera("yard", source)], WHOLE, 5, silence_seconds=0.5, random=lambda: 0.5) as live:
        (notice,) = collect(live, len)
    assert isinstance(notice, StatusChange) and "401 Unauthorized" in notice.reason
    assert "s3cret" not in str(notice) + caplog.text


def test_a_silent_server_is_noticed() -> None:
    with silent_server() as port:
        cameras = [Camera("rtsp", f"rtsp://u:s3cret@127.0.0.1:{port}/"), Camera("http", f"http://127.0.0.1:{port}/")]
        began = time.monotonic()
        with open_cameras(cameras, WHOLE, 5, silence_seconds=3, timeouts=SHORT_TIMEOUTS) as live:
            found = collect(live, lambda found: len(found) == 2)
            assert 3 <= time.monotonic() - began < 15
        assert sorted((item.camera, item.kind) for item in found if isinstance(item, StatusChange)) == [
            ("http", "offline"),
            ("rtsp", "offline"),
        ]
        assert all("silent for 2 s" in item.reason for item in found if isinstance(item, StatusChange))


@needs_rtsp
def test_a_real_server_that_is_killed_and_comes_back(recording: Path) -> None:
    with (
        rtsp_camera(recording) as server,
        open_cameras(
            [Camera("yard", server.url)], WHOLE, 5, silence_seconds=2, timeouts=SHORT_TIMEOUTS, random=lambda: 0.5
        ) as live,
    ):
        frames = frames_of(collect(live, lambda found: len(frames_of(found)) >= 12))
        first = read_number(frames[0].pixels) - round(25 * frames[0].seconds)
        assert 0 <= first <= 2
        for frame in frames:
            assert frame.seconds == pytest.approx((read_number(frame.pixels) - first) / 25, abs=1e-3)
            assert (frame.seconds * 5 - 0.5) % 1 == pytest.approx(0.9, abs=0.11)  # the last frame before each instant
        assert frames[-1].arrived - frames[2].arrived == pytest.approx(frames[-1].seconds - frames[2].seconds, abs=1)
        server.kill()
        killed = time.monotonic()
        gone = collect(live, kinds_of)
        assert kinds_of(gone) == ["offline"] and time.monotonic() - killed < 15
        assert not [frame for frame in frames_of(live.poll(0.3)) if frame.session == 1]
        server.start()
        again = collect(live, lambda found: len(frames_of(found)) >= 5)
        assert kinds_of(again) == ["back"] and {frame.session for frame in frames_of(again)} == {2}
        assert live.counters()["yard"].reconnects >= 1 and live.counters()["yard"].dropped == 0
