"""What cameras saw, read from a monitor's folder while it is written, marked, counted, and served."""

import csv
import io
import json
import os
import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fastapi.testclient import TestClient

from features.cli import extract_features
from features.live import Notice
from hazard.corrections import read_corrections
from hazard.desk import open_desk
from hazard.event_log import LOG, OLDER
from hazard.pulse import PULSE, STALE_SECONDS, Pulse, PulseFile, read_pulse
from hazard.web import watch_events, watch_log
from hazard.web.marks import open_marks
from hazard.web.statistics import day_start, figures
from hazard.web.watch import Watch, open_watch
from hazard.web.watch_events import Folded, Seen
from hazard.web.watch_log import LogTail
from tests.alarms import write_pictures
from tests.reports import HOSTILE_NAMES
from tests.test_desk import happening
from tests.watched import NOW, Scene, application, picture, settings

JUNK = (
    b"\n{}\n[1]\nnot json\n\xff\xfe\n" + b"[" * 100_000 + b'\n{"kind": "event", "camera": 3, "id": []}\n'
    b'{"kind": "event", "id": "x", "camera": "c", "label": "l", "over": 0, "is_cut": 0, "started": "soon", "at": 1}\n'
    b'{"kind": "event", "id": "x", "camera": "c", "label": "l", "over": false, "is_cut": false, "started": '
    b'"2026-01-02T00:00:00", "at": "2026-01-02T00:00:00"}\n'
    b'{"kind": "tea", "id": "x", "camera": "c"}\n{"kind": "offline", "camera": "c"}\n'
)  # fmt: skip


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "yard")


@pytest.fixture
def client(scene: Scene, tmp_path: Path) -> Iterator[TestClient]:
    with asking(tmp_path, yard=scene) as opened:
        yield opened


def asking(folder: Path, **scenes: Scene) -> TestClient:
    return TestClient(application(settings(folder, scenes.items())), base_url="http://127.0.0.1")


def looked(watch: Watch) -> Watch:
    watch._looked = -1e9
    watch.look()
    return watch


def watched(folder: Path, **more: Any) -> Watch:
    return looked(open_watch({"yard": folder}, **more))


def seen(watch: Watch) -> list[Seen]:
    return looked(watch).newest_first()


def events(client: TestClient, query: str = "") -> list[dict[str, Any]]:
    fresh(client)
    return client.get(f"/api/events?{query}").json()["events"]


def fresh(client: TestClient) -> None:
    """The next request looks at the disk."""
    if hasattr(client.app.state, "sights"):  # type: ignore[attr-defined]
        client.app.state.sights.watch._looked = -1e9  # type: ignore[attr-defined]


# Lines into events


def test_what_the_desk_writes_is_what_is_seen(tmp_path: Path) -> None:
    with open_desk(tmp_path, None) as desk:
        desk.take(happening(10, 12))
        watch = watched(tmp_path)
        (event,) = seen(watch)
        assert (event.camera, event.label, event.is_over, event.is_alerted) == ("door", "fight", False, True)
        assert event.probability == 0.9
        assert event.snapshot.endswith("Z.jpg") and event.clip.endswith("Z.mp4")
        assert watch.file_state(event, "snapshot") == "there"
        desk.take(happening(10, 20, is_over=True))
        (event,) = seen(watch)
        assert event.is_over and not event.is_cut
        assert event.is_alerted, "what was told of stays so, though the last line does not say it"
        assert event.until - event.started == pytest.approx(10)
        desk.take(happening(30, 31))
        desk.take(happening(30, 35, is_over=True, is_cut=True))
        desk.take(happening(60, 62, session=60))
        newest, _ = seen(watch)
        assert not newest.is_over and not newest.is_cut, "it goes on"
        desk.take(happening(60, 70, is_over=True, session=60))
        newest, _ = seen(watch)
        assert newest.is_over and newest.until - newest.started == pytest.approx(40), "from its first beginning on"


def test_muted_and_cut_events_are_told_as_such(tmp_path: Path) -> None:
    with open_desk(tmp_path, None) as desk:
        for number in range(8):
            desk.take(happening(number, number + 0.2))
            desk.take(happening(number, number + 0.5, is_over=True, is_cut=number == 7))
        got = seen(watched(tmp_path))
    assert [event.is_muted for event in got] == [True, True, *[False] * 6]
    assert [event.is_cut for event in got] == [True, *[False] * 7]


