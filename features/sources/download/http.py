"""One video file by its address: each hop checked, bounded in time and bytes, written whole or not at all."""

import http.client
import math
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from features.errors import ClipError
from features.sources.download.policy import DownloadPolicy, ForbiddenUrlError, UrlTarget, check_url
from features.types import VIDEO_SUFFIXES
from features.utils.files import open_atomically
from features.video.container import check_video

MAX_REDIRECTS = 10
CONNECT_TIMEOUT_SECONDS = 15.0
BLOCK_BYTES = 2**16
REQUEST_HEADERS = {"User-Agent": "hazard-video", "Accept": "*/*", "Accept-Encoding": "identity"}
_PAGE_TYPES = ("text/html", "application/xhtml+xml")
_FILE_TYPES = ("application/octet-stream", "binary/octet-stream", "application/mp4", "application/x-matroska")
_REDIRECT_STATUSES = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class DownloadLimits:
    """What one download may take."""

    max_bytes: int = 2 * 10**9
    max_seconds: float = 900.0


class WebPageError(Exception):
    """The address is a page, a playlist or something else that may lead to a video, but is none."""


def download(url: str, destination: Path, *, policy: DownloadPolicy, limits: DownloadLimits) -> None:
    """Puts the video at an address into the file `place`.

    Connects only to addresses that were checked, at each redirect anew. Raises ClipError where nothing came of it,
    PageMet where the address is a page, EnvironmentStopped where `place` cannot be written.
    """
    try:
        with _open_response(url, policy, time.monotonic() + limits.max_seconds) as (target, response):
            _check_response(target, response)
            _save_body(response, destination, limits)
    except ForbiddenUrlError as error:
        raise ClipError("fetch", f"refused: {error}") from None
    except TimeoutError:
        raise ClipError("fetch", format_timeout_reason(limits)) from None
    except (OSError, http.client.HTTPException) as error:
        raise ClipError("fetch", f"no answer from {_host_of(url)} ({_format_error(error)})") from None


def format_timeout_reason(limits: DownloadLimits) -> str:
    """What is said of a download that took too long, whoever ended it."""
    return f"timeout: not fetched within {limits.max_seconds:g} s (download_seconds)"


def make_too_large_error(what: str, limits: DownloadLimits) -> ClipError:
    """What is said of a download that is larger than the cap."""
    return ClipError("fetch", f"too large: {what}, at most {limits.max_bytes} are taken (download_bytes)")


def check_is_video(file: Path) -> None:
    """Raises ClipError where what came is no video, whatever its name and its server say."""
    try:
        check_video(file)
    except ClipError as error:
        raise ClipError("fetch", f"what came is no video: {error.reason}") from None


@contextmanager
def _open_response(
    url: str, policy: DownloadPolicy, until: float
) -> Iterator[tuple[UrlTarget, http.client.HTTPResponse]]:
    """The answer at the end of all redirects."""
    for _ in range(MAX_REDIRECTS):
        target = check_url(url, policy)
        connection = CheckedConnection(target, until)
        try:
            connection.request("GET", target.path, headers=REQUEST_HEADERS)
            response = connection.getresponse()
            place = response.headers.get("Location", "")
            if response.status not in _REDIRECT_STATUSES or not place:
                yield target, response
                return
            url = urljoin(target.url, place)
        finally:
            connection.close()
    raise ClipError("fetch", f"more than {MAX_REDIRECTS} redirects")


def _check_response(target: UrlTarget, response: http.client.HTTPResponse) -> None:
    kind = response.headers.get_content_type()
    suffix = PurePosixPath(unquote(urlsplit(target.url).path)).suffix.lower()
    is_named_video = suffix in VIDEO_SUFFIXES
    if response.status != http.client.OK:
        said = f"the server answered {response.status} {response.reason}"
        raise ClipError("fetch", said) if is_named_video else WebPageError(said)
    is_video = kind.startswith("video/") and not kind.endswith("mpegurl")
    if kind in _PAGE_TYPES or not (is_video or kind in _FILE_TYPES or is_named_video):
        raise WebPageError(f"no video file but {kind}")


def _save_body(response: http.client.HTTPResponse, destination: Path, limits: DownloadLimits) -> None:
    announced = response.length  # None where the server does not say
    if announced is not None and announced > limits.max_bytes:
        raise make_too_large_error(f"{announced} bytes", limits)
    with open_atomically(destination, size_bytes=announced or 0) as file:
        received = 0
        for block in _read_blocks(response, limits):
            received += len(block)
            if received > limits.max_bytes:
                raise make_too_large_error(f"over {limits.max_bytes} bytes", limits)
            file.write(block)
        if announced is not None and received < announced:
            raise ClipError("fetch", f"the connection ended after {received} of {announced} bytes")
        file.flush()
        check_is_video(Path(file.name))


def _read_blocks(response: http.client.HTTPResponse, limits: DownloadLimits) -> Iterator[bytes]:
    """The body. Its errors become ClipErrors here: outside, an OSError would be the disk's."""
    try:
        while block := response.read(BLOCK_BYTES):
            yield block
    except TimeoutError:
        raise ClipError("fetch", format_timeout_reason(limits)) from None
    except (OSError, http.client.HTTPException) as error:
        raise ClipError("fetch", f"the connection broke ({_format_error(error)})") from None


class CheckedConnection(http.client.HTTPConnection):
    """Connects to what was checked, not to the name, and gives up at one moment for all that it does."""

    def __init__(self, target: UrlTarget, until: float) -> None:
        super().__init__(target.host, target.port)
        self.default_port = 443 if target.scheme == "https" else 80
        self._target, self._until = target, until

    def connect(self) -> None:
        """To the first address that answers. Raises OSError, TimeoutError when the time is over."""
        self.sock = self._connect_socket()
        if self._target.scheme == "https":
            context = ssl.create_default_context()
            context.sslsocket_class = _TLSSocket
            self.sock.settimeout(_remaining_seconds(self._until))
            self.sock = context.wrap_socket(self.sock, server_hostname=self._target.host)
            self.sock.until = self._until  # type: ignore[attr-defined]

    def _connect_socket(self) -> "_Socket":
        problem: OSError | None = None
        for address in self._target.ip_addresses:
            sock = _Socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            sock.until = self._until
            try:
                sock.settimeout(min(CONNECT_TIMEOUT_SECONDS, _remaining_seconds(self._until)))
                sock.connect((address, self._target.port))
                sock.settimeout(_remaining_seconds(self._until))
                return sock
            except OSError as error:
                sock.close()
                _remaining_seconds(self._until)
                is_slow = isinstance(error, TimeoutError)
                problem = OSError(f"no connection within {CONNECT_TIMEOUT_SECONDS:g} s") if is_slow else error
        raise problem or ForbiddenUrlError("nothing was checked")


class _DeadlineMixin:
    """A socket's own timeout begins anew with each byte; `until` is one moment for all of them."""

    until = math.inf

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(_remaining_seconds(self.until))  # type: ignore[attr-defined]
        return super().recv_into(*args, **kwargs)  # type: ignore[misc]


class _Socket(_DeadlineMixin, socket.socket):
    pass


class _TLSSocket(_DeadlineMixin, ssl.SSLSocket):
    pass


def _remaining_seconds(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _host_of(url: str) -> str:
    return urlsplit(url).hostname or url


def _format_error(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
