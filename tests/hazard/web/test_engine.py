"""The engine of `hazard serve`: jobs, answers and limits, also for videos that make a worker hang or crash."""

import csv
import errno
import io
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import av
import pytest

from features.errors import ArtifactError, RuntimeEnvironmentError, SettingsError
from hazard.cli.infer import infer
from hazard.synthetic.clips import draw_clip
from hazard.web.engine.engine import Engine
from hazard.web.engine.preview import find_media_type
from hazard.web.errors import RequestError
from hazard.web.jobs import store as job_store
from tests.conftest import Run
from tests.helpers.data.videos import write_numbered
from tests.helpers.engines import (
    PID_FILE_NAME,
    WAIT_SECONDS,
    run_test_engine,
    submit_copy,
    wait_for_condition,
    wait_until_finished,
)
from tests.helpers.servers.web import Site, run_site

SIZE = (96, 72)
NEAR = "127.0.0.2"
"""The address that the tests' networks setting allows."""


@pytest.fixture(scope="module")
def model(small_model: Path) -> Path:
    return small_model


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(tmp_path_factory.mktemp("clip") / "a.mp4")


@pytest.fixture(scope="module")
def engine(model: Path, tmp_path_factory: pytest.TempPathFactory) -> object:
    models = {"small": model, "twin": model}
    with run_test_engine(model, tmp_path_factory.mktemp("serve"), models=models, networks=(f"{NEAR}/32",)) as engine:
        yield engine


def drawn(file: Path, seconds: float = 2) -> Path:
    draw_clip(file, "fight", seed=2, size=SIZE, frame_rate=10, seconds=seconds)
    return file


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("seconds", [2, 9])
def test_an_answer_is_what_a_report_says(engine: Engine, model: Path, tmp_path: Path, run: Run, seconds: int) -> None:
    file = drawn(tmp_path / "a.mp4", seconds)
    job = wait_until_finished(engine, submit_copy(engine, file))
    assert (job.state, job.reason, job.progress) == ("done", "", 1.0)
    assert run(infer, file, "--model", model, "-o", tmp_path / "r", "--runtime", "torch").code == 0
    tables = {name: rows((tmp_path / "r" / f"{name}.csv").read_text()) for name in ("predictions", "windows")}
    said, answer = tables["predictions"][0], engine.get_answer(job.id)
    assert answer is not None
    assert (answer["label"], answer["status"], answer["model"]) == (said["label"], "ok", "small")
    assert answer["confidence"] == pytest.approx(float(said["probability"]), abs=1.1e-6) == job.confidence
    segments = answer["segment_predictions"]
    assert len(segments) == len(tables["windows"])
    assert (len(segments) > 1) == (seconds > 2)
    for segment, row in zip(segments, tables["windows"], strict=True):
        assert segment["label"] == row["label"]
        assert {each["label"]: each["confidence"] for each in segment["top5"]} == pytest.approx(
            {label: float(row[label]) for label in answer["labels"]}, abs=1.1e-6
        )
    assert [s["start"] for s in segments[1:]] == [s["end"] for s in segments[:-1]]
    assert (segments[0]["start"], segments[-1]["end"]) == (0.0, pytest.approx(answer["duration"]))
    assert job.seconds == pytest.approx(seconds, abs=0.2)


def test_what_a_job_leaves(engine: Engine, clip: Path) -> None:
    job = wait_until_finished(engine, submit_copy(engine, clip, "../../été\n.mp4"))
    assert job.name == "../../été\\n.mp4"
    assert len(job.id) == 26
    assert job.id.isalnum()
    assert engine.get_job("../" + job.id) is None
    files = {kind: engine.find_file(job.id, kind) for kind in ("video", "csv", "picture", "annotated")}
    assert files["annotated"] is None
    assert files["video"] is not None and files["video"].read_bytes() == clip.read_bytes()
    assert engine.get_media_type(job.id) == "video/mp4"
    assert files["picture"] is not None and files["picture"].read_bytes().startswith(b"\xff\xd8")
    assert files["csv"] is not None
    assert set(rows(files["csv"].read_text())[0]) == {"start", "end", "label", "confidence", "normal", "hazardous"}
    assert {str(file) for file in engine.incoming_folder.iterdir()} == set()
    assert json.dumps(job.as_json())
    assert engine.list_jobs()[0].id == job.id
    assert engine.delete(job.id)
    assert not engine.delete(job.id)
    assert engine.get_answer(job.id) is None
    assert not files["video"].parent.exists()