def test_what_was_never_muted_again_keeps_its_probability(scene: Scene) -> None:
    scene.event(peak=0.97)
    line = json.loads(scene.lines[-1])
    scene.add(
        {name: value for name, value in line.items() if name not in ("peak", "mean", "seconds")} | {"is_cut": True}
    )
    scene.write()
    (event,) = seen(watched(scene.folder))
    assert event.probability == 0.97 and event.is_cut


def test_lines_of_others_are_passed_over(scene: Scene) -> None:
    (scene.folder / LOG).write_bytes(JUNK)
    scene.event()
    scene.write()
    watch = watched(scene.folder)
    assert len(seen(watch)) == 1
    assert [view.name for view in watch.cameras()] == ["door"]


def test_numbers_and_names_that_no_monitor_writes_do_no_harm(scene: Scene) -> None:
    scene.event(peak=float("nan"))
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
    got = seen(watched(scene.folder))
    assert len(got) == 2
    assert all(0 <= event.probability <= 1 for event in got)
    assert {Path(event.snapshot).parent for event in got} == {Path()}


def test_half_a_line_waits_for_its_rest(scene: Scene) -> None:
    scene.event(lasts=None)
    line = scene.lines[0].encode() + b"\n"
    file = scene.folder / LOG
    tail = LogTail(scene.folder)
    for at in (1, 50, len(line) - 1):
        file.write_bytes(line[:at])
        assert not list(tail.news())
    file.write_bytes(line)
    assert len(list(tail.news())) == 1
    assert not list(tail.news())


def test_a_half_line_that_is_cut_off_by_the_next_monitor_is_not_missed(scene: Scene) -> None:
    scene.event(ago=50)
    scene.write()
    whole = (scene.folder / LOG).stat().st_size
    tail = LogTail(scene.folder)
    assert len(list(tail.news())) == 2
    with open(scene.folder / LOG, "ab") as file:
        file.write(b'{"kind": "ev')
    assert not list(tail.news())
    os.truncate(scene.folder / LOG, whole)
    scene.event(ago=20)
    scene.write()
    assert len(list(tail.news())) == 2


@pytest.mark.parametrize("times", [1, 2, 3])
def test_logs_that_are_put_away_are_read_to_their_end(scene: Scene, times: int) -> None:
    """Of a log that is put away twice between two looks, both are read; three logs are more than a monitor keeps."""
    watch = watched(scene.folder)
    scene.event(ago=5000)
    scene.write()
    assert len(seen(watch)) == 1
    for number in range(times):
        scene.event(ago=4000 - 100 * number)
        scene.write()
        os.replace(scene.folder / LOG, scene.folder / OLDER)
        scene.event(ago=3950 - 100 * number)
        scene.write()
    assert len(seen(watch)) == 1 + 2 * times - 2 * (times == 3)
    assert len(seen(watched(scene.folder))) >= 2, "after a restart, those that are still there"


def test_a_log_that_was_there_before_is_read_with_the_older_one(scene: Scene) -> None:
    for ago in (900, 800):
        scene.event(ago=ago)
        scene.write()
        if ago == 900:
            os.replace(scene.folder / LOG, scene.folder / OLDER)
    assert len(seen(watched(scene.folder))) == 2


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "link", "unreadable"])
def test_a_log_that_is_none_is_no_fault(tmp_path: Path, scene: Scene, kind: str) -> None:
    log = scene.folder / LOG
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
    assert not seen(watched(scene.folder))
    assert time.monotonic() - began < 5


def test_a_line_that_never_ends_is_passed_over(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_log, "BLOCK_BYTES", 5000)
    monkeypatch.setattr(watch_log, "LONGEST_LINE", 4000)
    (scene.folder / LOG).write_bytes(b"[" * 20_000 + b"\n")
    scene.event()
    scene.write()
    assert len(list(LogTail(scene.folder).news())) == 2


