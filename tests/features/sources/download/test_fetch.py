"""URLs as sources of the commands, and the processes that download them."""

import csv
import shutil
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from features.cache.hdf5 import read_header
from features.cli.extract import extract_features
from features.config import RunSettings
from features.errors import ClipError, SettingsError
from features.sources.discover import find_clips
from features.sources.download import fetch
from features.sources.download.fetch import DownloadTask, fetch_clips, fetch_one
from features.sources.download.http import DownloadLimits
from features.sources.download.policy import DownloadPolicy, ForbiddenUrlError
from features.sources.download.sandbox import guard_process
from features.utils.worker_pool import run_tasks
from hazard.cli.infer import infer
from hazard.cli.train import train_temporal
from tests.conftest import Run
from tests.helpers.servers.web import Site, drip_headers, run_site

ALLOWED = ("--set", "download_networks=127.0.0.1/32")


@dataclass(frozen=True)
class Guarded:
    """A job in a sandboxed process that makes the connection its task names."""

    networks: tuple[str, ...]

    def start(self) -> Callable[[tuple[str, int], Callable[[], None]], str]:
        guard_process(DownloadPolicy(networks=self.networks))
        return self._try

    def _try(self, task: tuple[str, int], report_alive: Callable[[], None]) -> str:
        host, port = task
        try:
            if host == "program":
                subprocess.run(["true"], check=True)
            elif host == "datagram":
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.2", port))
            elif host == "unix":
                socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect("/var/run/docker.sock")
            elif host.startswith("raw "):
                socket.socket(socket.AF_INET, socket.SOCK_STREAM).connect((host[4:], port))
            else:
                socket.create_connection((host, port), timeout=5).close()
        except OSError as error:
            return f"{type(error).__name__}: {error}"
        return "done"


def test_a_guarded_process_connects_only_where_it_may(site: Site) -> None:
    with run_site("127.0.0.2") as other:
        tasks = [
            ("127.0.0.1", site.port),
            ("127.0.0.2", other.port),
            ("raw 127.0.0.2", other.port),
            ("raw 2130706434", other.port),
            ("raw localhost", other.port),
            ("raw 127.0.0.1", 22),
            ("datagram", other.port),
            ("unix", 0),
            ("program", 0),
        ]
        results = dict(run_tasks(Guarded(("127.0.0.1/32",)), tasks, workers=1, deadline_seconds=20))
    assert results.pop(tasks[0]) == "done"
    assert str(results.pop(("program", 0))).startswith("PermissionError: this process may not start programs")
    assert {str(message).partition(":")[0] for message in results.values()} == {ForbiddenUrlError.__name__}
    assert len(results) == 7 and other.connections == 0


def test_addresses_beside_a_folder(site: Site, video: bytes, tmp_path: Path, extract: Run) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "b.mp4").write_bytes(video)
    url, gone = site.add_video("/clips/a.mp4?key=1", video), site.url("/gone.mp4")
    command = (tmp_path / "videos", url, gone, url, "-o", tmp_path / "c.h5", *ALLOWED)
    ran = extract(*command)
    assert ran.code == 3
    assert "failed 1 x fetch: the server answered 404 Not Found" in ran.out
    header = read_header(tmp_path / "c.h5")
    assert header.clips.path.tolist() == ["b.mp4", url]
    assert (header.failures.path.tolist(), header.failures.stage.tolist()) == ([gone], ["fetch"])
    downloads = list((tmp_path / ".downloads").iterdir())
    assert [file.read_bytes() for file in downloads] == [video]

    asked = len(site.requested_paths)
    again = extract(*command)
    assert again.code == 3 and "0 to extract, 2 in the cache already" in again.out
    shutil.rmtree(tmp_path / ".downloads")
    assert "0 to extract, 2 in the cache already" in extract(*command).out
    assert len(site.requested_paths) == asked

    site.add_video("/gone.mp4", video)
    ran = extract(*command, "--retry-failed")
    assert ran.code == 0 and site.requested_paths[asked:] == ["/gone.mp4"]


def test_what_is_fetched_already_is_not_fetched_again(site: Site, video: bytes, tmp_path: Path, extract: Run) -> None:
    command = (site.add_video("/a.mp4", video), *ALLOWED, "--set", f"downloads={tmp_path / 'kept'}")
    assert extract(*command, "-o", tmp_path / "one.h5").code == 0
    assert extract(*command, "-o", tmp_path / "two.h5", "--frames", 4).code == 0
    assert site.requested_paths == ["/a.mp4"]


def test_addresses_in_a_manifest(site: Site, video: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"path,label,group\n{site.add_video('/a.mp4', video)},fall,g1\n")
    [clip] = find_clips([tmp_path / "m.csv"], downloads=tmp_path)
    assert (clip.path, clip.label, clip.group) == (site.url("/a.mp4"), "fall", "g1")
    settings = RunSettings(download_networks=("127.0.0.1/32",))  # type: ignore[arg-type]
    assert fetch_clips([clip], settings) == ([clip], [])
    assert clip.file.read_bytes() == video


