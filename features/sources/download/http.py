"""Download of one video file by its URL: redirects checked, time and size limited, written completely or not at all."""

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
from features.utils.text import format_connection_error
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
    """Limits of one download: its size and its time."""

    max_bytes: int = 2 * 10**9
    max_seconds: float = 900.0


class WebPageError(Exception):
    """The URL is not a video file but a page, a playlist or something else that may lead to a video."""


def download(url: str, destination: Path, *, policy: DownloadPolicy, limits: DownloadLimits) -> None:
    """Write the video file at a URL to `destination`.

    Connects only to IP addresses that were checked, again at each redirect. Raises ClipError if the download fails,
    WebPageError if the URL is a web page, RuntimeEnvironmentError if `destination` cannot be written.
    """
    try:
        with _open_response(url, policy, time.monotonic() + limits.max_seconds) as (target, response):
            _check_response(target, response)
            _save_body(response, destination, limits)
    except ForbiddenUrlError as error:
        raise ClipError("fetch", f"URL rejected: {error}") from None
    except TimeoutError:
        raise ClipError("fetch", format_timeout_reason(limits)) from None
    except (OSError, http.client.HTTPException) as error:
        raise ClipError("fetch", f"no answer from {_host_of(url)} ({format_connection_error(error)})") from None


def format_timeout_reason(limits: DownloadLimits) -> str:
    """Return the reason of a download that took too long, whether this module or the pool ended it."""
    return f"timeout: not downloaded within {limits.max_seconds:g} s (download_seconds)"


def make_too_large_error(size: str, limits: DownloadLimits) -> ClipError:
    """Return the error of a download that exceeds the size limit. `size` is a text such as `over 1000 bytes`."""
    return ClipError("fetch", f"too large: {size}; the limit is {limits.max_bytes} bytes (download_bytes)")


def check_is_video(file: Path) -> None:
    """Check that a download is a video, whatever its name and the server say. Raises ClipError."""
    try:
        check_video(file)
    except ClipError as error:
        raise ClipError("fetch", f"the download is not a video: {error.reason}") from None


@contextmanager
def _open_response(
    url: str, policy: DownloadPolicy, deadline: float
) -> Iterator[tuple[UrlTarget, http.client.HTTPResponse]]:
    """Yield the response at the end of all redirects, and the checked URL that gave it."""
    for _ in range(MAX_REDIRECTS):
        target = check_url(url, policy)
        connection = CheckedConnection(target, deadline)
        try:
            connection.request("GET", target.path, headers=REQUEST_HEADERS)
            response = connection.getresponse()
            location = response.headers.get("Location", "")
            if response.status not in _REDIRECT_STATUSES or not location:
                yield target, response
                return
            url = urljoin(target.url, location)
        finally:
            connection.close()
    raise ClipError("fetch", f"more than {MAX_REDIRECTS} redirects")


def _check_response(target: UrlTarget, response: http.client.HTTPResponse) -> None:
    content_type = response.headers.get_content_type()
    suffix = PurePosixPath(unquote(urlsplit(target.url).path)).suffix.lower()
    is_named_video = suffix in VIDEO_SUFFIXES
    if response.status != http.client.OK:
        problem = f"the server answered {response.status} {response.reason}"
        raise ClipError("fetch", problem) if is_named_video else WebPageError(problem)
    is_video = content_type.startswith("video/") and not content_type.endswith("mpegurl")
    if content_type in _PAGE_TYPES or not (is_video or content_type in _FILE_TYPES or is_named_video):
        raise WebPageError(f"not a video file but {content_type}")


def _save_body(response: http.client.HTTPResponse, destination: Path, limits: DownloadLimits) -> None:
    announced = response.length  # None if the server does not say
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
    """Yield the body in blocks. Network errors become ClipErrors here; an OSError outside comes from the disk."""
    try:
        while block := response.read(BLOCK_BYTES):
            yield block
    except TimeoutError:
        raise ClipError("fetch", format_timeout_reason(limits)) from None
    except (OSError, http.client.HTTPException) as error:
        raise ClipError("fetch", f"the connection broke ({format_connection_error(error)})") from None


class CheckedConnection(http.client.HTTPConnection):
    """A connection to the checked IP addresses of a URL, never to its name, with one deadline for all that it does."""

    def __init__(self, target: UrlTarget, deadline: float) -> None:
        super().__init__(target.host, target.port)
        self.default_port = 443 if target.scheme == "https" else 80
        self._target, self._deadline = target, deadline

    def connect(self) -> None:
        """Connect to the first IP address that answers. Raises OSError, and TimeoutError after the deadline."""
        self.sock = self._connect_socket()
        if self._target.scheme == "https":
            context = ssl.create_default_context()
            context.sslsocket_class = _TLSSocket
            self.sock.settimeout(_remaining_seconds(self._deadline))
            self.sock = context.wrap_socket(self.sock, server_hostname=self._target.host)
            self.sock.deadline = self._deadline  # type: ignore[attr-defined]

    def _connect_socket(self) -> "_Socket":
        problem: OSError | None = None
        for address in self._target.ip_addresses:
            sock = _Socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            sock.deadline = self._deadline
            try:
                sock.settimeout(min(CONNECT_TIMEOUT_SECONDS, _remaining_seconds(self._deadline)))
                sock.connect((address, self._target.port))
                sock.settimeout(_remaining_seconds(self._deadline))
                return sock
            except OSError as error:
                sock.close()
                _remaining_seconds(self._deadline)
                is_slow = isinstance(error, TimeoutError)
                problem = OSError(f"no connection within {CONNECT_TIMEOUT_SECONDS:g} s") if is_slow else error
        raise problem or ForbiddenUrlError("no IP address was checked")


class _DeadlineMixin:
    """A socket with a deadline, in seconds of the monotonic clock.

    The timeout of a plain socket starts again with each read; the deadline limits all reads together.
    """

    deadline = math.inf

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(_remaining_seconds(self.deadline))  # type: ignore[attr-defined]
        return super().recv_into(*args, **kwargs)  # type: ignore[misc]


class _Socket(_DeadlineMixin, socket.socket):
    pass


class _TLSSocket(_DeadlineMixin, ssl.SSLSocket):
    pass


def _remaining_seconds(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _host_of(url: str) -> str:
    return urlsplit(url).hostname or url
