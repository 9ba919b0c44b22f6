"""The reader of a monitor's growing log, the events made from it, and the states of the cameras."""

import json
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from features.live.types import StatusChange
from hazard.monitor.events.event_log import LOG_FILE_NAME, OLDER_LOG_FILE_NAME
from hazard.monitor.events.event_processor import open_event_processor
from hazard.monitor.housekeeping.heartbeat import (
    HEARTBEAT_FILE_NAME,
    HEARTBEAT_STALE_SECONDS,
    Heartbeat,
    HeartbeatFile,
    parse_heartbeat,
)
from hazard.web.cameras import events as camera_events
from hazard.web.cameras import log_tail
from hazard.web.cameras.events import EventIndex
from hazard.web.cameras.log_tail import LogTail
from tests.helpers.camera_events import make_camera_event
from tests.helpers.data.monitor_folders import NOW, MonitorFolder, list_recorded_events, open_test_sites, refresh_sites

JUNK = (
    b"\n{}\n[1]\nnot json\n\xff\xfe\n" + b"[" * 100_000 + b'\n{"kind": "event", "camera": 3, "id": []}\n'
    b'{"kind": "event", "id": "x", "camera": "c", "label": "l", "over": 0, "is_cut": 0, "started": "soon", "at": 1}\n'
    b'{"kind": "event", "id": "x", "camera": "c", "label": "l", "over": false, "is_cut": false, "started": '
    b'"2026-01-02T00:00:00", "at": "2026-01-02T00:00:00"}\n'
    b'{"kind": "tea", "id": "x", "camera": "c"}\n{"kind": "offline", "camera": "c"}\n'
)  # fmt: skip


@pytest.fixture
def scene(tmp_path: Path) -> MonitorFolder:
    return MonitorFolder(tmp_path / "yard")


def test_what_the_desk_writes_is_what_is_seen(tmp_path: Path) -> None:
    with open_event_processor(tmp_path, None) as desk:
        desk.process(make_camera_event(10, 12))
        watch = open_test_sites(tmp_path)
        (event,) = list_recorded_events(watch)
        assert (event.camera, event.label, event.is_over, event.is_alerted) == ("door", "fight", False, True)
        assert event.probability == 0.9
        assert event.snapshot.endswith("Z.jpg") and event.clip.endswith("Z.mp4")
        assert watch.file_state(event, "snapshot") == "there"
        desk.process(make_camera_event(10, 20, is_over=True))
        (event,) = list_recorded_events(watch)
        assert event.is_over and not event.is_cut
        assert event.is_alerted, "what was told of stays so, though the last line does not say it"
        assert event.until - event.started == pytest.approx(10)
        desk.process(make_camera_event(30, 31))
        desk.process(make_camera_event(30, 35, is_over=True, is_cut=True))
        desk.process(make_camera_event(60, 62, session=60))
        newest, _ = list_recorded_events(watch)
        assert not newest.is_over and not newest.is_cut, "it goes on"
        desk.process(make_camera_event(60, 70, is_over=True, session=60))
        newest, _ = list_recorded_events(watch)
        assert newest.is_over and newest.until - newest.started == pytest.approx(40), "from its first beginning on"


def test_muted_and_cut_events_are_told_as_such(tmp_path: Path) -> None:
    with open_event_processor(tmp_path, None) as desk:
        for number in range(8):
            desk.process(make_camera_event(number, number + 0.2))
            desk.process(make_camera_event(number, number + 0.5, is_over=True, is_cut=number == 7))
        got = list_recorded_events(open_test_sites(tmp_path))
    assert [event.is_muted for event in got] == [True, True, *[False] * 6]
    assert [event.is_cut for event in got] == [True, *[False] * 7]


def test_what_was_never_muted_again_keeps_its_probability(scene: MonitorFolder) -> None:
    scene.add_event(peak=0.97)
    line = json.loads(scene.lines[-1])
    scene.add(
        {name: value for name, value in line.items() if name not in ("peak", "mean", "seconds")} | {"is_cut": True}
    )
    scene.write()
    (event,) = list_recorded_events(open_test_sites(scene.folder))
    assert event.probability == 0.97 and event.is_cut


def test_lines_of_others_are_passed_over(scene: MonitorFolder) -> None:
    (scene.folder / LOG_FILE_NAME).write_bytes(JUNK)
    scene.add_event()
    scene.write()
    watch = open_test_sites(scene.folder)
    assert len(list_recorded_events(watch)) == 1
    assert [view.name for view in watch.list_cameras()] == ["door"]


