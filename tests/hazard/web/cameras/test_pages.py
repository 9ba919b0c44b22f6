"""The pages and the API of cameras over HTTP."""

import json
import os
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.helpers.data.monitor_folders import NOW, MonitorFolder, expire_sites, make_client, make_jpeg, request_events
from tests.helpers.data.predictions import HOSTILE_NAMES


def test_events_are_paged_and_filtered(client: TestClient, scene: MonitorFolder) -> None:
    for number in range(25):
        scene.add_event(
            ago=5000 - 100 * number, camera=["door", "gate"][number % 2], label=["fight", "fall"][number % 3 == 0]
        )
    scene.write()
    expire_sites(client)
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
    assert {one["camera"] for one in request_events(client, "camera=gate")} == {"gate"}
    assert {one["label"] for one in request_events(client, "label=fall")} == {"fall"}
    assert not request_events(client, "site=nowhere")
    since, before = got[9]["started"], got[4]["started"]
    assert [one["key"] for one in request_events(client, f"since={since}&before={before}")] == [
        e["key"] for e in got[5:10]
    ]
    client.post(f"/api/events/{got[0]['key']}/mark", json={"mark": "wrong"})
    assert [one["key"] for one in request_events(client, "mark=wrong")] == [got[0]["key"]]
    assert len(request_events(client, "mark=none")) == 24
    client.post(f"/api/events/{got[0]['key']}/mark", json={"mark": ""})
    assert not request_events(client, "mark=any")


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
def test_wrong_marks_are_refused(client: TestClient, scene: MonitorFolder, said: object) -> None:
    scene.add_event()
    scene.write()
    key = request_events(client)[0]["key"]
    got = client.post(f"/api/events/{key}/mark", json=said)
    assert got.status_code == 422 and "\n" not in got.json()["error"]
    assert client.post("/api/events/" + "0" * 24 + "/mark", json={"mark": "right"}).status_code == 404
    assert request_events(client)[0]["mark"] == ""


def test_who_has_an_answer_is_told_so(client: TestClient, scene: MonitorFolder) -> None:
    scene.add_event(ago=500)
    scene.write()
    for number, path in enumerate(("/api/events", "/api/cameras", "/api/statistics", "/cameras?part=1")):
        expire_sites(client)
        first = client.get(path)
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304 and not again.content
        scene.add_event(ago=100 - number)
        scene.write()
        expire_sites(client)
        changed = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert changed.status_code == 200 and changed.headers["etag"] != first.headers["etag"]


def test_clips_are_served_in_ranges(client: TestClient, scene: MonitorFolder) -> None:
    content = bytes(range(256)) * 20
    scene.add_event(clip=content, picture=make_jpeg())
    scene.write()
    (event,) = request_events(client)
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


def test_no_file_outside_is_served(client: TestClient, scene: MonitorFolder, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    scene.add_event(ago=900)
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
    got = request_events(client)
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


def test_a_clip_says_whether_it_comes(client: TestClient, scene: MonitorFolder) -> None:
    since_then = time.time() - NOW.timestamp()  # a long run of tests
    scene.add_event(ago=10_000)
    scene.add_event(ago=20 - since_then)
    scene.add_event(ago=9000, camera="gate", lasts=None)
    scene.write()
    scene.write_heartbeat(door="live")
    states = {event["started"]: event["clip"]["state"] for event in request_events(client)}
    assert [states[moment] for moment in sorted(states)] == ["removed", "coming", "coming"]
    assert "The clip is not ready yet" in client.get(request_events(client)[0]["page"]).text
    assert "The clip was removed" in client.get(request_events(client, "camera=door")[1]["page"]).text


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_are_shown_and_do_nothing(client: TestClient, scene: MonitorFolder, name: str) -> None:
    scene.add_event(camera="door", label="fight")
    line = json.loads(scene.lines[-1]) | {"camera": name, "label": name, "id": name}
    scene.lines[:] = [json.dumps(line)]
    scene.add_offline(name)
    scene.write()
    scene.write_heartbeat(**{"door": "live"})
    (event,) = request_events(client)
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
    with make_client(tmp_path) as client:
        assert "No cameras yet" in client.get("/cameras").text
        assert client.get("/api/cameras").json() == {"cameras": []}
        assert client.get("/api/corrections.csv").status_code == 422


def test_several_sites_are_shown_together(tmp_path: Path) -> None:
    scenes = {name: MonitorFolder(tmp_path / name) for name in ("yard", "hall")}
    for number, scene in enumerate(scenes.values()):
        for ago in (500, 300, 100):
            scene.add_event(ago=ago + 50 * number)
        scene.write()
    with make_client(tmp_path, **scenes) as client:
        got = request_events(client)
        assert [one["site"] for one in got] == ["yard", "hall"] * 3
        assert len({one["key"] for one in got}) == 6
        assert {one["site"] for one in request_events(client, "site=hall")} == {"hall"}
        assert client.get("/api/corrections.csv").status_code == 422
        assert client.get("/api/corrections.csv?site=hall").status_code == 200
        client.post(f"/api/events/{got[0]['key']}/mark", json={"mark": "right"})
        assert [one["site"] for one in request_events(client, "mark=right")] == ["yard"]


def test_the_folder_of_the_monitor_is_only_read(client: TestClient, scene: MonitorFolder) -> None:
    scene.add_event(clip=b"x", picture=make_jpeg())
    scene.write()
    scene.write_heartbeat()
    before = {path: path.stat().st_mtime_ns for path in scene.folder.rglob("*")}
    key = request_events(client)[0]["key"]
    client.post(f"/api/events/{key}/mark", json={"mark": "right"})
    for path in ("/cameras", "/cameras/statistics", f"/api/events/{key}/clip", "/api/corrections.csv"):
        client.get(path)
    assert {path: path.stat().st_mtime_ns for path in scene.folder.rglob("*")} == before


def test_answers_are_as_openapi_says(client: TestClient, scene: MonitorFolder) -> None:
    import jsonschema

    scene.add_event(ago=200)
    scene.add_event(ago=20, lasts=None)
    scene.add_offline("gate")
    scene.write()
    scene.write_heartbeat(door="live", gate="offline")
    described = client.get("/openapi.json").json()
    for path in ("/api/events", "/api/cameras", "/api/statistics"):
        schema = described["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        expire_sites(client)
        jsonschema.validate(client.get(path).json(), schema | {"components": described["components"]})
