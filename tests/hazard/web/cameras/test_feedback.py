"""Users' feedback on events, the corrections made from it, and the statistics."""

import csv
import io
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from fastapi.testclient import TestClient

from features.cli.extract import extract_features
from hazard.data.corrections import read_corrections
from hazard.web.cameras.feedback import open_feedback
from hazard.web.cameras.statistics import compute_statistics, day_start
from tests.helpers.data.monitor_folders import (
    MonitorFolder,
    list_recorded_events,
    open_test_sites,
    request_events,
)
from tests.helpers.servers.alarms import write_pictures


def test_marks_survive_a_restart_and_half_a_line(scene: MonitorFolder, tmp_path: Path) -> None:
    for ago in (300, 200, 100):
        scene.add_event(ago=ago)
    scene.write()
    third, second, first = list_recorded_events(open_test_sites(scene.folder))
    marks = open_feedback(tmp_path / "marks", ["yard"])["yard"]
    assert marks.save(first, "right", "", 5.0) and marks.save(second, "right", "", 6.0)
    assert not marks.save(first, "right", "", 7.0), "said already"
    assert marks.save(second, "wrong", "play", 8.0)
    assert not marks.save(third, "", "", 9.0), "nothing to take back"
    assert marks.save(third, "right", "", 9.0) and marks.save(third, "", "", 9.5)
    with open(marks.file, "ab") as file:
        file.write(b'{"key": "hal')
    again = open_feedback(tmp_path / "marks", ["yard"])["yard"]
    assert again.by_key == marks.by_key
    assert (again.get_verdict(first.key), again.get_verdict(second.key), again.get_verdict(third.key)) == (
        "right",
        "wrong",
        "",
    )
    assert again.save(third, "right", "", 10.0)
    assert open_feedback(tmp_path / "marks", ["yard"])["yard"].get_verdict(third.key) == "right"


def test_sites_of_any_name_keep_their_marks_apart(scene: MonitorFolder, tmp_path: Path) -> None:
    scene.add_event()
    scene.write()
    (event,) = list_recorded_events(open_test_sites(scene.folder))
    names = ["../up", "a/b", "x" * 300, "", "ß\n"]
    marks = open_feedback(tmp_path / "marks", names)
    marks["a/b"].save(event, "right", "", 1.0)
    again = open_feedback(tmp_path / "marks", names)
    assert [name for name in names if again[name].by_key] == ["a/b"]
    assert not list(tmp_path.glob("*.jsonl"))


def test_marks_become_corrections_that_training_reads(client: TestClient, scene: MonitorFolder, tmp_path: Path) -> None:
    video = write_pictures(tmp_path / "clip.mp4", [False] * 10).read_bytes()
    for ago, label in ((500, "fight"), (400, "fight"), (300, "fall"), (200, "fight"), (100, "fight")):
        scene.add_event(ago=ago, label=label, clip=video if ago != 200 else b"")
    scene.write()
    keys = [event["key"] for event in request_events(client)][::-1]
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
    from features.cache.hdf5 import read_cache
    from hazard.data.corrections import apply_corrections

    _, done = apply_corrections(read_cache(tmp_path / "c.h5"), clips / "corrections.csv")
    assert (done.labelled_clips, done.excluded_clips) == (2, 1)


def test_a_wrong_event_of_a_model_of_two_labels_is_the_other_one(scene: MonitorFolder, tmp_path: Path) -> None:
    from hazard.web.cameras.feedback import make_corrections

    for ago in (300, 200):
        scene.add_event(ago=ago)
    scene.write()
    second, first = list_recorded_events(open_test_sites(scene.folder))
    marks = open_feedback(tmp_path / "marks", ["yard"])["yard"]
    marks.save(first, "wrong", "", 1.0)
    marks.save(second, "right", "", 1.0)
    labels = [("noFight", "fight"), ("a", "b", "c")]
    assert [label for _, label in make_corrections(marks.list_all(), labels)] == ["noFight", "fight"]
    assert [label for _, label in make_corrections(marks.list_all(), [*labels, ("calm", "fight")])] == ["", "fight"]
    assert [label for _, label in make_corrections(marks.list_all(), [("calm", "fall", "fight")])] == ["", "fight"]


# Numbers


def test_events_are_counted_in_the_hours_of_a_place(scene: MonitorFolder) -> None:
    zone = ZoneInfo("Europe/Berlin")
    midnight = day_start(date(2026, 3, 29), zone)  # that night, two o'clock is three o'clock
    assert datetime.fromtimestamp(midnight, zone).isoformat() == "2026-03-29T00:00:00+01:00"
    scene.add_event()
    scene.write()
    (event,) = list_recorded_events(open_test_sites(scene.folder))
    from dataclasses import replace

    many = [replace(event, key=str(n), started=midnight + 3600 * n) for n in range(0, 49)]
    many += [replace(event, key="other", camera="yard", label="fall", started=midnight + 4 * 86400)]
    got = compute_statistics(many, lambda one: {"0": "right", "1": "wrong", "2": "right"}.get(one.key, ""), zone)  # type: ignore[return-value]
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