def test_numbers_and_names_that_no_monitor_writes_do_no_harm(scene: MonitorFolder) -> None:
    scene.add_event(peak=float("nan"))
    line = json.loads(scene.lines[-1])
    odd = {
        "camera": "\ud800" * 500,
        "peak": 1e999,
        "snapshot": "../../etc/passwd",
        "clip": ["x"],
        "id": "\udcff" * 5000,
    }
    scene.add(line | odd)
    scene.add(line | {"id": "y", "peak": "0.5", "seconds": ["a", "b"]})
    scene.add(line | {"id": "z", "started": "9999-12-31T23:59:59+00:00"})
    scene.write()
    got = list_recorded_events(open_test_sites(scene.folder))
    assert len(got) == 2
    assert all(0 <= event.probability <= 1 for event in got)
    assert {Path(event.snapshot).parent for event in got} == {Path()}


def test_half_a_line_waits_for_its_rest(scene: MonitorFolder) -> None:
    scene.add_event(lasts=None)
    line = scene.lines[0].encode() + b"\n"
    file = scene.folder / LOG_FILE_NAME
    tail = LogTail(scene.folder)
    for at in (1, 50, len(line) - 1):
        file.write_bytes(line[:at])
        assert not list(tail.read_new_entries())
    file.write_bytes(line)
    assert len(list(tail.read_new_entries())) == 1
    assert not list(tail.read_new_entries())


def test_a_half_line_that_is_cut_off_by_the_next_monitor_is_not_missed(scene: MonitorFolder) -> None:
    scene.add_event(ago=50)
    scene.write()
    whole = (scene.folder / LOG_FILE_NAME).stat().st_size
    tail = LogTail(scene.folder)
    assert len(list(tail.read_new_entries())) == 2
    with open(scene.folder / LOG_FILE_NAME, "ab") as file:
        file.write(b'{"kind": "ev')
    assert not list(tail.read_new_entries())
    os.truncate(scene.folder / LOG_FILE_NAME, whole)
    scene.add_event(ago=20)
    scene.write()
    assert len(list(tail.read_new_entries())) == 2


@pytest.mark.parametrize("times", [1, 2, 3])
def test_logs_that_are_put_away_are_read_to_their_end(scene: MonitorFolder, times: int) -> None:
    """After two rotations between two reads, both logs are read. A monitor keeps no third log."""
    watch = open_test_sites(scene.folder)
    scene.add_event(ago=5000)
    scene.write()
    assert len(list_recorded_events(watch)) == 1
    for number in range(times):
        scene.add_event(ago=4000 - 100 * number)
        scene.write()
        os.replace(scene.folder / LOG_FILE_NAME, scene.folder / OLDER_LOG_FILE_NAME)
        scene.add_event(ago=3950 - 100 * number)
        scene.write()
    assert len(list_recorded_events(watch)) == 1 + 2 * times - 2 * (times == 3)
    assert len(list_recorded_events(open_test_sites(scene.folder))) >= 2, "after a restart, those that are still there"


def test_a_log_that_was_there_before_is_read_with_the_older_one(scene: MonitorFolder) -> None:
    for ago in (900, 800):
        scene.add_event(ago=ago)
        scene.write()
        if ago == 900:
            os.replace(scene.folder / LOG_FILE_NAME, scene.folder / OLDER_LOG_FILE_NAME)
    assert len(list_recorded_events(open_test_sites(scene.folder))) == 2


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "link", "unreadable"])
def test_a_log_that_is_none_is_no_fault(tmp_path: Path, scene: MonitorFolder, kind: str) -> None:
    log = scene.folder / LOG_FILE_NAME
    match kind:
        case "folder":
            log.mkdir()
        case "pipe":
            os.mkfifo(log)
        case "link":
            (tmp_path / "elsewhere").write_text("{}")
            log.symlink_to(tmp_path / "elsewhere")
        case "unreadable":
            log.write_bytes(os.urandom(3_000_000))
    began = time.monotonic()
    assert not list_recorded_events(open_test_sites(scene.folder))
    assert time.monotonic() - began < 60


def test_a_line_that_never_ends_is_passed_over(scene: MonitorFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_tail, "READ_BLOCK_BYTES", 5000)
    monkeypatch.setattr(log_tail, "MAX_LINE_BYTES", 4000)
    (scene.folder / LOG_FILE_NAME).write_bytes(b"[" * 20_000 + b"\n")
    scene.add_event()
    scene.write()
    assert len(list(LogTail(scene.folder).read_new_entries())) == 2


def test_many_events_are_bounded(scene: MonitorFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_events, "MAX_EVENTS", 100)
    monkeypatch.setattr(camera_events, "MAX_CAMERAS", 5)
    folded = EventIndex("yard")
    for number in range(1000):
        scene.add_event(ago=5000 - number, camera=f"camera {number % 10}")
    for line in scene.lines:
        folded.add_entry(json.loads(line))
    assert len(folded.events) == len(folded.positions) <= 102
    assert len(folded.newest_by_camera) == 5
    newest = max(place for place in folded.positions)
    assert newest[0] == (NOW - timedelta(seconds=5000 - 994)).timestamp(), "the newest of cameras that are known"