def test_one_of_several_models_is_chosen(engine: Engine, clip: Path) -> None:
    said = [
        engine.get_answer(wait_until_finished(engine, submit_copy(engine, clip, model=name)).id)
        for name in ("small", "twin", "")
    ]
    assert [answer and answer["model"] for answer in said] == ["small", "twin", "small"]
    assert len({answer and answer["confidence"] for answer in said}) == 1


def test_the_model_is_told_of(engine: Engine) -> None:
    assert list(engine.models) == ["small", "twin"]
    facts = engine.models[engine.default_model].as_json()
    assert (facts["name"], set(facts["labels"]), facts["backbone"]) == (
        "small",
        {"normal", "hazardous"},
        "mobilenet_v2",
    )
    assert facts["positive_label"] == "hazardous"
    assert 0 < facts["threshold"] < 1
    assert engine.workers == 1


def test_what_is_no_video_fails_and_others_are_served(engine: Engine, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "t.mp4").write_text("#EXTM3U\n" * 9)
    bad, good = submit_copy(engine, tmp_path / "t.mp4"), submit_copy(engine, clip)
    failed = wait_until_finished(engine, bad)
    assert (failed.state, failed.stage) == ("failed", "open")
    assert failed.reason.startswith("open: not a video")
    answer = engine.get_answer(bad.id)
    assert answer is not None
    assert (answer["status"], answer["label"], answer["segment_predictions"]) == ("failed", "", [])
    assert wait_until_finished(engine, good).state == "done"


def test_hangs_and_crashes_fail_alone(model: Path, clip: Path, tmp_path: Path) -> None:
    with run_test_engine(model, tmp_path, deadline_seconds=5.0) as engine:
        named = {name: submit_copy(engine, clip, f"{name}.mp4") for name in ("hang", "crash", "full", "good")}
        said = {name: wait_until_finished(engine, job) for name, job in named.items()}
    assert said["hang"].reason == "decode: timeout: nothing decoded for 5 s"
    assert said["crash"].reason == "decode: the decoder crashed (SIGSEGV)"
    assert said["full"].reason == "server: the server's disk is full"
    assert said["good"].state == "done"
    assert engine.workers == 1


def test_a_worker_that_is_killed_while_it_rests_costs_nobody_anything(engine: Engine, clip: Path) -> None:
    assert wait_until_finished(engine, submit_copy(engine, clip)).state == "done"
    pid = engine.incoming_folder.parent / "scratch" / PID_FILE_NAME
    os.kill(int(pid.read_text()), signal.SIGKILL)
    job = wait_until_finished(engine, submit_copy(engine, clip))
    assert (job.state, job.attempts) == ("done", 1)


@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [
        ("a.mp4", "libx264", "video/mp4"),
        ("a.mp4", "mpeg4", ""),
        ("a.mov", "libx264", ""),
        ("a.mkv", "libx264", ""),
        ("a.webm", "libvpx", "video/webm"),
        ("a.avi", "libx264", ""),
    ],
)
def test_what_browsers_play(tmp_path: Path, name: str, codec: str, kind: str) -> None:
    assert (
        find_media_type(write_numbered(tmp_path / name, 12, codec=codec, b_frames=0).rename(tmp_path / "video")) == kind
    )


@pytest.mark.long
def test_what_drips_has_an_end(model: Path, clip: Path, tmp_path: Path) -> None:
    with run_test_engine(model, tmp_path, job_seconds=3.0) as engine:
        assert (
            wait_until_finished(engine, submit_copy(engine, clip, "drip.mp4")).reason
            == "decode: timeout: not done within 3 s (job_seconds)"
        )


@pytest.mark.long
def test_a_job_that_is_deleted_is_worked_on_no_longer(model: Path, clip: Path, tmp_path: Path) -> None:
    with run_test_engine(model, tmp_path) as engine:
        job, next_one = submit_copy(engine, clip, "drip.mp4"), submit_copy(engine, clip)
        wait_for_condition(engine, job, lambda job: job.state == "decoding" and job.progress == 0.25)
        waiting = engine.get_job(next_one.id)
        assert waiting is not None
        assert (waiting.state, waiting.place, engine.queue_length) == ("queued", 1, 1)
        assert engine.delete(job.id)
        assert wait_until_finished(engine, next_one).state == "done"
        assert engine.get_job(job.id) is None
        assert [each.name for each in (tmp_path / "jobs").iterdir()] == [next_one.id]


