"""Camera settings: valid ones, invalid ones, and messages without passwords."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from features.errors import SettingsError
from hazard.monitor.cameras import CameraSettings, is_scheduled, load_cameras, parse_camera_sources, parse_schedule

BERLIN = ZoneInfo("Europe/Berlin")
YARD = """
cameras:
  - name: yard
    source: rtsp://${CAMERA_LOGIN}@10.0.0.5/stream1
    zone: [[0.1, 0.2], [0.9, 0.2], [0.9, 1]]
    schedule: mon-fri 08:00-18:00
    timezone: Europe/Berlin
    threshold: 0.7
  - name: desk
    source: 0
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "cameras.yaml"
    file.write_text(text)
    return file


def berlin(text: str, *, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold)


def test_cameras_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_LOGIN", "guard:s3cret")
    yard, desk = load_cameras(write(tmp_path, YARD))
    assert yard.camera.source == "rtsp://guard:s3cret@10.0.0.5/stream1"
    assert yard.camera.kind == "rtsp" and desk.camera.kind == "device"
    assert yard.threshold == 0.7 and desk.threshold is None
    assert yard.camera.zone == ((0.1, 0.2), (0.9, 0.2), (0.9, 1.0))
    assert yard.is_watched(datetime(2026, 7, 3, 6, 30, tzinfo=UTC))  # a Friday, 8:30 in Berlin
    assert not yard.is_watched(datetime(2026, 7, 4, 6, 30, tzinfo=UTC))
    assert desk.is_watched(datetime(2026, 7, 4, 6, 30, tzinfo=UTC))
    assert "s3cret" not in repr(yard) + repr(yard.camera) + yard.camera.masked_source


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cameras: [{name: a, source: x.mp4, tresh: 1}]", "camera 1: unknown key 'tresh'; did you mean 'threshold'?"),
        ("cameras: [{name: a}]", "camera 1: source: Field required"),
        ("cameras: [{name: a, source: x.mp4, threshold: 2}]", "threshold: .* less than or equal to 1, got 2"),
        ("cameras: [{name: a, source: x.mp4}, {name: a, source: y.mp4}]", "two cameras are called 'a'"),
        ("cameras: [{name: a, source: 'ftp://u:s3cret@h/x'}]", r"source: .*ftp://\*\*\*@h/x: expected rtsp"),
        ("cameras: [{name: a, source: 'rtsp://${NOT_THERE}@h'}]", "the environment variable NOT_THERE is not set"),
        ("cameras: [{name: a, source: x.mp4, zone: [[0, 0], [1, 1]]}]", "zone: expected three corners or more"),
        ("cameras: [{name: a, source: x.mp4, zone: [[0, 0], [1, 1], [1, 2]]}]", "zone: expected shares"),
        ("cameras: [{name: a, source: x.mp4, schedule: 'mno 8:00-9:00', timezone: UTC}]", "did you mean 'mon'"),
        ("cameras: [{name: a, source: x.mp4, schedule: 'mon 8-9', timezone: UTC}]", "such as `mon-fri"),
        ("cameras: [{name: a, source: x.mp4, schedule: 'mon 08:00-25:00', timezone: UTC}]", "from 00:00 to 24:00"),
        ("cameras: [{name: a, source: x.mp4, schedule: 'mon 08:00-09:00'}]", "needs a timezone"),
        ("cameras: [{name: a, source: x.mp4, timezone: Mars/Base}]", "unknown timezone 'Mars/Base'"),
        ("cameras: [x.mp4]", "camera 1: expected `name:` and `source:`"),
        ("cameras: []", "expected `cameras:` and a list"),
        ("camera: [{name: a, source: x.mp4}]", "expected `cameras:` and a list"),
        ("{cameras: [{name: a, source: x.mp4}], zones: 1}", "unknown key 'zones'"),
        ("cameras: [", "is not YAML at line 1"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as error:
        load_cameras(write(tmp_path, text))
    assert "s3cret" not in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load_cameras(tmp_path / "none.yaml")


def test_sources_of_the_command_line() -> None:
    cameras = parse_camera_sources(["door=rtsp://10.0.0.5/1", "0", "http://host/video?user=a"])
    assert [(camera.name, camera.source) for camera in cameras] == [
        ("door", "rtsp://10.0.0.5/1"),
        ("camera-2", "0"),
        ("camera-3", "http://host/video?user=a"),
    ]


@pytest.mark.parametrize(
    ("schedule", "moment", "is_on"),
    [
        ("", "2026-07-05T03:00", True),
        ("mon-fri 08:00-18:00", "2026-07-03T08:00", True),
        ("mon-fri 08:00-18:00", "2026-07-03T18:00", False),
        ("mon-fri 08:00-18:00", "2026-07-04T12:00", False),
        ("mon-fri 08:00-18:00; sat 10:00-14:00", "2026-07-04T12:00", True),
        ("sat,sun 00:00-24:00", "2026-07-05T23:59", True),
        ("fri-mon 12:00-13:00", "2026-07-05T12:30", True),
        ("fri-mon 12:00-13:00", "2026-07-07T12:30", False),
        ("22:00-06:00", "2026-07-05T05:59", True),
        ("fri 22:00-06:00", "2026-07-04T05:00", True),  # Friday's night
        ("fri 22:00-06:00", "2026-07-03T05:00", False),  # Thursday's
        ("fri 22:00-06:00", "2026-07-03T22:00", True),
    ],
)
def test_schedules(schedule: str, moment: str, is_on: bool) -> None:
    assert is_scheduled(parse_schedule(schedule), berlin(moment)) is is_on


def test_schedules_go_by_the_clocks_on_the_wall() -> None:
    camera = CameraSettings(name="a", source="a.mp4", schedule="daily 02:00-03:00", timezone="Europe/Berlin")

    def hours_watched(day: str) -> float:
        start = berlin(day).astimezone(UTC)
        return sum(camera.is_watched(start + timedelta(minutes=15 * i)) for i in range(4 * 20)) / 4

    assert hours_watched("2026-03-28T00:00") == 1
    assert hours_watched("2026-03-29T00:00") == 0  # that hour is skipped
    assert hours_watched("2026-10-25T00:00") == 2  # and repeated
    office = parse_schedule("sun 08:00-18:00")
    assert is_scheduled(office, datetime(2026, 3, 29, 6, tzinfo=UTC).astimezone(BERLIN))  # summer time since five hours
    assert not is_scheduled(office, datetime(2026, 10, 25, 6, tzinfo=UTC).astimezone(BERLIN))