def test_a_hundred_thousand_lines_are_read_in_seconds(scene: MonitorFolder) -> None:
    for number in range(50_000):
        scene.add_event(ago=50_000 - number)
    scene.write()
    began = time.process_time()
    watch = open_test_sites(scene.folder)
    taken = time.process_time() - began
    assert len(list_recorded_events(watch)) == 50_000
    assert taken < 15
    began = time.process_time()
    scene.add_event(ago=0)
    scene.write()
    assert list_recorded_events(watch)[0].started == NOW.timestamp()
    assert time.process_time() - began < taken / 3, "only what is new is read"


# How cameras stand


def test_cameras_are_up_offline_or_not_watched(scene: MonitorFolder) -> None:
    now = time.time()
    scene.add_event(ago=500)
    scene.add_offline("yard", ago=60)
    scene.write()
    scene.write_heartbeat(door="live", yard="offline", hall="connecting")
    watch = open_test_sites(scene.folder, clock=lambda: now)
    views = {view.name: view for view in watch.list_cameras()}
    assert {name: view.state for name, view in views.items()} == {
        "door": "up", "yard": "offline", "hall": "connecting",
    }  # fmt: skip
    assert views["yard"].since == (NOW - timedelta(seconds=60)).timestamp()
    assert views["yard"].reason == "connection refused"
    assert views["door"].newest_event is not None and views["hall"].newest_event is None
    os.utime(scene.folder / HEARTBEAT_FILE_NAME, (now - HEARTBEAT_STALE_SECONDS - 1,) * 2)
    views = {view.name: view for view in refresh_sites(watch).list_cameras()}
    assert {view.state for view in views.values()} == {"not watching"}
    assert views["door"].since == pytest.approx(now - HEARTBEAT_STALE_SECONDS - 1)


def test_a_camera_that_is_back_is_up_again(scene: MonitorFolder) -> None:
    with open_event_processor(scene.folder, None) as desk:
        for kind in ("offline", "back"):
            desk.process(happening_of(StatusChange("door", kind, NOW, NOW, "gone")))  # type: ignore[arg-type]
        scene.write_heartbeat(door="live")
        (view,) = open_test_sites(scene.folder).list_cameras()
    assert (view.state, view.since, view.reason) == ("up", None, "")


def happening_of(notice: StatusChange) -> Any:
    from hazard.monitor.detector import CameraEvent

    return CameraEvent(notice.camera, notice, notice.at)


@pytest.mark.parametrize("is_watched", [True, False])
def test_an_event_goes_on_only_while_somebody_watches(scene: MonitorFolder, is_watched: bool) -> None:
    scene.add_event(lasts=None)
    scene.write()
    scene.write_heartbeat(is_over=not is_watched)
    watch = open_test_sites(scene.folder)
    assert watch.event_state(list_recorded_events(watch)[0]) == ("going on" if is_watched else "cut")


def test_a_monitor_gives_a_sign_and_says_when_it_ends(tmp_path: Path) -> None:
    file = HeartbeatFile(tmp_path / HEARTBEAT_FILE_NAME)
    file.write({"door": "live"})
    os.utime(tmp_path / HEARTBEAT_FILE_NAME, (1, 1))
    first = (tmp_path / HEARTBEAT_FILE_NAME).stat()
    file.write({"door": "live"})
    second = (tmp_path / HEARTBEAT_FILE_NAME).stat()
    assert second.st_ino == first.st_ino and second.st_mtime > 1e9, "nothing new is not written again"
    (tmp_path / HEARTBEAT_FILE_NAME).unlink()
    file.write({"door": "live"})
    file.write({"door": "live"})
    assert parse_heartbeat((tmp_path / HEARTBEAT_FILE_NAME).read_bytes(), 5.0) == Heartbeat(
        {"door": "live"}, 5.0, is_over=False
    )
    file.write({"door": "live"}, is_over=True)
    assert not parse_heartbeat((tmp_path / HEARTBEAT_FILE_NAME).read_bytes(), time.time()).is_fresh(time.time())


def test_a_disk_that_takes_no_sign_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = HeartbeatFile(tmp_path / "gone" / HEARTBEAT_FILE_NAME)
    for _ in range(3):
        file.write({"door": "live"})
    assert len(caplog.records) == 1


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"cameras": 3, "is_over": false}', b"[" * 100_000])
def test_a_sign_of_others_is_none(content: bytes) -> None:
    assert not parse_heartbeat(content, time.time()).is_fresh(time.time())
