"""FAULTS rows 35 to 42 on a running server: names, folders, sizes, slow clients, private addresses."""

import json
import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.data.videos import write_numbered
from tests.helpers.servers.web import Site, run_site

pytest.importorskip("fastapi", reason="pip install '.[serve]'")

from tests.helpers.data.monitor_folders import MonitorFolder
from tests.helpers.servers.served import RunningServer, make_chunk, make_form, make_post_head, read_response, run_server

CAP = 300_000


@pytest.fixture(scope="module")
def model(small_model: Path) -> Path:
    return small_model


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    data = tmp_path_factory.mktemp("data")
    with run_server({"first": model}, data, max_bytes=CAP, upload_seconds=3, uploads=2) as server:
        yield server


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def others_are_served(served: RunningServer) -> None:
    began = time.monotonic()
    assert served.client.get("/healthz").status_code == 200
    assert served.client.get("/models").status_code == 200
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("../../x", "../../x"),
        ("/etc/passwd", "/etc/passwd"),
        ("..\\..\\x.mp4", "..\\..\\x.mp4"),
        ("a:b\tc.mp4", "a:b\\tc.mp4"),
        ("über \U0001f600.mp4", "über \U0001f600.mp4"),
        ("\udcff\udcfe.mp4", "��.mp4"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("\u202egpj.mp4", "\\u202egpj.mp4"),
        ("x" * 3000, "x" * 200),
    ],
)
def test_35_36_names_are_text_and_never_paths(served: RunningServer, video: bytes, sent: str, shown: str) -> None:
    before = files_of(served.settings.data.parent)
    body = make_form(video, name=sent)
    answer = served.client.post("/jobs", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 202
    job = served.wait_until_finished(answer.json()["id"])
    assert (job["state"], job["name"]) == ("done", shown)
    new = files_of(served.settings.data.parent) - before
    assert new and all(f"/jobs/{job['id']}" in f"/{path}" for path in new)
    page = served.client.get(f"/jobs/{job['id']}/page")
    assert page.status_code == 200 and "<script>alert" not in page.text
    assert served.client.delete(f"/jobs/{job['id']}").status_code == 204


def test_37_a_folder_in_itself_is_no_job(model: Path, video: bytes, tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    for folder in (tmp_path, tmp_path / "jobs"):
        (folder / "loop").symlink_to(folder)
    with run_server({"first": model}, tmp_path) as server:
        job = server.client.post("/jobs", files={"video": video}).json()
        assert server.wait_until_finished(job["id"])["state"] == "done"
        assert [one["id"] for one in server.client.get("/jobs").json()["jobs"]] == [job["id"]]


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_38_many_files_in_the_folder_of_jobs(model: Path, tmp_path: Path, count: int) -> None:
    (tmp_path / "jobs").mkdir()
    for number in range(count):
        os.close(os.open(tmp_path / "jobs" / f"{number}.txt", os.O_CREAT))
    with run_server({"first": model}, tmp_path) as server:
        began = time.process_time()
        assert server.client.get("/jobs").json() == {"jobs": []}
        assert server.client.get("/").status_code == 200
        assert time.process_time() - began < 1


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_37_38_the_folder_of_a_monitor(model: Path, tmp_path: Path, count: int) -> None:
    """A folder that contains a link to itself, and many snapshots: only files named in the event log are opened."""
    scene = MonitorFolder(tmp_path / "site")
    for number in range(30):
        scene.add_event(100.0 + 60 * number)
    scene.write()
    for folder in (scene.folder, scene.folder / "snapshots"):
        (folder / "loop").symlink_to(folder)
    for number in range(count):
        os.close(os.open(scene.folder / "snapshots" / f"{number}.jpg", os.O_CREAT))
    with run_server({"first": model}, tmp_path / "data", monitors={"site": scene.folder}) as server:
        began = time.process_time()
        events = server.client.get("/api/events", params={"limit": 10}).json()["events"]
        assert len(events) == 10
        assert server.client.get("/api/cameras").status_code == 200
        assert server.client.get("/cameras").status_code == 200
        assert time.process_time() - began < 2


def test_38_a_list_of_jobs_is_bounded(served: RunningServer) -> None:
    assert served.client.get("/jobs", params={"limit": 1001}).status_code == 422
    assert len(served.client.get("/jobs", params={"limit": 1}).json()["jobs"]) <= 1


def test_39_an_honest_upload_that_is_too_large(served: RunningServer) -> None:
    with served.connect() as raw:
        raw.sendall(make_post_head("/predict", "Content-Length: 5000000000"))
        status, body = read_response(raw)
    assert status == 413
    assert json.loads(body) == {"error": "too large: the limit is 0.3 MB", "status": 413}
    assert not served.list_unfinished_uploads()


@pytest.mark.parametrize("length", ["Content-Length: 5000000", "Transfer-Encoding: chunked"])
def test_39_an_upload_that_grows_too_large(served: RunningServer, length: str) -> None:
    piece = bytes(65536)
    is_chunked = length.startswith("Transfer")
    sent = 0
    with served.connect() as raw:
        head = make_form(b"", end=False)
        raw.sendall(make_post_head("/jobs", length) + (make_chunk(head) if is_chunked else head))
        try:
            while sent < 5_000_000 - 10 * len(piece):
                raw.sendall(make_chunk(piece) if is_chunked else piece)
                sent += len(piece)
        except OSError:
            pass
        status, body = read_response(raw)
    assert (status, json.loads(body)["status"]) == (413, 413)
    assert not served.list_unfinished_uploads()
    others_are_served(served)


def test_39_a_length_that_promises_less(served: RunningServer, video: bytes) -> None:
    body = make_form(video)
    with served.connect() as raw:
        raw.sendall(make_post_head("/jobs", f"Content-Length: {len(body) // 2}") + body)
        status, said = read_response(raw)
    assert status == 400 and "the form is incomplete" in json.loads(said.split(b"HTTP/1.1")[0])["error"]
    assert not served.list_unfinished_uploads()


def test_39_a_client_that_leaves(served: RunningServer) -> None:
    with served.connect() as raw:
        raw.sendall(make_post_head("/jobs", "Content-Length: 200000") + make_form(bytes(100_000), end=False))
    until = time.monotonic() + 30  # the server shares its process with all tests
    while served.list_unfinished_uploads() and time.monotonic() < until:
        time.sleep(0.01)
    assert not served.list_unfinished_uploads()


def test_40_a_slow_upload(served: RunningServer) -> None:
    with served.connect() as raw:
        raw.settimeout(0.02)
        raw.sendall(make_post_head("/jobs", "Content-Length: 200000") + make_form(b"", end=False))
        began, said, others = time.monotonic(), b"", 0
        while not said and time.monotonic() - began < 60:
            raw.sendall(b"x")
            try:
                said = raw.recv(65536)
            except TimeoutError:
                others_are_served(served)
                others += 1
        lasted = time.monotonic() - began
        raw.settimeout(20)
        status, body = read_response(raw, said)  # head and body may come one after the other
    assert status == 408 and 2.5 < lasted < 60 and others > 2
    assert json.loads(body)["error"] == "the request took too long to arrive"
    assert not served.list_unfinished_uploads()


def test_40_an_upload_that_stops(served: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    intake = served.app.state.intake
    monkeypatch.setattr(intake, "limits", replace(intake.limits, idle_seconds=0.3))
    with served.connect() as raw:
        raw.sendall(make_post_head("/jobs", "Content-Length: 200000") + make_form(b"x" * 1000, end=False))
        assert read_response(raw)[0] == 408
    assert not served.list_unfinished_uploads()


def test_40_other_bodies_are_bounded_too(served: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hazard.web.http.uploads.SMALL_BODY_TIMEOUT_SECONDS", 0.3)
    head = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"
    with served.connect() as raw:
        raw.sendall(head + b'{"url"')
        assert read_response(raw)[0] == 408
    with served.connect() as raw:
        raw.sendall(head.replace(b"50", b"5000000"))
        assert read_response(raw)[0] == 413


def test_40_a_body_that_nobody_asked_for(served: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hazard.web.http.limits.LINGER_SECONDS", 0.5)
    began = time.monotonic()
    with served.connect() as raw:
        raw.sendall(b"GET /models HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert int(raw.recv(65536).split()[1]) == 200
        try:
            while time.monotonic() - began < 60:
                raw.sendall(make_chunk(b"x" * 1000))
        except OSError:
            pass
    assert time.monotonic() - began < 50


def test_40_a_client_that_does_not_read(served: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hazard.web.http.limits.STALL_TIMEOUT_SECONDS", 0.3)
    with served.connect() as raw:
        poll = select.poll()
        poll.register(raw, select.POLLHUP | select.POLLERR)
        with suppress(OSError):  # it is closed before all of these are taken
            raw.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3000)
        assert poll.poll(15_000), "the connection is closed"
    others_are_served(served)


def test_40_headers_that_never_end(served: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hazard.web.http.limits.HEADER_TIMEOUT_SECONDS", 0.5)
    crowd = [served.connect() for _ in range(30)]
    whole, slow = b"GET /models HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /models HTTP/1.1\r\nHost: localhost\r\nX: "
    for raw in crowd:
        raw.sendall(slow)
    others_are_served(served)
    for raw in crowd:
        with raw:
            assert read_response(raw)[0] == 408
    with served.connect() as raw:  # nor the second one of a connection
        raw.sendall(whole + slow)
        status, rest = read_response(raw)
    assert status == 200 and b"HTTP/1.1 408" in rest


def test_40_more_connections_than_are_held(served: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hazard.web.http.limits.MAX_CONNECTIONS", 20)
    crowd = [served.connect() for _ in range(60)]
    others_are_served(served)
    for raw in crowd:
        raw.close()


def test_40_a_header_that_is_too_long(served: RunningServer) -> None:
    with served.connect() as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 100_000)
        status, body = read_response(raw)
    assert status == 400 and json.loads(body)["error"] == "the request is not valid HTTP"


def test_40_more_uploads_than_are_taken(served: RunningServer, video: bytes) -> None:
    crowd = [served.connect() for _ in range(served.settings.uploads)]
    try:
        for raw in crowd:
            raw.sendall(make_post_head("/jobs", "Content-Length: 200000") + make_form(b"", end=False))
        until = time.monotonic() + 30
        while served.app.state.intake.upload_slots.count < len(crowd) and time.monotonic() < until:
            others_are_served(served)
        refused = served.client.post("/jobs", files={"video": video})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        others_are_served(served)
    finally:
        for raw in crowd:
            raw.close()


PART = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(PART * 5000 + b"--b--\r\n", "more than 20 parts", id="parts"),
        pytest.param(b"--b\r\nX: " + b"y" * 50_000, "malformed multipart", id="long header"),
        pytest.param(b"--b\r\n" + b"X: y\r\n" * 5000, "malformed multipart", id="many headers"),
        pytest.param(PART.replace(b"x", b"x" * 70_000) + b"--b--\r\n", "more than 65536 bytes", id="field"),
        pytest.param(b"no form at all", "malformed multipart", id="text"),
        pytest.param(b"", "the form is incomplete", id="nothing"),
        pytest.param(b"--b--\r\n", "malformed multipart|no file", id="empty"),
        pytest.param(make_form(b"x", end=False), "the form is incomplete", id="cut"),
        pytest.param(make_form(b""), "the file is empty", id="empty file"),
        pytest.param(make_form(b"x", field="film"), "send it in the field 'video'", id="other field"),
        pytest.param(PART + b"--b--\r\n", "no file in the field 'video'", id="no file"),
        pytest.param(make_form(b"x", end=False) + b"\r\n" + make_form(b"y"), "more than one file", id="two files"),
        pytest.param(make_form(b"x").replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n", 1),
                     "encoding", id="base64"),
        pytest.param(make_form(b"x").replace(b"form-data", b"attachment"), "a part without a name", id="no form-data"),
    ],
)  # fmt: skip
def test_40_forms_that_are_none(served: RunningServer, body: bytes, said: str) -> None:
    answer = served.client.post("/predict", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 400
    assert answer.json()["status"] == 400
    assert any(part in answer.json()["error"] for part in said.split("|")), answer.text
    assert not served.list_unfinished_uploads()
    others_are_served(served)


@pytest.mark.parametrize("boundary", ["", "; boundary=", f"; boundary={'x' * 500}"])
def test_40_a_form_without_a_boundary(served: RunningServer, boundary: str) -> None:
    answer = served.client.post("/jobs", content=b"x", headers={"Content-Type": f"multipart/form-data{boundary}"})
    assert answer.status_code == 400 and "no boundary" in answer.json()["error"]


@pytest.mark.parametrize(
    "content",
    [
        b"this is text",
        b"\x89PNG\r\n\x1a\n" + bytes(500),
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"#EXTM3U\n/etc/passwd\n",
        os.urandom(5000),
    ],
    ids=["text", "picture", "list of files", "playlist", "noise"],
)
def test_content_is_checked_and_not_the_name(served: RunningServer, content: bytes) -> None:
    answer = served.client.post("/predict", files={"video": ("clip.mp4", content, "video/mp4")})
    assert answer.status_code == 415
    assert set(answer.json()) >= {"error", "status"} and "/etc" not in answer.text.replace("clip", "")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "127.1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "0.0.0.0",
        "127.0.0.1.",
        "①②⑦.0.0.1",
    ],
)
def test_41_private_addresses_are_never_connected_to(served: RunningServer, site: Site, host: str) -> None:
    answer = served.client.post("/predict", json={"url": f"http://{host}:{site.port}/a.mp4"})
    assert answer.status_code in (400, 422), answer.text
    assert "\n" not in answer.json()["error"]
    assert site.connections == 0


def test_42_redirects_to_private_addresses_are_refused_at_each_hop(model: Path, video: bytes, tmp_path: Path) -> None:
    with run_site() as first, run_site("127.0.0.2") as inner:
        inner.add_video("/b.mp4", video)
        first.add_redirect("/direct", inner.url("/b.mp4"))
        first.add_redirect("/two", first.url("/direct"))
        first.add_redirect("/decimal", f"http://2130706434:{inner.port}/b.mp4")
        first.add_redirect("/nat64", f"http://[64:ff9b::7f00:2]:{inner.port}/b.mp4")
        first.add_redirect("/file", "file:///etc/passwd")
        first.add_redirect("/good", first.add_video("/a.mp4", video))
        with run_server({"first": model}, tmp_path, networks=("127.0.0.1/32",)) as server:
            for path in ("/direct", "/two", "/decimal", "/nat64", "/file"):
                answer = server.client.post("/predict", json={"url": first.url(path)})
                assert answer.status_code == 422, answer.text
                assert "URL rejected" in answer.json()["error"]
            assert inner.connections == 0
            assert server.client.post("/predict", json={"url": first.url("/good")}).status_code == 200


def test_42_a_name_that_leads_inside_is_refused(served: RunningServer, site: Site) -> None:
    """The download process resolves the name and connects only to the address that it checked."""
    name = socket.gethostname()
    for host in ("localhost", "localhost.localdomain", name):
        answer = served.client.post("/predict", json={"url": f"http://{host}:{site.port}/a.mp4"})
        assert answer.status_code in (400, 422)
    assert site.connections == 0


def test_a_small_video_is_answered(served: RunningServer, tmp_path: Path) -> None:
    file = write_numbered(tmp_path / "a.mp4", 50)
    answer = served.client.post("/predict", files={"video": file.read_bytes()})
    assert answer.status_code == 200
    assert answer.json()["segment_predictions"][0].keys() == {"start", "end", "label", "confidence", "top5"}