def test_an_address_that_two_sources_describe_differently(tmp_path: Path) -> None:
    url = "https://a.example/b.mp4"
    (tmp_path / "m.csv").write_text(f"path,label\n{url},fall\n")
    assert [clip.path for clip in find_clips([url, url])] == [url]
    with pytest.raises(SettingsError, match="two clips have the path"):
        find_clips([url, tmp_path / "m.csv"])


def test_passwords_never_reach_a_cache(tmp_path: Path, run: Run) -> None:
    with pytest.raises(SettingsError, match=r"the URL at a\.example/b\.mp4 contains a user name or password"):
        find_clips(["https://me:secret@a.example/b.mp4"])
    ran = run(extract_features, "https://me:secret@a.example/b.mp4", "-o", tmp_path / "c.h5")
    assert ran.code == 2 and "secret" not in ran.out + ran.err


def test_networks_are_checked(tmp_path: Path, run: Run) -> None:
    ran = run(extract_features, "https://a.example/", "-o", tmp_path / "c.h5", "--set", "download_networks=home")
    assert ran.code == 2 and "setting 'download_networks.0'" in ran.err and "'home'" in ran.err


def test_a_page_that_takes_too_long_leaves_nothing(site: Site, tmp_path: Path) -> None:
    def page_then_silence(handler: BaseHTTPRequestHandler) -> None:
        site.pages["/watch"] = drip_headers
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<html></html>")

    site.pages["/watch"] = page_then_silence
    clips = find_clips([site.url("/watch")], downloads=tmp_path)
    settings = RunSettings(download_networks=("127.0.0.1/32",), download_seconds=0.5)  # type: ignore[arg-type]
    ready, [failure] = fetch_clips(clips, settings)
    assert not ready and failure.stage == "fetch"
    assert "not downloaded within 0.5 s" in failure.reason or "`pip install" in failure.reason
    assert not list(tmp_path.iterdir())


def test_a_page_without_the_extra_says_how_to_get_it(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "can_read_pages", lambda: False)
    task = DownloadTask(site.add_html("/watch", "a player"), tmp_path / "a")
    problem = fetch_one(task, policy=DownloadPolicy(networks=("127.0.0.1/32",)), limits=DownloadLimits(max_seconds=20))
    assert isinstance(problem, ClipError)
    assert problem.reason == "not a video file but text/html; web pages need `pip install yt-dlp`"


def test_pages(site: Site, video: bytes, tmp_path: Path) -> None:
    pytest.importorskip("yt_dlp")
    site.add_video("/v/a.mp4", video)
    with run_site("127.0.0.2") as other:
        site.add_redirect("/hop.mp4", other.add_video("/b.mp4", video))
        urls = {
            "good": site.add_html("/watch?v=1", '<video src="/v/a.mp4"></video>'),
            "hop": site.add_html("/hop", '<video src="/hop.mp4"></video>'),
            "direct": site.add_html("/direct", f'<video src="{other.url("/b.mp4")}"></video>'),
            "many": site.add_html("/many", '<video src="/v/a.mp4"></video><video src="/v/b.mp4"></video>'),
            "none": site.add_html("/none", "no video here"),
            "packed": site.add_html("/packed", "who knows how much"),
            "large": site.add_html("/large", "x" * 200_000),
        }
        site.pages["/packed"][1]["Content-Encoding"] = "gzip"  # type: ignore[index]
        clips = find_clips(list(urls.values()), downloads=tmp_path)
        settings = RunSettings(download_networks=("127.0.0.1/32",), download_bytes=150_000)  # type: ignore[arg-type]
        ready, failures = fetch_clips(clips, settings)
    assert [clip.path for clip in ready] == [urls["good"]]
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [video]
    assert other.connections == 0
    reasons = {failure.clip.path: failure.reason for failure in failures}
    assert reasons[urls["hop"]].startswith("URL rejected: 127.0.0.2, a loopback address")
    assert reasons[urls["direct"]].startswith("URL rejected: 127.0.0.2, a loopback address")
    assert reasons[urls["many"]].startswith("a playlist of 2 videos, none was downloaded")
    assert reasons[urls["none"]] == "no video was found on the page"
    assert "a compressed answer" in reasons[urls["packed"]]
    assert reasons[urls["large"]].startswith("too large: over 150000 bytes")


def test_inference_takes_addresses(
    numbered: Path, site: Site, video: bytes, tmp_path: Path, extract: Run, run: Run
) -> None:
    assert extract(numbered, "-o", tmp_path / "c.h5", "--frames", 2).code == 0
    assert run(train_temporal, tmp_path / "c.h5", "-o", tmp_path / "m", "--baseline", "logistic_regression").code == 0
    url, gone = site.add_video("/a.mp4", video), site.url("/gone.mp4")
    common = ("--model", tmp_path / "m", "--workers", 1, "--runtime", "torch", *ALLOWED)
    ran = run(infer, numbered / "calm" / "0.mp4", url, gone, "-o", tmp_path / "report", *common)
    assert ran.code == 3 and "2 clips analysed, 1 failed" in ran.out, ran
    rows = {row["path"]: row for row in csv.DictReader((tmp_path / "report" / "predictions.csv").open())}
    assert rows[url]["status"] == "ok" and rows[url]["label"] in ("calm", "wild")
    assert (rows[gone]["status"], rows[gone]["label"]) == ("failed", "")
    assert rows[gone]["reason"] == "fetch: the server answered 404 Not Found"
