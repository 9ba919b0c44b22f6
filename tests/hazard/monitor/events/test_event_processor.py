"""The event processor: each event is logged, and alerted once, even if the monitor is killed and restarted."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import RuntimeEnvironmentError
from features.live.types import StatusChange
from hazard.alerts.alert import Alert
from hazard.alerts.outbox import Outbox, open_outbox
from hazard.alerts.settings import parse_alert_settings
from hazard.monitor.detector import CameraEvent
from hazard.monitor.events import event_log, event_processor
from hazard.monitor.events.event_clips import CLIPS_FOLDER, SNAPSHOTS_FOLDER
from hazard.monitor.events.event_log import LOG_FILE_NAME, OLDER_LOG_FILE_NAME, open_event_log, read_last_entries
from hazard.monitor.events.event_processor import open_event_processor
from hazard.monitor.settings import MonitorSettings
from tests.helpers.camera_events import NOW, make_camera_event, moment
from tests.helpers.servers.receivers import SECRET

PER_MINUTE = MonitorSettings().alerts_per_minute


class Sent(list[Alert]):
    """An outbox in memory that ignores known ids, as the real one does."""

    def put(self, alert: Alert) -> bool:
        is_new = alert.id not in {one.id for one in self}
        self += [alert] if is_new else []
        return is_new


def entries(folder: Path) -> list[event_log.LogEntry]:
    return [json.loads(line) for line in (folder / LOG_FILE_NAME).read_text().splitlines()]


def flags(folder: Path, name: str) -> list[bool]:
    return [entry[name] for entry in entries(folder)]


def test_an_event_that_goes_on_across_a_restart_is_told_of_once(tmp_path: Path) -> None:
    sent = Sent()
    with open_event_processor(tmp_path, sent) as processor:  # type: ignore[arg-type]
        first = processor.process(make_camera_event(10, 12))
        assert first is not None and first.snapshot is not None and first.snapshot.read_bytes()
        assert first.started == moment(10)
        processor.update_last_seen([("door", "fight")], moment(100))
    with open_event_processor(tmp_path, sent) as processor:  # type: ignore[arg-type]
        assert processor.process(make_camera_event(130, 133, session=129)) is None, (
            "30 seconds after it was last seen, at once"
        )
        assert processor.process(make_camera_event(130, 140, is_over=True, session=129)) is None
        assert processor.process(make_camera_event(150, 151, session=129)) is not None, "the next one is another"
    assert [alert.started for alert in sent] == [moment(10), moment(150)]
    assert [(e["over"], e["is_cut"], e["goes_on"]) for e in entries(tmp_path)] == [
        (False, False, False), (True, True, False), (False, False, True), (True, False, False), (False, False, False),
    ]  # fmt: skip
    assert len({entry["id"] for entry in entries(tmp_path)}) == 2, "an event that goes on keeps its id"


@pytest.mark.parametrize(
    ("last_seen", "session", "start"),
    [(2, 600, 600), (2, 5, 30)],
    ids=["long after", "something else was seen in between"],
)
def test_another_event_after_a_restart_is_told_of(
    tmp_path: Path, last_seen: float, session: float, start: float
) -> None:
    sent = Sent()
    with open_event_processor(tmp_path, sent) as processor:  # type: ignore[arg-type]
        assert processor.process(make_camera_event(0, last_seen)) is not None
    with open_event_processor(tmp_path, sent) as processor:  # type: ignore[arg-type]
        assert processor.process(make_camera_event(start, start + 1, session=session)) is not None
    assert len(sent) == 2


def test_an_event_that_was_over_before_a_restart_does_not_go_on(tmp_path: Path) -> None:
    sent = Sent()
    with open_event_processor(tmp_path, sent) as processor:  # type: ignore[arg-type]
        processor.process(make_camera_event(0, 2))
        processor.process(make_camera_event(0, 8, is_over=True))
    with open_event_processor(tmp_path, sent) as processor:  # type: ignore[arg-type]
        assert processor.process(make_camera_event(12, 14, session=11)) is not None
    assert len(sent) == 2


def test_a_camera_that_comes_back_to_the_same_event_tells_nothing_new(tmp_path: Path) -> None:
    sent = Sent()
    with open_event_processor(tmp_path, sent) as processor:  # type: ignore[arg-type]
        processor.process(make_camera_event(0, 2))
        processor.process(make_camera_event(0, 8, is_over=True, is_cut=True))
        assert processor.process(make_camera_event(20, 22, session=20)) is None
        processor.process(make_camera_event(20, 30, is_over=True, session=20))
    assert len(sent) == 1
    assert len({entry["id"] for entry in entries(tmp_path)}) == 1


def test_a_storm_is_a_few_alerts_and_all_of_the_log(tmp_path: Path) -> None:
    sent = Sent()
    with open_event_processor(tmp_path, sent) as processor:  # type: ignore[arg-type]
        for second in range(0, 40, 2):
            processor.process(make_camera_event(second, second + 1))
            processor.process(make_camera_event(second, second + 1, camera="yard"))
    with open_event_processor(tmp_path, sent) as processor:  # type: ignore[arg-type]
        processor.process(make_camera_event(45, 46, session=0))
        processor.process(make_camera_event(100, 101, session=0))
    assert sum(alert.camera == "door" for alert in sent) == PER_MINUTE + 1, "a restart does not reset the limit"
    assert sum(alert.camera == "yard" for alert in sent) == PER_MINUTE
    begun = [entry for entry in entries(tmp_path) if not entry["over"]]
    assert len(begun) == 42
    assert sum(entry["is_muted"] for entry in begun) == 42 - len(sent)


def test_offline_and_back_are_one_alert_each_across_a_restart(tmp_path: Path) -> None:
    sent = Sent()
    offline = StatusChange("door", "offline", moment(20), NOW, "silent for 20 s")
    with open_event_processor(tmp_path, sent) as processor:  # type: ignore[arg-type]
        assert processor.process(CameraEvent("door", offline, offline.at)) is not None
    with open_event_processor(tmp_path, sent) as processor:  # type: ignore[arg-type]
        assert set(processor.state.offline_since) == {"door"}
        back = StatusChange("door", "back", moment(60), NOW)
        assert processor.process(CameraEvent("door", back, back.at)) is not None
        assert processor.process(CameraEvent("door", back, back.at)) is None
        assert not processor.state.offline_since
    assert [alert.kind for alert in sent] == ["offline", "back"]


def test_what_begins_outside_the_hours_is_told_when_they_begin_if_it_goes_on(tmp_path: Path) -> None:
    sent = Sent()
    hours = moment(100)
    offline = StatusChange("yard", "offline", moment(20), NOW, "silent")
    back = StatusChange("gate", "back", moment(50), NOW)
    with open_event_processor(tmp_path, sent, is_watched=lambda camera, at: at >= hours) as processor:  # type: ignore[arg-type]
        for one in (
            make_camera_event(10, 12),
            make_camera_event(10, 12, camera="lift"),
            CameraEvent("yard", offline, offline.at),
        ):
            assert processor.process(one) is None
        processor.process(CameraEvent("gate", StatusChange("gate", "offline", moment(30), NOW), moment(30)))
        assert processor.process(make_camera_event(10, 20, is_over=True, camera="lift")) is None
        assert processor.process(CameraEvent("gate", back, back.at)) is None
        assert processor.process_deferred(moment(99)) == []
        assert not sent and not entries(tmp_path)
        assert [(alert.kind, alert.camera) for alert in processor.process_deferred(moment(101))] == [
            ("event", "door"),
            ("offline", "yard"),
        ]
        assert processor.process_deferred(moment(102)) == []
        late = CameraEvent("yard", StatusChange("yard", "back", moment(120), NOW), moment(120))
        assert processor.process(late) is not None
    assert len(sent) == 3


def test_a_picture_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sent = Sent()
    with open_event_processor(tmp_path, sent) as processor:  # type: ignore[arg-type]
        (tmp_path / SNAPSHOTS_FOLDER).rmdir()
        alert = processor.process(make_camera_event(10, 12))
    assert alert is not None and alert.snapshot is None
    assert "cannot write" in caplog.text


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / LOG_FILE_NAME).mkdir()
    with pytest.raises(RuntimeEnvironmentError, match=LOG_FILE_NAME), open_event_processor(tmp_path, None):
        pass


def test_clips_are_asked_for_once_all_of_them_has_come(tmp_path: Path) -> None:
    asked: list[tuple[str, str, float, float]] = []

    def record(camera: str, file: Path, *, since: float, until: float) -> None:
        asked.append((camera, file.parent.name, since, until))

    times = {"now": 12.0}
    rules = MonitorSettings(before_seconds=3, after_seconds=4, longest_clip_seconds=30)
    with open_event_processor(tmp_path, None, rules) as processor:
        processor.event_clips.clock = lambda: times["now"]
        alert = processor.process(make_camera_event(10, 12))
        assert alert is not None and alert.clip is not None and alert.clip.parent == tmp_path / CLIPS_FOLDER
        processor.process(make_camera_event(10, 12, camera="yard"))
        processor.process(make_camera_event(10, 20, is_over=True))
        for times["now"] in (20.0, 23.9):
            processor.event_clips.record_due(record)
            assert asked == []
        for times["now"] in (24.0, 30.0):
            processor.event_clips.record_due(record)
        assert asked == [("door", CLIPS_FOLDER, 7.0, 24.0)]
        times["now"] = 37.0
        processor.event_clips.record_due(record)
        assert asked[1:] == [("yard", CLIPS_FOLDER, 7.0, 37.0)], "a long event: only its beginning"
        processor.process(make_camera_event(50, 51))
        times["now"] = 52.0
        processor.event_clips.record_all(record)
        assert asked[2:] == [("door", CLIPS_FOLDER, 47.0, 52.0)]


def test_without_clips_none_is_promised(tmp_path: Path) -> None:
    with open_event_processor(tmp_path, None, MonitorSettings(longest_clip_seconds=0)) as processor:
        alert = processor.process(make_camera_event(10, 12))
    assert alert is not None and alert.clip is None


def test_half_a_line_is_cut_off_and_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    with open_event_log(tmp_path) as log:
        log.append({"kind": "event", "camera": "a"})
    with open(tmp_path / LOG_FILE_NAME, "ab") as file:
        file.write(b'[]\n{"kind": "ev')
    with open_event_log(tmp_path) as log:
        log.append({"kind": "back", "camera": "b"})
    assert [entry["camera"] for entry in read_last_entries(tmp_path)] == ["a", "b"]
    assert (tmp_path / LOG_FILE_NAME).read_bytes().count(b"\n") == 3
    assert [entry["camera"] for entry in read_last_entries(tmp_path, max_bytes=40)] == ["b"]
    with open_event_processor(tmp_path, Sent()) as processor:  # type: ignore[arg-type]
        assert processor.process(make_camera_event(1, 2)) is not None


def test_a_large_log_becomes_the_older_one_and_nothing_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "MAX_LOG_BYTES", 100)
    sent = Sent()
    with open_event_processor(tmp_path, sent) as processor:  # type: ignore[arg-type]
        processor.process(make_camera_event(0, 2))
        processor.event_log.rotate()
        processor.event_log.rotate()
    assert (tmp_path / OLDER_LOG_FILE_NAME).exists() and not (tmp_path / LOG_FILE_NAME).read_bytes()
    with open_event_processor(tmp_path, sent) as processor:  # type: ignore[arg-type]
        assert processor.process(make_camera_event(20, 22, session=20)) is None
    assert len(sent) == 1


# ---- killed anywhere ----------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for SIGKILL. No code of the project catches it."""


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """Count the writes to the disk. The write with this number and all later ones do not happen."""
    count = 0
    append, write, put = event_log.EventLog.append, event_processor.write_atomically, Outbox.put

    def counted() -> None:
        nonlocal count
        count += 1
        if count >= step:
            raise Killed

    def half_append(self: event_log.EventLog, entry: event_log.LogEntry) -> None:
        try:
            counted()
        except Killed:
            self._stream.write(b'{"kind": "event", "ca')
            self._stream.flush()
            raise
        append(self, entry)

    def counted_write(path: Path, content: bytes) -> None:
        counted()
        write(path, content)

    def counted_put(self: Outbox, alert: Alert) -> bool:
        counted()
        return put(self, alert)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_log.EventLog, "append", half_append)
        patch.setattr(event_processor, "write_atomically", counted_write)
        patch.setattr(Outbox, "put", counted_put)
        with suppress(Killed):
            yield