def test_many_events_are_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_events, "MOST_EVENTS", 100)
    monkeypatch.setattr(watch_events, "MOST_CAMERAS", 5)
    folded = Folded("yard")
    for number in range(1000):
        scene.event(ago=5000 - number, camera=f"camera {number % 10}")
    for line in scene.lines:
        folded.follow(json.loads(line))
    assert len(folded.events) == len(folded.order) <= 102
    assert len(folded.cameras) == 5
    newest = max(place for place in folded.order)
    assert newest[0] == (NOW - timedelta(seconds=5000 - 994)).timestamp(), "the newest of cameras that are known"


def test_a_hundred_thousand_lines_are_read_in_seconds(scene: Scene) -> None:
    for number in range(50_000):
        scene.event(ago=50_000 - number)
    scene.write()
    began = time.monotonic()
    watch = watched(scene.folder)
    taken = time.monotonic() - began
    assert len(seen(watch)) == 50_000
    assert taken < 15
    began = time.monotonic()
    scene.event(ago=0)
    scene.write()
    assert seen(watch)[0].started == NOW.timestamp()
    assert time.monotonic() - began < 2, "only what is new is read"


# How cameras stand


def test_cameras_are_up_offline_or_not_watched(scene: Scene) -> None:
    now = time.time()
    scene.event(ago=500)
    scene.offline("yard", ago=60)
    scene.write()
    scene.beat(door="live", yard="offline", hall="connecting")
    watch = watched(scene.folder, clock=lambda: now)
    views = {view.name: view for view in watch.cameras()}
    assert {name: view.state for name, view in views.items()} == {
        "door": "up", "yard": "offline", "hall": "connecting",
    }  # fmt: skip
    assert views["yard"].since == (NOW - timedelta(seconds=60)).timestamp()
    assert views["yard"].reason == "connection refused"
    assert views["door"].newest is not None and views["hall"].newest is None
    os.utime(scene.folder / PULSE, (now - STALE_SECONDS - 1,) * 2)
    views = {view.name: view for view in looked(watch).cameras()}
    assert {view.state for view in views.values()} == {"not watching"}
    assert views["door"].since == pytest.approx(now - STALE_SECONDS - 1)


def test_a_camera_that_is_back_is_up_again(scene: Scene) -> None:
    with open_desk(scene.folder, None) as desk:
        for kind in ("offline", "back"):
            desk.take(happening_of(Notice("door", kind, NOW, NOW, "gone")))  # type: ignore[arg-type]
        scene.beat(door="live")
        (view,) = watched(scene.folder).cameras()
    assert (view.state, view.since, view.reason) == ("up", None, "")


def happening_of(notice: Notice) -> Any:
    from hazard.monitor import Happening

    return Happening(notice.camera, notice, notice.at)


@pytest.mark.parametrize("is_watched", [True, False])
def test_an_event_goes_on_only_while_somebody_watches(scene: Scene, is_watched: bool) -> None:
    scene.event(lasts=None)
    scene.write()
    scene.beat(is_over=not is_watched)
    watch = watched(scene.folder)
    assert watch.state_of(seen(watch)[0]) == ("going on" if is_watched else "cut")


def test_a_monitor_gives_a_sign_and_says_when_it_ends(tmp_path: Path) -> None:
    file = PulseFile(tmp_path / PULSE)
    file.say({"door": "live"})
    os.utime(tmp_path / PULSE, (1, 1))
    first = (tmp_path / PULSE).stat()
    file.say({"door": "live"})
    second = (tmp_path / PULSE).stat()
    assert second.st_ino == first.st_ino and second.st_mtime > 1e9, "nothing new is not written again"
    (tmp_path / PULSE).unlink()
    file.say({"door": "live"})
    file.say({"door": "live"})
    assert read_pulse((tmp_path / PULSE).read_bytes(), 5.0) == Pulse({"door": "live"}, 5.0, is_over=False)
    file.say({"door": "live"}, is_over=True)
    assert not read_pulse((tmp_path / PULSE).read_bytes(), time.time()).is_fresh(time.time())


def test_a_disk_that_takes_no_sign_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = PulseFile(tmp_path / "gone" / PULSE)
    for _ in range(3):
        file.say({"door": "live"})
    assert len(caplog.records) == 1


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"cameras": 3, "is_over": false}', b"[" * 100_000])
def test_a_sign_of_others_is_none(content: bytes) -> None:
    assert not read_pulse(content, time.time()).is_fresh(time.time())


