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
from features.sources.download.policy import AddressRefused, Rules, Target, check_address
from features.types import VIDEO_SUFFIXES
from features.utils.files import atomic_file
from features.video.container import check_video

MAX_HOPS = 10
CONNECT_SECONDS = 15.0
BLOCK_BYTES = 2**16
HEADERS = {"User-Agent": "hazard-video", "Accept": "*/*", "Accept-Encoding": "identity"}
_PAGES = ("text/html", "application/xhtml+xml")
_FILES = ("application/octet-stream", "binary/octet-stream", "application/mp4", "application/x-matroska")
_MOVED = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Limits:
    """What one download may take."""

    max_bytes: int = 2 * 10**9
    seconds: float = 900.0


class PageMet(Exception):
    """The address is a page, a playlist or something else that may lead to a video, but is none."""


def download(url: str, place: Path, *, rules: Rules, limits: Limits) -> None:
    """Puts the video at an address into the file `place`.

    Connects only to addresses that were checked, at each redirect anew. Raises ClipError where nothing came of it,
    PageMet where the address is a page, EnvironmentStopped where `place` cannot be written.
    """
    try:
        with _opened(url, rules, time.monotonic() + limits.seconds) as (target, response):
            _check_answer(target, response)
            _save(response, place, limits)
    except AddressRefused as error:
        raise ClipError("fetch", f"refused: {error}") from None
    except TimeoutError:
        raise ClipError("fetch", timeout_reason(limits)) from None
    except (OSError, http.client.HTTPException) as error:
        raise ClipError("fetch", f"no answer from {_host(url)} ({_said(error)})") from None


def timeout_reason(limits: Limits) -> str:
    """What is said of a download that took too long, whoever ended it."""
    return f"timeout: not fetched within {limits.seconds:g} s (download_seconds)"


def too_large(what: str, limits: Limits) -> ClipError:
    """What is said of a download that is larger than the cap."""
    return ClipError("fetch", f"too large: {what}, at most {limits.max_bytes} are taken (download_bytes)")


def check_content(file: Path) -> None:
    """Raises ClipError where what came is no video, whatever its name and its server say."""
    try:
        check_video(file)
    except ClipError as error:
        raise ClipError("fetch", f"what came is no video: {error.reason}") from None


@contextmanager
def _opened(url: str, rules: Rules, until: float) -> Iterator[tuple[Target, http.client.HTTPResponse]]:
    """The answer at the end of all redirects."""
    for _ in range(MAX_HOPS):
        target = check_address(url, rules)
        connection = CheckedConnection(target, until)
        try:
            connection.request("GET", target.path, headers=HEADERS)
            response = connection.getresponse()
            place = response.headers.get("Location", "")
            if response.status not in _MOVED or not place:
                yield target, response
                return
            url = urljoin(target.url, place)
        finally:
            connection.close()
    raise ClipError("fetch", f"more than {MAX_HOPS} redirects")


def _check_answer(target: Target, response: http.client.HTTPResponse) -> None:
    kind = response.headers.get_content_type()
    suffix = PurePosixPath(unquote(urlsplit(target.url).path)).suffix.lower()
    is_named_video = suffix in VIDEO_SUFFIXES
    if response.status != http.client.OK:
        said = f"the server answered {response.status} {response.reason}"
        raise ClipError("fetch", said) if is_named_video else PageMet(said)
    is_video = kind.startswith("video/") and not kind.endswith("mpegurl")
    if kind in _PAGES or not (is_video or kind in _FILES or is_named_video):
        raise PageMet(f"no video file but {kind}")


def _save(response: http.client.HTTPResponse, place: Path, limits: Limits) -> None:
    announced = response.length  # None where the server does not say
    if announced is not None and announced > limits.max_bytes:
        raise too_large(f"{announced} bytes", limits)
    with atomic_file(place, size_bytes=announced or 0) as file:
        received = 0
        for block in _blocks(response, limits):
            received += len(block)
            if received > limits.max_bytes:
                raise too_large(f"over {limits.max_bytes} bytes", limits)
            file.write(block)
        if announced is not None and received < announced:
            raise ClipError("fetch", f"the connection ended after {received} of {announced} bytes")
        file.flush()
        check_content(Path(file.name))


def _blocks(response: http.client.HTTPResponse, limits: Limits) -> Iterator[bytes]:
    """The body. Its errors become ClipErrors here: outside, an OSError would be the disk's."""
    try:
        while block := response.read(BLOCK_BYTES):
            yield block
    except TimeoutError:
        raise ClipError("fetch", timeout_reason(limits)) from None
    except (OSError, http.client.HTTPException) as error:
        raise ClipError("fetch", f"the connection broke ({_said(error)})") from None


class CheckedConnection(http.client.HTTPConnection):
    """Connects to what was checked, not to the name, and gives up at one moment for all that it does."""

    def __init__(self, target: Target, until: float) -> None:
        super().__init__(target.host, target.port)
        self.default_port = 443 if target.scheme == "https" else 80
        self._target, self._until = target, until

    def connect(self) -> None:
        """To the first address that answers. Raises OSError, TimeoutError when the time is over."""
        self.sock = self._plain()
        if self._target.scheme == "https":
            context = ssl.create_default_context()
            context.sslsocket_class = _TLSSocket
            self.sock.settimeout(_left(self._until))
            self.sock = context.wrap_socket(self.sock, server_hostname=self._target.host)
            self.sock.until = self._until  # type: ignore[attr-defined]

    def _plain(self) -> "_Socket":
        problem: OSError | None = None
        for address in self._target.addresses:
            sock = _Socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            sock.until = self._until
            try:
                sock.settimeout(min(CONNECT_SECONDS, _left(self._until)))
                sock.connect((address, self._target.port))
                sock.settimeout(_left(self._until))
                return sock
            except OSError as error:
                sock.close()
                _left(self._until)
                is_slow = isinstance(error, TimeoutError)
                problem = OSError(f"no connection within {CONNECT_SECONDS:g} s") if is_slow else error
        raise problem or AddressRefused("nothing was checked")


class _Bounded:
    """A socket's own timeout begins anew with each byte; `until` is one moment for all of them."""

    until = math.inf

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(_left(self.until))  # type: ignore[attr-defined]
        return super().recv_into(*args, **kwargs)  # type: ignore[misc]


class _Socket(_Bounded, socket.socket):
    pass


class _TLSSocket(_Bounded, ssl.SSLSocket):
    pass


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _host(url: str) -> str:
    return urlsplit(url).hostname or url


def _said(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