EVENTS = [(10 + 40 * i, 30 + 40 * i) for i in range(4)]


HOOK = parse_alert_settings({"channels": [{"kind": "webhook", "url": "http://127.0.0.1:9/", "secret": SECRET}]})


def live(folder: Path, begin: float, clock: list[float]) -> None:
    """Run a monitor that starts at `begin` and sees EVENTS, until it is killed. `clock` receives the times."""
    with open_outbox(folder / "outbox.sqlite", HOOK) as outbox, open_event_processor(folder, outbox) as processor:
        for start, end in EVENTS:
            seen = max(start, begin)
            if seen + 2 <= end:
                clock.append(seen + 2)
                processor.process(make_camera_event(seen, seen + 2, session=begin))
                for second in range(int(seen + 5), end, 5):
                    clock.append(second)
                    processor.update_last_seen([("door", "fight")], moment(second))
                clock.append(end)
                processor.process(make_camera_event(seen, end, is_over=True, session=begin))


def alerted_starts(folder: Path) -> list[float]:
    """Return the starts of the alerted events, in order."""
    with open_outbox(folder / "outbox.sqlite", HOOK) as outbox:
        return [(delivery.alert.started - NOW).total_seconds() for delivery in outbox.list_pending()]


@settings(max_examples=60, deadline=None)
@given(step=st.integers(1, 60), down=st.floats(0.5, 6.0))
def test_killed_anywhere_each_event_is_told_of_once(
    tmp_path_factory: pytest.TempPathFactory, step: int, down: float
) -> None:
    folder = tmp_path_factory.mktemp("monitor")
    clock = [0.0]
    with killed_at(step):
        live(folder, 0, clock)
    before, again = alerted_starts(folder), clock[-1] + down
    live(folder, again, clock)
    after = alerted_starts(folder)
    assert after[: len(before)] == before, "alerts in the outbox stay there"
    for start, end in EVENTS:
        times = sum(start <= one < end for one in after)
        assert times <= 1, "no alert is repeated"
        if again + 2 <= end:
            assert times == 1, "an event that is seen again has an alert"