# Marks


def test_marks_survive_a_restart_and_half_a_line(scene: Scene, tmp_path: Path) -> None:
    for ago in (300, 200, 100):
        scene.event(ago=ago)
    scene.write()
    third, second, first = seen(watched(scene.folder))
    marks = open_marks(tmp_path / "marks", ["yard"])["yard"]
    assert marks.put(first, "right", "", 5.0) and marks.put(second, "right", "", 6.0)
    assert not marks.put(first, "right", "", 7.0), "said already"
    assert marks.put(second, "wrong", "play", 8.0)
    assert not marks.put(third, "", "", 9.0), "nothing to take back"
    assert marks.put(third, "right", "", 9.0) and marks.put(third, "", "", 9.5)
    with open(marks.file, "ab") as file:
        file.write(b'{"key": "hal')
    again = open_marks(tmp_path / "marks", ["yard"])["yard"]
    assert again.by_key == marks.by_key
    assert (again.word(first.key), again.word(second.key), again.word(third.key)) == ("right", "wrong", "")
    assert again.put(third, "right", "", 10.0)
    assert open_marks(tmp_path / "marks", ["yard"])["yard"].word(third.key) == "right"


def test_sites_of_any_name_keep_their_marks_apart(scene: Scene, tmp_path: Path) -> None:
    scene.event()
    scene.write()
    (event,) = seen(watched(scene.folder))
    names = ["../up", "a/b", "x" * 300, "", "ß\n"]
    marks = open_marks(tmp_path / "marks", names)
    marks["a/b"].put(event, "right", "", 1.0)
    again = open_marks(tmp_path / "marks", names)
    assert [name for name in names if again[name].by_key] == ["a/b"]
    assert not list(tmp_path.glob("*.jsonl"))


def test_marks_become_corrections_that_training_reads(client: TestClient, scene: Scene, tmp_path: Path) -> None:
    video = write_pictures(tmp_path / "clip.mp4", [False] * 10).read_bytes()
    for ago, label in ((500, "fight"), (400, "fight"), (300, "fall"), (200, "fight"), (100, "fight")):
        scene.event(ago=ago, label=label, clip=video if ago != 200 else b"")
    scene.write()
    keys = [event["key"] for event in events(client)][::-1]
    for key, said in zip(keys, ({"mark": "right"}, {"mark": "wrong"}, {"mark": "wrong", "label": "play"},
                                {"mark": "right"}), strict=False):  # fmt: skip
        assert client.post(f"/api/events/{key}/mark", json=said).status_code == 200
    got = client.get("/api/corrections.csv")
    assert got.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(got.text)))
    assert [row["label"] for row in rows] == ["fight", "", "play"], "whose clip is gone is not in it"
    clips = scene.folder / "clips"
    (clips / "corrections.csv").write_text(got.text)
    assert [one.label for one in read_corrections(clips / "corrections.csv")] == ["fight", "", "play"]
    assert all((clips / row["path"]).is_file() for row in rows)
    other = client.get("/api/corrections.csv?other=calm&removed=true").text
    assert [row["label"] for row in csv.DictReader(io.StringIO(other))] == ["fight", "calm", "play", "fight"]
    extracted = [str(clips), "-o", str(tmp_path / "c.h5"), "--weights", "random", "--frames", "4", "--runtime", "torch"]
    assert extract_features.main(extracted, standalone_mode=False) == 0
    from features.cache import read_cache
    from hazard.corrections import correct_cache

    _, done = correct_cache(read_cache(tmp_path / "c.h5"), clips / "corrections.csv")
    assert (done.labelled, done.left_out) == (2, 1)


def test_a_wrong_event_of_a_model_of_two_labels_is_the_other_one(scene: Scene, tmp_path: Path) -> None:
    from hazard.web.marks import corrections

    for ago in (300, 200):
        scene.event(ago=ago)
    scene.write()
    second, first = seen(watched(scene.folder))
    marks = open_marks(tmp_path / "marks", ["yard"])["yard"]
    marks.put(first, "wrong", "", 1.0)
    marks.put(second, "right", "", 1.0)
    labels = [("noFight", "fight"), ("a", "b", "c")]
    assert [label for _, label in corrections(marks.all(), labels)] == ["noFight", "fight"]
    assert [label for _, label in corrections(marks.all(), [*labels, ("calm", "fight")])] == ["", "fight"]
    assert [label for _, label in corrections(marks.all(), [("calm", "fall", "fight")])] == ["", "fight"]


