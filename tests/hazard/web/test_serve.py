"""`hazard serve`: the command, who may ask, and what the API answers."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from hazard.cli.main import hazard
from tests.conftest import Run
from tests.helpers.data.videos import write_numbered

pytest.importorskip("fastapi", reason="pip install '.[serve]'")

from hazard.web.http.guard import SECURITY_HEADERS, local_redirect_path
from tests.helpers.data.monitor_folders import MonitorFolder
from tests.helpers.servers.served import RunningServer, read_response, run_server

TOKEN = "0123456789abcdef-token"
TOKEN_MESSAGE = "the token is missing or wrong; send the header Authorization: Bearer TOKEN"


@pytest.fixture(scope="module")
def model(small_model: Path) -> Path:
    return small_model


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with run_server({"first": model, "second": model}, tmp_path_factory.mktemp("data")) as server:
        yield server


@pytest.fixture(scope="module")
def locked(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    data = tmp_path_factory.mktemp("locked")
    with run_server({"first": model}, data, token=TOKEN, hosts=("hazard.example",)) as server:
        yield server


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "give a model (--model FOLDER), a monitor (--monitor FOLDER)"),
        (("--model", "a", "--host", "0.0.0.0"), "a token is needed: --token, or $HAZARD_TOKEN"),
        (("--model", "a", "--host", "::"), "a token is needed"),
        (("--model", "a", "--token", "short"), "the token needs at least 16 printable ASCII characters"),
        (("--model", "a", "--host", "no-such-host.invalid"), "no such host"),
        (("--model", "x=a", "--model", "x=b"), "two folders have the name 'x'"),
        (("--model", "a/b=c/d"), "a name has 1 to 60 letters"),
        (("--model", "a", "--monitor", "x=/no/such"), "the folder does not exist"),
        (("--model", "a", "--set", "serve.prot=1"), "did you mean 'port'?"),
        (("--model", "a", "--set", "serve.keep_hours=0"), "setting 'keep_hours'"),
        (("--model", "/no/such/model", "--port", "0"), "/no/such/model"),
    ],
)
def test_wrong_options_are_one_line(
    run: Run, given: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HAZARD_TOKEN", raising=False)
    ran = run(hazard, "serve", *given)
    assert ran.code in (2, 4)
    assert said in ran.err and len(ran.err.strip().splitlines()) == 1


def test_cameras_are_shown_without_any_model(tmp_path: Path) -> None:
    scene = MonitorFolder(tmp_path / "site")
    scene.add_event()
    scene.write()
    given = ["--monitor", f"yard={scene.folder}", "--port", "0", "--data", str(tmp_path / "serve")]
    command = [sys.executable, "-m", "hazard", "serve", *given]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout and program.stderr
        found = re.fullmatch(r"open (http://127\.0\.0\.1:\d+)/cameras in a browser.*\n", program.stdout.readline())
        assert found, program.stderr.read()
        with httpx.Client(base_url=found[1]) as client:
            assert len(client.get("/api/events").json()["events"]) == 1
            assert client.get("/cameras").status_code == 200
            assert "This server only shows cameras" in client.get("/").text
            assert client.get("/models").json() == {"models": [], "default": ""}
            assert client.get("/healthz").json() == {"status": "ok", "workers": 0, "queued": 0}
            for path in ("/jobs", "/predict"):
                refused = client.post(path, files={"video": b"x"})
                assert (refused.status_code, refused.json()["error"].split(",")[0]) == (422, "this server has no model")
        assert "libtorch" not in Path(f"/proc/{program.pid}/maps").read_text()
        program.send_signal(signal.SIGTERM)
        program.communicate(timeout=30)
    assert program.returncode == 143


def test_a_port_that_is_taken(run: Run, model: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = run(hazard, "serve", "--model", model, "--port", port, "--data", tmp_path)
    assert ran.code == 5
    assert ran.err.strip() == f"error: 127.0.0.1:{port}: the port is in use; choose another with --port"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.long)]
)
def test_the_program_ends_politely(model: Path, tmp_path: Path, number: int, code: int) -> None:
    given = ["--model", f"mine={model}", "--port", "0", "--data", tmp_path / "d", "--runtime", "torch"]
    command = [sys.executable, "-m", "hazard", "serve", *map(str, given)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout and program.stderr
        lines = [program.stdout.readline() for _ in range(2)]
        found = re.search(r"open (http://127\.0\.0\.1:\d+) in a browser", lines[1])
        assert found, [*lines, program.stderr.read()]
        assert httpx.get(f"{found[1]}/models").json()["default"] == "mine"
        program.send_signal(number)
        _, said = program.communicate(timeout=30)
    assert program.returncode == code
    assert "Traceback" not in said


def test_an_upload_and_all_that_is_made_of_it(served: RunningServer, tmp_path: Path) -> None:
    file = write_numbered(tmp_path / "a.mp4", 75)
    sent = served.client.post("/jobs", files={"video": file.read_bytes()}, data={"model": "second"})
    assert (sent.status_code, sent.headers["location"]) == (202, sent.json()["links"]["self"])
    job = served.wait_until_finished(sent.json()["id"])
    assert (job["state"], job["model"], job["progress"]) == ("done", "second", 1.0)
    links = job["links"]
    answer = served.client.get(links["result"]).json()
    assert answer["model"] == "second" and answer["video_url"] == links["video"]
    assert answer["duration"] == pytest.approx(3.0, abs=0.05)
    ends = [part["end"] for part in answer["segment_predictions"]]
    assert [part["start"] for part in answer["segment_predictions"]] == [0.0, *ends[:-1]]
    assert served.client.get(links["csv"]).headers["content-type"].startswith("text/csv")
    assert served.client.get(links["page"]).headers["content-type"].startswith("text/html")
    assert served.client.get(f"{links['self']}/picture").content[:2] == b"\xff\xd8"
    assert served.client.get(links["self"]).json() == job
    assert job in served.client.get("/jobs").json()["jobs"]
    assert served.client.delete(links["self"]).status_code == 204
    for link in links.values():
        assert link is None or served.client.get(link).status_code == 404


def test_ranges_of_a_video(served: RunningServer, tmp_path: Path) -> None:
    content = write_numbered(tmp_path / "a.mp4", 50).read_bytes()
    job = served.wait_until_finished(served.client.post("/jobs", files={"video": content}).json()["id"])
    link = job["links"]["video"]
    whole = served.client.get(link)
    assert (whole.status_code, whole.headers["content-type"], whole.content) == (200, "video/mp4", content)
    part = served.client.get(link, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(content)}"
    assert served.client.get(link, headers={"Range": f"bytes={len(content)}-"}).status_code == 416


def test_an_annotated_video_is_made_when_it_is_asked_for(served: RunningServer, tmp_path: Path) -> None:
    content = write_numbered(tmp_path / "a.mp4", 50).read_bytes()
    job = served.wait_until_finished(served.client.post("/jobs", files={"video": content}).json()["id"])
    at = f"/jobs/{job['id']}"
    assert served.client.get(f"{at}/annotated").status_code == 404
    assert served.client.post(f"{at}/annotated").status_code == 202
    while not (known := served.client.get(at).json())["has_annotated"]:
        assert served.client.get(f"{at}/annotated").status_code in (200, 202)
        served.engine.wait_for_job(job["id"], 0.2)
    answer = served.client.get(known["links"]["annotated"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
    assert answer.content[4:8] == b"ftyp"


def test_an_answer_that_takes_longer_is_a_job(model: Path, tmp_path: Path, video: bytes) -> None:
    with run_server({"first": model}, tmp_path, wait_seconds=0.001) as server:
        answer = server.client.post("/predict", files={"video": video})
        assert answer.status_code == 202
        assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"
        assert server.wait_until_finished(answer.json()["id"])["state"] == "done"
        server.client.get("/healthz")


def test_what_is_asked_too_early(served: RunningServer) -> None:
    assert served.client.get("/jobs/nothing/result").status_code == 404
    assert served.client.post("/jobs/nothing/annotated").json() == {
        "error": "no such job; it may have expired",
        "status": 404,
    }


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        ("[" * 100_000, 413),
        ("[" * 50_000, 400),
        ("[]", 422),
        ('{"url": 3}', 422),
        ('{"url": "https://a.example/", "modle": "x"}', 422),
        ('{"url": "https://a.example/", "model": "none"}', 422),
        ('{"url": "https://a.example/", "model": 3}', 422),
        ('{"url": ""}', 422),
        ('{"url": "ftp://a.example/"}', 422),
        ('{"url": "https://me:secret@a.example/"}', 422),
        ('{"url": "https://a.example/\\u0000"}', 422),
    ],
)
def test_addresses_that_are_none(served: RunningServer, body: str, status: int) -> None:
    answer = served.client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert "secret" not in answer.text and "\n" not in answer.json()["error"]


def test_each_answer_says_what_a_browser_may_do(served: RunningServer) -> None:
    for method, path in [
        ("GET", "/"),
        ("GET", "/healthz"),
        ("GET", "/nothing"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/static/base.css"),
        ("PATCH", "/jobs"),
        ("POST", "/predict"),
    ]:
        answer = served.client.request(method, path)
        assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS, path
        assert answer.headers["cache-control"] == ("no-cache" if path.startswith("/static") else "no-store")
        assert "server" not in answer.headers
    with served.connect() as raw:
        raw.sendall(b"this is no HTTP\r\n\r\n")
        assert read_response(raw)[0] == 400


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("hazard.example", 200),
        ("hazard.example.:8000", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("localhost.evil.example", 400),
        ("[::1", 400),
        ("", 400),
    ],
)
def test_names_of_the_server(locked: RunningServer, host: str, status: int) -> None:
    assert locked.client.get("/models", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 404),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "{url}"}, 404),
        ({"Origin": "{url}"}, 404),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_pages_of_other_sites_change_nothing(served: RunningServer, headers: dict[str, str], status: int) -> None:
    given = {name: value.format(url=served.url) for name, value in headers.items()}
    assert served.client.delete("/jobs/nothing", headers=given).status_code == status
    assert served.client.get("/models", headers=given).status_code == 200


def test_a_token_is_asked_for(locked: RunningServer) -> None:
    with httpx.Client(base_url=locked.url) as stranger:
        for path in ("/", "/models", "/jobs", "/metrics", "/openapi.json", "/docs", "/jobs/x/video", "/api/events"):
            answer = stranger.get(path)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json() == {"error": TOKEN_MESSAGE, "status": 401}
        assert stranger.post("/jobs", content=b"x" * 100_000).status_code == 401
        for wrong in (f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer", "Bearer \xe9"):
            assert stranger.get("/models", headers={"Authorization": wrong.encode("latin-1")}).status_code == 401
        assert stranger.get("/healthz").status_code == 200
        assert stranger.get("/static/base.css").status_code == 200
    assert locked.client.get("/models").status_code == 200


def test_signing_in_and_out(locked: RunningServer) -> None:
    with httpx.Client(base_url=locked.url) as browser:
        sent = browser.get("/jobs/x/page?a=1", headers={"Accept": "text/html"})
        assert (sent.status_code, sent.headers["location"]) == (303, "/login?next=/jobs/x/page%3Fa%3D1")
        form = browser.get(sent.headers["location"])
        assert 'action="/login"' in form.text and 'value="/jobs/x/page?a=1"' in form.text
        wrong = browser.post("/login", data={"token": "wrong", "next": "/models"})
        assert wrong.status_code == 401 and "set-cookie" not in wrong.headers
        right = browser.post("/login", data={"token": TOKEN, "next": "/models"})
        assert (right.status_code, right.headers["location"]) == (303, "/models")
        cookie = right.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
        assert browser.get("/models").status_code == 200
        kept = dict(browser.cookies)
        assert browser.post("/logout").status_code == 303
        assert browser.get("/models").status_code == 401
        assert browser.get("/models", headers={"Cookie": f"hazard={kept['hazard']}"}).status_code == 401


@pytest.mark.parametrize(
    ("given", "goes"),
    [
        ("/jobs", "/jobs"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\n", "/"),
        ("", "/"),
    ],
)
def test_after_signing_in_one_stays_here(given: str, goes: str) -> None:
    assert local_redirect_path(given) == goes


def test_metrics(served: RunningServer) -> None:
    pytest.importorskip("prometheus_client", reason="pip install '.[metrics]'")
    from tests.helpers.servers.scrapes import sample_value, scrape_metrics

    found = scrape_metrics(f"{served.url}/metrics")
    assert sample_value(found, "hazard_serve_workers") == 1
    assert sample_value(found, "hazard_serve_answers_total", status="200") > 0


def test_the_page_of_the_api_shows_every_route(served: RunningServer) -> None:
    page = served.client.get("/docs").text
    paths = served.client.get("/openapi.json").json()["paths"]
    assert len(paths) >= 10
    for path in paths:
        assert f"<code>{path}</code>" in page


def test_an_error_for_people_is_a_page(served: RunningServer) -> None:
    answer = served.client.get("/nothing", headers={"Accept": "text/html"})
    assert answer.status_code == 404 and answer.headers["content-type"].startswith("text/html")


def test_a_mistake_of_the_server_is_one_line(served: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(identity: str) -> None:
        raise ValueError("secret\nof the server")

    monkeypatch.setattr(served.engine, "get_job", broken)
    answer = served.client.get("/jobs/x")
    assert answer.status_code == 500
    assert answer.json() == {"error": "internal server error; see the server's log", "status": 500}
