"""Video files from a real server on this machine: redirects checked, time and size limited."""

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from features.errors import ClipError, RuntimeEnvironmentError
from features.sources.download.http import DownloadLimits, WebPageError, download
from features.sources.download.policy import DownloadPolicy
from tests.helpers.servers.web import Site, drip, drip_headers, run_site, send_endless

HERE = DownloadPolicy(networks=("127.0.0.1/32",))


@pytest.fixture
def refused() -> Iterator[Site]:
    """A server that the policy forbids."""
    with run_site("127.0.0.2") as site:
        yield site


def get(
    url: str, folder: Path, *, policy: DownloadPolicy = HERE, max_bytes: int = 10**6, seconds: float = 20.0
) -> Path:
    download(url, folder / "a.mp4", policy=policy, limits=DownloadLimits(max_bytes=max_bytes, max_seconds=seconds))
    return folder / "a.mp4"


def failing(url: str, folder: Path, **options: object) -> str:
    """Return the reason of a download that fails and leaves no file."""
    with pytest.raises(ClipError) as failed:
        get(url, folder, **options)  # type: ignore[arg-type]
    assert failed.value.stage == "fetch"
    assert not list(folder.iterdir())
    return failed.value.reason


@pytest.mark.parametrize("kind", ["video/mp4", "application/octet-stream", "text/plain"])
def test_a_video_file(site: Site, video: bytes, tmp_path: Path, kind: str) -> None:
    assert get(site.add_video("/a.mp4", video, kind), tmp_path).read_bytes() == video


def test_redirects_are_followed_and_checked_one_by_one(site: Site, video: bytes, tmp_path: Path) -> None:
    site.add_video("/x/there.mp4", video)
    site.add_redirect("/x/relative", "there.mp4", 307)
    assert get(site.add_redirect("/first", site.url("/x/relative")), tmp_path).read_bytes() == video
    assert site.requested_paths == ["/first", "/x/relative", "/x/there.mp4"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_a_private_address(site: Site, refused: Site, video: bytes, tmp_path: Path, status: int) -> None:
    reason = failing(site.add_redirect("/a.mp4", refused.add_video("/b.mp4", video), status), tmp_path)
    assert reason.startswith("URL rejected: 127.0.0.2, a loopback address")
    assert refused.connections == 0


@pytest.mark.parametrize("to", ["file:///etc/passwd", "http://u:p@127.0.0.1/", "http://2130706433/", "http://[::1]:2/"])
def test_a_redirect_to_anything_else_that_is_refused(site: Site, tmp_path: Path, to: str) -> None:
    assert failing(site.add_redirect("/a.mp4", to), tmp_path).startswith("URL rejected: ")
    assert site.connections == 1


def test_redirects_end(site: Site, tmp_path: Path) -> None:
    assert failing(site.add_redirect("/a.mp4", "/a.mp4"), tmp_path) == "more than 10 redirects"


def test_a_name_that_changes_its_meaning(site: Site, refused: Site, video: bytes, tmp_path: Path) -> None:
    """The name is looked up once, and the connection goes to the address that was checked."""
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])
    policy = DownloadPolicy(networks=HERE.networks, resolve=lambda host, port: next(answers))
    site.add_video("/a.mp4", video)
    assert get(site.url("/a.mp4", "rebinding.example"), tmp_path, policy=policy).read_bytes() == video
    assert site.hosts == [f"rebinding.example:{site.port}"]
    (tmp_path / "a.mp4").unlink()
    assert "127.0.0.2" in failing(site.url("/a.mp4", "rebinding.example"), tmp_path, policy=policy)
    assert refused.connections == 0 and site.connections == 1


def test_one_private_address_among_public_ones(site: Site, tmp_path: Path) -> None:
    def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1", "10.0.0.1"]

    policy = DownloadPolicy(networks=HERE.networks, resolve=resolve)
    assert "10.0.0.1, a private address" in failing(site.url("/a.mp4", "mixed.example"), tmp_path, policy=policy)
    assert site.connections == 0


def test_the_next_address_is_tried_where_one_does_not_answer(site: Site, video: bytes, tmp_path: Path) -> None:
    site.add_video("/a.mp4", video)
    policy = DownloadPolicy(networks=("127.0.0.0/8",), resolve=lambda host, port: ["127.0.0.9", "127.0.0.1"])
    assert get(site.url("/a.mp4", "two.example"), tmp_path, policy=policy).read_bytes() == video