# Numbers


def test_events_are_counted_in_the_hours_of_a_place(scene: Scene) -> None:
    zone = ZoneInfo("Europe/Berlin")
    midnight = day_start(date(2026, 3, 29), zone)  # that night, two o'clock is three o'clock
    assert datetime.fromtimestamp(midnight, zone).isoformat() == "2026-03-29T00:00:00+01:00"
    scene.event()
    scene.write()
    (event,) = seen(watched(scene.folder))
    from dataclasses import replace

    many = [replace(event, key=str(n), started=midnight + 3600 * n) for n in range(0, 49)]
    many += [replace(event, key="other", camera="yard", label="fall", started=midnight + 4 * 86400)]
    got = figures(many, lambda one: {"0": "right", "1": "wrong", "2": "right"}.get(one.key, ""), zone)  # type: ignore[return-value]
    assert (got.total.count, got.total.right, got.total.wrong) == (50, 2, 1)
    assert got.total.share_confirmed == pytest.approx(2 / 3)
    assert got.by_hour[2] == 1, "the hour that one of the two days does not have"
    assert got.by_weekday == [24, 2, 0, 1, 0, 0, 23]
    assert [(key, tally.count) for key, tally in got.by_camera] == [(("yard", "door"), 49), (("yard", "yard"), 1)]
    assert [day.isoformat() for day, _ in got.by_day] == [f"2026-03-{n}" for n in (29, 30, 31)] + [
        "2026-04-01",
        "2026-04-02",
    ]
    assert [tally.count for _, tally in got.by_day][:3] == [23, 24, 2]


def test_no_events_have_no_numbers(client: TestClient) -> None:
    got = client.get("/api/statistics").json()
    assert got["total"] == {"count": 0, "right": 0, "wrong": 0, "share_confirmed": None}
    assert got["by_day"] == [] and sum(got["by_hour"]) == 0
    assert client.get("/cameras/statistics").status_code == 200


# Over HTTP


def test_events_are_paged_and_filtered(client: TestClient, scene: Scene) -> None:
    for number in range(25):
        scene.event(
            ago=5000 - 100 * number, camera=["door", "gate"][number % 2], label=["fight", "fall"][number % 3 == 0]
        )
    scene.write()
    fresh(client)
    got, cursor, sizes = [], "", []
    while True:
        page = client.get(f"/api/events?limit=10&cursor={cursor}").json()
        got += page["events"]
        sizes.append(len(page["events"]))
        assert page["total"] == 25
        if (cursor := page["next"]) is None:
            break
    assert sizes == [10, 10, 5]
    assert [one["started"] for one in got] == sorted((one["started"] for one in got), reverse=True)
    assert len({one["key"] for one in got}) == 25
    assert {one["camera"] for one in events(client, "camera=gate")} == {"gate"}
    assert {one["label"] for one in events(client, "label=fall")} == {"fall"}
    assert not events(client, "site=nowhere")
    since, before = got[9]["started"], got[4]["started"]
    assert [one["key"] for one in events(client, f"since={since}&before={before}")] == [e["key"] for e in got[5:10]]
    client.post(f"/api/events/{got[0]['key']}/mark", json={"mark": "wrong"})
    assert [one["key"] for one in events(client, "mark=wrong")] == [got[0]["key"]]
    assert len(events(client, "mark=none")) == 24
    client.post(f"/api/events/{got[0]['key']}/mark", json={"mark": ""})
    assert not events(client, "mark=any")


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=501", "limit=x", "since=yesterday", "before=2026-13-01", "cursor=1", "mark=maybe",
     "zone=Mars/Olympus", "zone=../../etc/passwd", "zone=%00", "camera=" + "x" * 300,
     "since=9999-12-31T23:59:59-23:00"],
)  # fmt: skip
def test_wrong_values_are_refused_in_a_line(client: TestClient, query: str) -> None:
    for path in ("/api/events", "/api/statistics", "/cameras", "/cameras/statistics"):
        if "statistics" in path and query[:5] in ("limit", "curso"):
            continue
        asked = query.replace("since", "from").replace("before", "to") if path.startswith("/cameras") else query
        got = client.get(f"{path}?{asked}")
        assert got.status_code == 422, path
        assert "\n" not in got.json()["error"]


