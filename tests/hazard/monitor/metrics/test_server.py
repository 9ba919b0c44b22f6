"""`/metrics`: the counters, their text format, and scrapers that misbehave."""

import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hazard.monitor.metrics.server
from features.live.types import CameraCounters, LiveFrame, StatusChange
from hazard.cli.main import hazard as command
from hazard.monitor.camera_watcher import EventChange
from hazard.monitor.detector import CameraEvent, Observer
from hazard.monitor.metrics.counters import MonitorCounters
from hazard.monitor.metrics.prometheus import MetricsCollector
from hazard.monitor.metrics.server import MAX_CONNECTIONS, serve_metrics
from hazard.types import Event
from hazard.utils.bind_address import BindAddress, parse_bind_address
from tests.conftest import Run
from tests.helpers.paths import ROOT
from tests.helpers.servers.receivers import make_alert
from tests.helpers.servers.scrapes import parse_metrics, sample_value, scrape_metrics

pytest.importorskip("prometheus_client", reason="pip install '.[metrics]'")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def camera_counters(**changes: Any) -> CameraCounters:
    defaults = {"state": "live", "decoded": 100, "picked": 20, "dropped": 3, "skipped": 7, "reconnects": 2}
    return CameraCounters(**{**defaults, "last_frame_age": 1.5, "reason": "", **changes})


def frame(camera: str, arrived: float) -> LiveFrame:
    return LiveFrame(camera, 1, 0.0, NOW, arrived, pixels=None)  # type: ignore[arg-type]


def event_change(camera: str, *, seconds: float = 0.0, is_over: bool = False) -> CameraEvent:
    return CameraEvent(camera, EventChange(is_over, Event("fight", 0, 1, 0.9, 0.9)), NOW + timedelta(seconds=seconds))


def make_counters(
    cameras: dict[str, CameraCounters], times: Iterator[float] | None = None
) -> tuple[MonitorCounters, Observer]:
    counters = MonitorCounters(times.__next__ if times else time.monotonic)
    live: Any = SimpleNamespace(counters=lambda: cameras)
    return counters, counters.make_observer(live, {name: ["fight"] for name in cameras}, {"door": 1})


@pytest.fixture
def address() -> BindAddress:
    return BindAddress("127.0.0.1", 0)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("9108", "127.0.0.1", 9108),
        ("0", "127.0.0.1", 0),
        ("0.0.0.0:9108", "0.0.0.0", 9108),
        ("monitor.local:80", "monitor.local", 80),
        ("[::1]:9108", "::1", 9108),
        ("[fe80::1%eth0]:9108", "fe80::1%eth0", 9108),
    ],
)
def test_where_metrics_are_served(text: str, host: str, port: int) -> None:
    found = parse_bind_address(text)
    assert found == (host, port)
    assert parse_bind_address(str(found)) == found


@pytest.mark.parametrize(
    "text", ["x", "-1", "65536", "a:b", ":9108", "::1:9108", "[::1]", "[::1:9108", "1.2.3.4", "http://x:1", " 1", "1\n"]
)
def test_an_address_that_is_none_is_one_line(tmp_path: Path, run: Run, text: str) -> None:
    ran = run(command, "monitor", "a.mp4", "--model", tmp_path, "-o", tmp_path / "o", f"--metrics={text}")
    assert ran.code == 2
    assert len(ran.err.strip().splitlines()) == 1
    assert "'metrics'" in ran.err and "expected PORT, HOST:PORT or [IPv6]:PORT" in ran.err


def test_a_port_may_be_a_number_of_yaml(tmp_path: Path, run: Run) -> None:
    (tmp_path / "m.yaml").write_text("monitor: {metrics: 9108}")
    given = ("monitor", "--model", tmp_path, "--config", tmp_path / "m.yaml")
    assert "give cameras" in run(command, *given).err
    assert "give cameras" in run(command, *given, "--set", "monitor.metrics=0").err
    assert "'metrics'" in run(command, *given, "--set", "monitor.metrics=true").err