@pytest.mark.parametrize("answer", [drip, drip_headers])
def test_a_server_that_drips(site: Site, tmp_path: Path, answer: object) -> None:
    site.pages["/a.mp4"] = answer  # type: ignore[assignment]
    began = time.monotonic()
    reason = failing(site.url("/a.mp4"), tmp_path, seconds=0.3)
    assert reason == "timeout: not downloaded within 0.3 s (download_seconds)"
    assert time.monotonic() - began < 15


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for tls.example and its key, in one file."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate with")
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tls.example -keyout key.pem -out cert.pem"
    extra = ["-addext", "subjectAltName=DNS:tls.example"]
    subprocess.run([*command.split(), *extra], cwd=file.parent, check=True, capture_output=True)
    file.write_text((file.parent / "cert.pem").read_text() + (file.parent / "key.pem").read_text())
    return file


def test_tls(certificate: Path, video: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    policy = DownloadPolicy(networks=HERE.networks, resolve=lambda host, port: ["127.0.0.1"])
    with run_site(tls=context) as site:
        site.add_video("/a.mp4", video)
        site.pages["/slow.mp4"] = drip
        assert "certificate verify failed" in failing(site.url("/a.mp4", "tls.example"), tmp_path, policy=policy)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert "hostname mismatch" in failing(site.url("/a.mp4", "other.example"), tmp_path, policy=policy)
        reason = failing(site.url("/slow.mp4", "tls.example"), tmp_path, policy=policy, seconds=0.4)
        assert reason.startswith("timeout")
        assert get(site.url("/a.mp4", "tls.example"), tmp_path, policy=policy).read_bytes() == video


def test_a_file_that_says_that_it_is_too_large(site: Site, video: bytes, tmp_path: Path) -> None:
    reason = failing(site.add_video("/a.mp4", video), tmp_path, max_bytes=len(video) - 1)
    assert reason == f"too large: {len(video)} bytes; the limit is {len(video) - 1} bytes (download_bytes)"
    assert get(site.url("/a.mp4"), tmp_path, max_bytes=len(video)).read_bytes() == video


def test_a_file_that_does_not_say_how_large_it_is(site: Site, tmp_path: Path) -> None:
    site.pages["/a.mp4"] = send_endless
    reason = failing(site.url("/a.mp4"), tmp_path, max_bytes=300_000)
    assert reason == "too large: over 300000 bytes; the limit is 300000 bytes (download_bytes)"


def test_a_file_that_ends_early(site: Site, video: bytes, tmp_path: Path) -> None:
    site.pages["/a.mp4"] = (200, {"Content-Type": "video/mp4", "Content-Length": "999999"}, video)
    assert failing(site.url("/a.mp4"), tmp_path) == f"the connection ended after {len(video)} of 999999 bytes"


def test_content_decides_not_the_name(site: Site, tmp_path: Path) -> None:
    reason = failing(site.add_video("/a.mp4", b"<html>log in first</html>"), tmp_path)
    assert reason.startswith("the download is not a video: not a video, or damaged")


@pytest.mark.parametrize("path", ["/watch", "/a.mp4"])
def test_pages_are_for_somebody_else(site: Site, tmp_path: Path, path: str) -> None:
    with pytest.raises(WebPageError, match="not a video file but text/html"):
        get(site.add_html(path, "a player"), tmp_path)


def test_servers_that_say_no(site: Site, tmp_path: Path) -> None:
    assert failing(site.url("/gone.mp4"), tmp_path) == "the server answered 404 Not Found"
    with pytest.raises(WebPageError, match="404"):
        get(site.url("/gone"), tmp_path)


def test_nobody_there(site: Site, tmp_path: Path) -> None:
    with run_site() as gone:
        pass
    assert failing(gone.url("/a.mp4"), tmp_path) == "no answer from 127.0.0.1 (connection refused)"


def test_a_host_that_nobody_knows(tmp_path: Path) -> None:
    def resolve(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    reason = failing("https://nowhere.example/a.mp4", tmp_path, policy=DownloadPolicy(resolve=resolve))
    assert reason == "no answer from nowhere.example (name or service not known)"


def test_a_folder_that_is_not_there_is_the_machines_fault(site: Site, video: bytes, tmp_path: Path) -> None:
    with pytest.raises(RuntimeEnvironmentError, match="No such file"):
        get(site.add_video("/a.mp4", video), tmp_path / "absent")