def test_a_restart_goes_on(model: Path, clip: Path, tmp_path: Path) -> None:
    with run_test_engine(model, tmp_path) as engine:
        done = wait_until_finished(engine, submit_copy(engine, clip, "done.mp4"))
        answer = engine.get_answer(done.id)
        names = ("drip.mp4", "waits.mp4", "lost.mp4", "worn.mp4")
        running, waiting, lost, worn = (submit_copy(engine, clip, name) for name in names)
        wait_for_condition(engine, running, lambda job: job.state == "decoding")
    record = tmp_path / "jobs" / running.id / "job.json"
    record.write_text(record.read_text().replace("drip", "calm"))
    record = tmp_path / "jobs" / worn.id / "job.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"state": "decoding", "attempts": 3}))
    (tmp_path / "jobs" / lost.id / "video").unlink()
    (tmp_path / "jobs" / "strange").mkdir()
    (tmp_path / "incoming" / "half").write_bytes(b"x")
    with run_test_engine(model, tmp_path) as engine:
        assert {job.id for job in engine.list_jobs()} == {done.id, running.id, waiting.id, worn.id}
        assert engine.get_job(done.id) == done
        assert engine.get_answer(done.id) == answer
        for job in (running, waiting):
            assert wait_until_finished(engine, job).state == "done"
        assert "started 3 times and never finished" in wait_until_finished(engine, worn).reason, (
            "it takes the server with it"
        )
        again = engine.get_job(running.id)
        assert again is not None and again.attempts == 1
        assert not list(engine.incoming_folder.iterdir())
    assert not (tmp_path / "jobs" / "strange").exists()


def test_what_is_past_its_time_is_removed(model: Path, clip: Path, tmp_path: Path) -> None:
    now = [1_000_000.0]
    with run_test_engine(model, tmp_path, clock=lambda: now[0], keep_hours=2.0) as engine:
        old = wait_until_finished(engine, submit_copy(engine, clip))
        now[0] += 3600
        young = wait_until_finished(engine, submit_copy(engine, clip))
        running = submit_copy(engine, clip, "drip.mp4")
        engine.tidy()
        assert len(engine.list_jobs()) == 3
        now[0] += 3601
        engine.tidy()
        assert [job.id for job in engine.list_jobs()] == [running.id, young.id]
        assert not (tmp_path / "jobs" / old.id).exists()
        now[0] += 10**6
        engine.tidy()
        assert [job.id for job in engine.list_jobs()] == [running.id], "what is not over is not removed"


@pytest.mark.long
def test_the_oldest_make_room(model: Path, clip: Path, tmp_path: Path) -> None:
    with run_test_engine(model, tmp_path) as engine:
        size = sum(
            file.stat().st_size
            for file in (tmp_path / "jobs" / wait_until_finished(engine, submit_copy(engine, clip)).id).iterdir()
        )
    with run_test_engine(model, tmp_path, keep_gigabytes=2.7 * size / 1e9) as engine:
        first = engine.list_jobs()[0]
        second, third = (wait_until_finished(engine, submit_copy(engine, clip)) for _ in range(2))
        engine.tidy()
        assert [job.id for job in engine.list_jobs()] == [third.id, second.id]
        assert engine.get_job(first.id) is None
        running = submit_copy(engine, clip, "drip.mp4")
        with pytest.raises(RequestError) as refused:
            engine.make_room(3 * size)
        assert refused.value.status == 507
        assert [job.id for job in engine.list_jobs()] == [running.id]


def test_twenty_at_once_are_served_in_order(engine: Engine, clip: Path) -> None:
    barrier = threading.Barrier(20)
    submitted = []

    def submit(number: int) -> None:
        barrier.wait()
        submitted.append(submit_copy(engine, clip, f"{number}.mp4"))

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue = [job.id for job in reversed(engine.list_jobs())][-20:]
    ended = [wait_until_finished(engine, job) for job in submitted]
    assert {job.state for job in ended} == {"done"}
    assert len({job.id for job in ended}) == 20

    def moment(identity: str) -> int:
        file = engine.find_file(identity, "answer")
        assert file is not None
        return file.stat().st_mtime_ns

    assert sorted(queue, key=moment) == queue


def test_what_is_refused(model: Path, clip: Path, tmp_path: Path) -> None:
    with run_test_engine(model, tmp_path, queue=2) as engine:
        running = submit_copy(engine, clip, "drip.mp4")
        wait_for_condition(engine, running, lambda job: job.state == "decoding")
        for _ in range(2):
            submit_copy(engine, clip)
        cases = [(lambda: submit_copy(engine, clip), 429, "2 videos wait"),
                 (lambda: submit_copy(engine, clip, model="large"), 400, "no model 'large'; choose one of: small"),
                 (lambda: engine.request_annotation(running.id), 409, "not done yet")]  # fmt: skip
        cases += [(lambda url=url: engine.submit_url(url), 400, said) for url, said in ADDRESSES.items()]
        for attempt, status, said in cases:
            with pytest.raises(RequestError) as refused:
                attempt()
            assert refused.value.status == status
            assert said in refused.value.reason