def test_all_that_is_counted(address: BindAddress) -> None:
    cameras = {"door": camera_counters(), "yard": camera_counters(state="connecting", last_frame_age=None)}
    counters, observe = make_counters(cameras, times=iter([100.0, 101.0, 101.0, 101.3, 102.0, 102.0]))
    observe(
        [frame("door", 100.96), frame("door", 99.0), frame("yard", 0.0), StatusChange("yard", "offline", NOW, None)]
    )
    observe([frame("door", 101.0)])  # within half a second of the last snapshot
    counters.count_event(event_change("door"))
    counters.count_event(event_change("door", is_over=True))
    counters.count_event(CameraEvent("yard", StatusChange("yard", "offline", NOW, None), NOW))
    counters.count_alert(make_alert(camera="door"))
    before = counters.snapshot
    observe([])
    assert before.events["door", "fight"] == 0 and before.count_judged_frames("door") == 2, "a snapshot does not change"
    with serve_metrics(MetricsCollector(counters, lambda: {"pending": 4, "done": 9, "dead": 1}), address) as url:
        found = scrape_metrics(url)
    for name, number in {
        "hazard_frames_decoded_total": 100,
        "hazard_frames_picked_total": 20,
        "hazard_frames_dropped_total": 3,
        "hazard_packets_skipped_total": 7,
        "hazard_camera_reconnects_total": 2,
        "hazard_frames_judged_total": 3,
        "hazard_camera_up": 1,
        "hazard_alerts_muted_total": 1,
        "hazard_frame_latency_seconds_count": 3,
    }.items():
        assert sample_value(found, name, camera="door") == number, name
    assert sample_value(found, "hazard_camera_up", camera="yard") == 0
    assert sample_value(found, "hazard_camera_last_frame_age_seconds", camera="yard") is None
    for bound, number in {"0.05": 1, "0.1": 1, "0.3": 2, "1.5": 2, "2.0": 3, "+Inf": 3}.items():
        assert sample_value(found, "hazard_frame_latency_seconds_bucket", camera="door", le=bound) == number, bound
    assert sample_value(found, "hazard_frame_latency_seconds_bucket", camera="yard", le="30.0") == 0
    assert sample_value(found, "hazard_frame_latency_seconds_sum", camera="door") == pytest.approx(0.04 + 2.0 + 0.3)
    assert sample_value(found, "hazard_events_total", camera="door", label="fight") == 1
    assert sample_value(found, "hazard_events_total", camera="yard", label="fight") == 0, (
        "it is 0 before the first event"
    )
    assert sample_value(found, "hazard_alerts_total", camera="door", kind="event") == 1
    assert sample_value(found, "hazard_alerts_total", camera="yard", kind="offline") == 0
    assert (sample_value(found, "hazard_outbox_pending"), sample_value(found, "hazard_outbox_dead")) == (4, 1)
    assert {name for name, _ in found} >= {"hazard_build_info", "process_start_time_seconds"}
    assert time.time() - (sample_value(found, "hazard_last_look_timestamp_seconds") or 0) < 60


def test_the_age_of_the_last_frame_grows_between_looks(address: BindAddress) -> None:
    counters, _ = make_counters({"door": camera_counters(last_frame_age=1.5)}, times=iter([time.monotonic() - 100]))
    with serve_metrics(MetricsCollector(counters), address) as url:
        assert (
            101.5
            <= (sample_value(scrape_metrics(url), "hazard_camera_last_frame_age_seconds", camera="door") or 0)
            < 130
        )


@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_cameras_may_have_any_name(name: str) -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    counters, observe = make_counters({name: camera_counters()}, times=iter([1.0, 2.0, 2.0]))
    observe([frame(name, 2.0)])
    registry = CollectorRegistry()
    registry.register(MetricsCollector(counters))
    assert (
        sample_value(parse_metrics(generate_latest(registry).decode()), "hazard_frames_judged_total", camera=name) == 1
    )