@pytest.mark.parametrize(
    "said",
    [{}, {"mark": "perhaps"}, {"mark": None}, [], "right", {"mark": "right", "label": "x"},
     {"mark": "wrong", "more": 1},
     {"mark": "wrong", "label": "x" * 101}],
)  # fmt: skip
def test_wrong_marks_are_refused(client: TestClient, scene: Scene, said: object) -> None:
    scene.event()
    scene.write()
    key = events(client)[0]["key"]
    got = client.post(f"/api/events/{key}/mark", json=said)
    assert got.status_code == 422 and "\n" not in got.json()["error"]
    assert client.post("/api/events/" + "0" * 24 + "/mark", json={"mark": "right"}).status_code == 404
    assert events(client)[0]["mark"] == ""


def test_who_has_an_answer_is_told_so(client: TestClient, scene: Scene) -> None:
    scene.event(ago=500)
    scene.write()
    for number, path in enumerate(("/api/events", "/api/cameras", "/api/statistics", "/cameras?part=1")):
        fresh(client)
        first = client.get(path)
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304 and not again.content
        scene.event(ago=100 - number)
        scene.write()
        fresh(client)
        changed = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert changed.status_code == 200 and changed.headers["etag"] != first.headers["etag"]


def test_clips_are_served_in_ranges(client: TestClient, scene: Scene) -> None:
    content = bytes(range(256)) * 20
    scene.event(clip=content, picture=picture())
    scene.write()
    (event,) = events(client)
    url = event["clip"]["url"]
    assert (event["clip"]["state"], event["snapshot"]["state"]) == ("there", "there")
    whole = client.get(url)
    assert whole.content == content and whole.headers["content-type"] == "video/mp4"
    for asked, first, end in (("0-9", 0, 10), ("5000-", 5000, 5120), ("-7", 5113, 5120), ("10-99999", 10, 5120)):
        got = client.get(url, headers={"Range": f"bytes={asked}"})
        assert got.status_code == 206 and got.content == content[first:end]
        assert got.headers["content-range"] == f"bytes {first}-{end - 1}/5120"
    assert client.get(url, headers={"Range": "bytes=9999-"}).status_code == 416
    for odd in ("bytes=", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,3-4", "bytes=-0"):
        assert client.get(url, headers={"Range": odd}).status_code in (200, 416)
    picked = client.get(event["snapshot"]["url"])
    assert picked.headers["content-type"] == "image/jpeg" and picked.content.startswith(b"\xff\xd8")
    assert client.get(url, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304


def test_no_file_outside_is_served(client: TestClient, scene: Scene, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    scene.event(ago=900)
    line = json.loads(scene.lines[-1])
    (scene.folder / "clips" / "link.mp4").symlink_to(secret)
    (scene.folder / "clips" / "inner").mkdir()
    os.mkfifo(scene.folder / "clips" / "pipe.mp4")
    names = [
        "link.mp4",
        str(secret),
        "../../secret",
        "..",
        ".",
        "inner",
        "pipe.mp4",
        "../events.jsonl",
        "a\0b",
        "/",
        "",
    ]
    for number, name in enumerate(names):
        scene.add(line | {"id": f"odd {number}", "clip": name, "snapshot": name})
    scene.write()
    got = events(client)
    assert len(got) == len(names) + 1
    for event in got:
        assert event["clip"]["url"] is None and event["snapshot"]["url"] is None
        for kind in ("clip", "snapshot"):
            assert client.get(f"/api/events/{event['key']}/{kind}").status_code == 404
    for path in ("/api/events/..%2f..%2fsecret/clip", "/api/events/" + "0" * 24 + "/clip", "/static/../settings.py"):
        assert client.get(path).status_code in (404, 422)
    (scene.folder / "clips").rename(tmp_path / "moved")
    (scene.folder / "clips").symlink_to(tmp_path / "moved")
    (tmp_path / "moved" / Path(line["clip"]).name).write_bytes(b"x")
    assert client.get(f"/api/events/{got[-1]['key']}/clip").status_code == 404, "nor through a folder that is a link"


def test_a_clip_says_whether_it_comes(client: TestClient, scene: Scene) -> None:
    since_then = time.time() - NOW.timestamp()  # a long run of tests
    scene.event(ago=10_000)
    scene.event(ago=20 - since_then)
    scene.event(ago=9000, camera="gate", lasts=None)
    scene.write()
    scene.beat(door="live")
    states = {event["started"]: event["clip"]["state"] for event in events(client)}
    assert [states[moment] for moment in sorted(states)] == ["removed", "coming", "coming"]
    assert "The clip is not there yet" in client.get(events(client)[0]["page"]).text
    assert "The clip was removed" in client.get(events(client, "camera=door")[1]["page"]).text


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_are_shown_and_do_nothing(client: TestClient, scene: Scene, name: str) -> None:
    scene.event(camera="door", label="fight")
    line = json.loads(scene.lines[-1]) | {"camera": name, "label": name, "id": name}
    scene.lines[:] = [json.dumps(line)]
    scene.offline(name)
    scene.write()
    scene.beat(**{"door": "live"})
    (event,) = events(client)
    for path in (
        "/cameras",
        "/cameras?part=1",
        "/cameras/statistics",
        event["page"],
        "/api/cameras",
        "/api/statistics",
    ):
        got = client.get(path)
        assert got.status_code == 200
        if got.headers["content-type"].startswith("text/html"):
            assert "<script>alert" not in got.text and "<img src=x" not in got.text
    asked = {"camera": event["camera"], "label": event["label"]}
    assert client.get("/cameras", params=asked).status_code == 200
    assert client.get("/api/events", params=asked).json()["total"] == 1


def test_no_cameras_are_no_fault(tmp_path: Path) -> None:
    with asking(tmp_path) as client:
        assert "No cameras yet" in client.get("/cameras").text
        assert client.get("/api/cameras").json() == {"cameras": []}
        assert client.get("/api/corrections.csv").status_code == 422


def test_several_sites_are_shown_together(tmp_path: Path) -> None:
    scenes = {name: Scene(tmp_path / name) for name in ("yard", "hall")}
    for number, scene in enumerate(scenes.values()):
        for ago in (500, 300, 100):
            scene.event(ago=ago + 50 * number)
        scene.write()
    with asking(tmp_path, **scenes) as client:
        got = events(client)
        assert [one["site"] for one in got] == ["yard", "hall"] * 3
        assert len({one["key"] for one in got}) == 6
        assert {one["site"] for one in events(client, "site=hall")} == {"hall"}
        assert client.get("/api/corrections.csv").status_code == 422
        assert client.get("/api/corrections.csv?site=hall").status_code == 200
        client.post(f"/api/events/{got[0]['key']}/mark", json={"mark": "right"})
        assert [one["site"] for one in events(client, "mark=right")] == ["yard"]


def test_the_folder_of_the_monitor_is_only_read(client: TestClient, scene: Scene) -> None:
    scene.event(clip=b"x", picture=picture())
    scene.write()
    scene.beat()
    before = {path: path.stat().st_mtime_ns for path in scene.folder.rglob("*")}
    key = events(client)[0]["key"]
    client.post(f"/api/events/{key}/mark", json={"mark": "right"})
    for path in ("/cameras", "/cameras/statistics", f"/api/events/{key}/clip", "/api/corrections.csv"):
        client.get(path)
    assert {path: path.stat().st_mtime_ns for path in scene.folder.rglob("*")} == before


def test_answers_are_as_openapi_says(client: TestClient, scene: Scene) -> None:
    import jsonschema

    scene.event(ago=200)
    scene.event(ago=20, lasts=None)
    scene.offline("gate")
    scene.write()
    scene.beat(door="live", gate="offline")
    described = client.get("/openapi.json").json()
    for path in ("/api/events", "/api/cameras", "/api/statistics"):
        schema = described["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        fresh(client)
        jsonschema.validate(client.get(path).json(), schema | {"components": described["components"]})