def test_a_full_disk_takes_nothing_on(engine: Engine, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = engine.list_jobs()
    monkeypatch.setattr(job_store.shutil, "move", full)
    with pytest.raises(RequestError) as refused:
        submit_copy(engine, clip)
    assert (refused.value.status, engine.list_jobs()) == (507, before)
    assert len(list((engine.incoming_folder.parent / "jobs").iterdir())) == len(before)
    next(engine.incoming_folder.iterdir()).unlink()


ADDRESSES = {
    "gopher://example.org/a": "gopher:// is not allowed",
    "a.mp4": "not a URL",
    "http://127.0.0.1:9000/a.mp4": "a loopback address",
    "http://2130706433/a.mp4": "unusual way",
    "http://[::ffff:10.0.0.1]/a.mp4": "mapped",
    "http://[64:ff9b::7f00:1]/a.mp4": "NAT64",
    "http://user:secret@example.org/a.mp4": "password",
}


def test_an_address_is_fetched(engine: Engine, clip: Path) -> None:
    with run_site(NEAR) as site:
        url = site.add_video("/a.mp4", clip.read_bytes())
        job = wait_until_finished(engine, engine.submit_url(url))
        gone = wait_until_finished(engine, engine.submit_url(site.url("/none.mp4")))
    assert (job.state, job.name, job.media) == ("done", url, "video/mp4")
    assert (gone.state, gone.reason) == ("failed", "fetch: the server answered 404 Not Found")
    assert gone.stage == "fetch"


def test_a_name_that_leads_home_is_not_connected_to(engine: Engine, clip: Path, site: Site) -> None:
    site.add_video("/a.mp4", clip.read_bytes())
    job = wait_until_finished(engine, engine.submit_url(site.url("/a.mp4", host="localhost")))
    assert job.state == "failed"
    assert "a loopback address" in job.reason
    assert "the setting networks" in job.reason
    assert site.connections == 0


def test_annotated_on_request(engine: Engine, clip: Path) -> None:
    job = wait_until_finished(engine, submit_copy(engine, clip))
    asked = engine.request_annotation(job.id)
    assert asked is not None and asked.is_annotating
    made = wait_for_condition(engine, job, lambda job: not job.is_annotating)
    assert (made.has_annotated, made.annotate_reason) == (True, "")
    file = engine.find_file(job.id, "annotated")
    with av.open(str(file)) as movie:
        assert movie.streams.video[0].codec_context.name == "h264"
    assert made.as_json()["links"]["annotated"] == f"/jobs/{job.id}/annotated"


def test_what_browsers_do_not_play_is_shown_all_the_same(engine: Engine, tmp_path: Path) -> None:
    job = wait_until_finished(engine, submit_copy(engine, write_numbered(tmp_path / "a.avi", 30, codec="mpeg4")))
    assert (job.state, job.media) == ("done", "")
    wait_for_condition(engine, job, lambda job: job.has_preview)
    assert engine.get_media_type(job.id) == "video/mp4"
    with av.open(str(engine.find_file(job.id, "video"))) as movie:
        assert movie.streams.video[0].codec_context.name == "h264"
    upload = engine.find_file(job.id, "upload")
    assert upload is not None and upload.read_bytes()[:4] == b"RIFF"


def test_a_server_that_cannot_work_says_so(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    next(broken.glob("*.skops")).write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="damaged"), run_test_engine(broken, tmp_path / "a"):
        pass
    with pytest.raises(SettingsError, match="no model"), run_test_engine(tmp_path / "none", tmp_path / "b"):
        pass
    with pytest.raises(SettingsError, match="nothing to serve"), run_test_engine(model, tmp_path / "c", models={}):
        pass
    busy = pytest.raises(RuntimeEnvironmentError, match="another server uses the folder")
    with run_test_engine(model, tmp_path / "d"), busy, run_test_engine(model, tmp_path / "d"):
        pass


def test_waiting_ends(engine: Engine, clip: Path) -> None:
    assert engine.wait_for_job("nobody", 5.0) is None
    job = submit_copy(engine, clip, "drip.mp4")
    began = time.monotonic()
    found = engine.wait_for_job(job.id, 0.05)
    assert found is not None and not found.is_over
    threading.Timer(0.05, engine.delete, [job.id]).start()
    assert engine.wait_for_job(job.id, WAIT_SECONDS) is None
    assert time.monotonic() - began < WAIT_SECONDS / 2