def test_before_the_cameras_are_open_there_are_no_numbers_yet(address: BindAddress) -> None:
    with serve_metrics(MetricsCollector(MonitorCounters()), address) as url:
        found = scrape_metrics(url)
    assert not [name for name, labels in found if dict(labels).get("camera")]
    assert "hazard_last_look_timestamp_seconds" not in {name for name, _ in found}


def test_the_outbox_is_asked_seldom_and_may_fail(address: BindAddress) -> None:
    from features.errors import RuntimeEnvironmentError

    asked = []

    def counts() -> dict[str, int]:
        asked.append(1)
        raise RuntimeEnvironmentError("outbox o.sqlite cannot be used: disk I/O error")

    with serve_metrics(MetricsCollector(MonitorCounters(), counts), address) as url:
        found = [scrape_metrics(url) for _ in range(5)][-1]
    assert len(asked) == 1
    assert sample_value(found, "hazard_outbox_pending") is None, "no number is better than a wrong one"


def test_only_metrics_are_there(address: BindAddress) -> None:
    with serve_metrics(MetricsCollector(MonitorCounters()), address) as url:
        for other in (url.removesuffix("metrics"), url + "/x", url.replace("metrics", "..%2fmetrics")):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(other, timeout=30)
        with pytest.raises(urllib.error.HTTPError, match="501"):
            urllib.request.urlopen(url, data=b"x", timeout=30)
        assert scrape_metrics(url + "?x=1")


def test_hanging_scrapers_are_few_and_end(address: BindAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hazard.monitor.metrics.server, "MAX_CONNECTION_SECONDS", 1.0)
    with serve_metrics(MetricsCollector(MonitorCounters()), address) as url, ExitStack() as stack:
        port = int(url.split(":")[2].split("/")[0])
        before = threading.active_count()
        hanging = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 30)) for _ in range(24)]
        for one in hanging:
            with suppress(OSError):  # closed at once
                one.send(b"GET /metrics HTTP/1.1\r\nX: ")  # and nothing more
        assert threading.active_count() <= before + MAX_CONNECTIONS < before + len(hanging)
        for one in hanging:
            with suppress(ConnectionResetError):
                assert one.recv(1000) == b"", "each is closed"
        assert scrape_metrics(url)


def test_another_address_of_this_machine(address: BindAddress) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serve_metrics(MetricsCollector(MonitorCounters()), BindAddress("::1", 0)) as url:
        assert url.startswith("http://[::1]:")
        assert scrape_metrics(url)


def test_what_lies_in_the_way_is_one_line(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("hazard.monitor.run.load_detector_setup", lambda *args: None)
    monkeypatch.setattr("hazard.monitor.run.open_cameras", lambda *args, **options: opened.append("cameras"))

    def tried(address: object) -> tuple[int, str]:
        ran = run(command, "monitor", tmp_path / "a.mp4", "--model", tmp_path, "-o", tmp_path, "--metrics", address)
        assert not opened and "Traceback" not in ran.err
        return ran.code, ran.err.strip().splitlines()[-1]

    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = tried(taken.getsockname()[1])
        assert (code, "the port is taken" in said) == (5, True), said
    code, said = tried("192.0.2.1:0")  # an address of no machine
    assert (code, "cannot assign" in said) == (5, True), said
    code, said = tried("no-such-host.invalid:0")
    assert (code, "no such host" in said) == (2, True), said
    monkeypatch.setattr("hazard.monitor.metrics.server.find_spec", lambda name: None)
    code, said = tried(0)
    assert (code, "pip install prometheus-client" in said) == (2, True), said


def test_each_metric_is_documented(address: BindAddress) -> None:
    counters, observe = make_counters({"door": camera_counters()})
    observe([])
    with serve_metrics(MetricsCollector(counters, lambda: {"pending": 0, "dead": 0}), address) as url:
        found = {
            re.sub("_(bucket|sum|count)$", "", name) for name, _ in scrape_metrics(url) if name.startswith("hazard_")
        }
    documented = (ROOT / "docs" / "live.md").read_text().split("## Metrics for Prometheus")[1]
    rows = [line.split("|")[1] for line in documented.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(hazard_\w+)`", " ".join(rows))) == found
