"""Download of the video of a web page with yt-dlp, only in a process that `guard_process` has sandboxed."""

import importlib.util
import re
import urllib.request
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from features.errors import ClipError
from features.sources.download.http import REQUEST_HEADERS, DownloadLimits, check_is_video, make_too_large_error
from features.sources.download.policy import DownloadPolicy, ForbiddenUrlError, check_url
from features.utils.files import is_disk_full, make_scratch_folder, make_write_error, move_into_place

T = TypeVar("T", bound=BaseException)

MAX_HEIGHT_PIXELS = 480
"""Height limit of the video to choose; the largest up to it is downloaded, because networks see only 224 pixels."""

MAX_PLAYLIST_ENTRIES = 100
"""Number up to which the entries of a playlist are counted."""

MAX_TEXT_BYTES = 64 * 2**20
"""Size limit of a page or a list that is read into memory."""


def can_read_pages() -> bool:
    """Return whether yt-dlp (the extra `url`) is installed."""
    return importlib.util.find_spec("yt_dlp") is not None


def fetch_page(url: str, destination: Path, *, policy: DownloadPolicy, limits: DownloadLimits) -> None:
    """Write the video of a web page to `destination`.

    Raises ClipError if the page has no video or several, RuntimeEnvironmentError if `destination` cannot be written.
    The time is limited only by the pool, which ends this process.
    """
    with make_scratch_folder(destination) as folder:
        try:
            _download_video(url, folder, _RequestGuard(policy, limits))
        except OSError as error:
            raise make_write_error(error, destination) from error
        files = [file for file in folder.iterdir() if file.is_file()]
        if len(files) != 1:
            raise ClipError("fetch", f"expected one file from the page, got {len(files)}")
        check_is_video(files[0])
        move_into_place(files[0], destination)


def _download_video(url: str, folder: Path, guard: "_RequestGuard") -> None:
    """Download the video of a page into a folder. Raises ClipError, and OSError if the disk is full."""
    from yt_dlp.globals import plugin_dirs
    from yt_dlp.utils import UnsupportedError, YoutubeDLError

    plugin_dirs.value = []
    try:
        with _make_downloader(_make_options(folder), guard) as downloader:
            info = _select_video(downloader.extract_info(url, download=False))
            if not guard.has_checked:
                raise ClipError("fetch", "this version of yt-dlp bypasses the URL checks; install another version")
            downloader.process_ie_result(info, download=True)
    except (YoutubeDLError, OSError) as error:
        if guard.problem:
            raise guard.problem from None
        if forbidden := next(_find_causes(error, ForbiddenUrlError), None):
            raise ClipError("fetch", f"URL rejected: {forbidden}") from None
        if disk_full := next(filter(is_disk_full, _find_causes(error, OSError)), None):
            raise disk_full from None
        if next(_find_causes(error, UnsupportedError), None):
            raise ClipError("fetch", "no video was found on the page") from None
        raise ClipError("fetch", _format_error(error)) from None


def _make_options(folder: Path) -> dict[str, Any]:
    """Return the options of yt-dlp.

    They use no settings of the user, no proxy, no cookies and no program besides Python. A missing fragment is an
    error.
    """
    return {
        "logger": _SilentLogger(),
        "noprogress": True,
        "color": "never",
        "outtmpl": {"default": str(folder).replace("%", "%%") + "/video.%(ext)s"},
        "format": "bv*/b",
        "format_sort": [f"res:{MAX_HEIGHT_PIXELS}"],
        "proxy": "",
        "cachedir": False,
        "nopart": True,
        "updatetime": False,
        "socket_timeout": 20,
        "retries": 2,
        "fragment_retries": 2,
        "extractor_retries": 1,
        "skip_unavailable_fragments": False,
        "fixup": "never",
        "hls_prefer_native": True,
        "external_downloader": {"default": "native"},
        "js_runtimes": {},
        "http_headers": {"Accept-Encoding": REQUEST_HEADERS["Accept-Encoding"]},
        "noplaylist": True,
        "extract_flat": "in_playlist",
        "playlistend": MAX_PLAYLIST_ENTRIES + 1,
    }


def _select_video(info: dict[str, Any] | None) -> dict[str, Any]:
    """Return the only video that a page leads to. Raises ClipError if there are several.

    Any one of several would be an arbitrary choice.
    """
    if info is None:
        raise ClipError("fetch", "no video was found on the page")
    if info.get("_type") in ("playlist", "multi_video"):
        entries = [entry for entry in info.get("entries") or () if entry]
        if len(entries) != 1:
            count = info.get("playlist_count") or len(entries)
            many = f"more than {MAX_PLAYLIST_ENTRIES}" if count > MAX_PLAYLIST_ENTRIES else str(count)
            example = next((e["url"] for e in entries if str(e.get("url", "")).startswith("http")), "")
            hint = f", such as {example}" if example else ""
            raise ClipError("fetch", f"a playlist of {many} videos, none was downloaded; give the URL of each{hint}")
        info = entries[0]
    if info.get("is_live"):
        raise ClipError("fetch", "a live stream, which has no end and cannot be downloaded")
    return info


def _make_downloader(options: dict[str, Any], guard: "_RequestGuard") -> Any:
    from yt_dlp import YoutubeDL
    from yt_dlp.networking._urllib import UrllibRH

    class CheckedRH(UrllibRH):
        _SUPPORTED_URL_SCHEMES = ("http", "https", "data")

        def _create_instance(self, *args: Any, **kwargs: Any) -> Any:
            opener = super()._create_instance(*args, **kwargs)
            opener.add_handler(_GuardHandler(guard))
            return opener

        def _send(self, request: Any) -> Any:
            return guard.limit_bytes(super()._send(request))

    class Downloader(YoutubeDL):
        """A downloader with one request handler. Other handlers have network code that the sandbox cannot limit."""

        @cached_property
        def _request_director(self) -> Any:
            return self.build_request_director([CheckedRH])

    return Downloader(options)


class _RequestGuard:
    """Checks of all requests of a download.

    It checks each URL, counts the bytes of all responses together, and keeps its first error.
    """

    def __init__(self, policy: DownloadPolicy, limits: DownloadLimits) -> None:
        self.problem: ClipError | None = None
        self.has_checked = False
        self._policy, self._limits, self._received = policy, limits, 0

    def check(self, url: str) -> None:
        """Check a URL. Raises ForbiddenUrlError."""
        self.has_checked = True
        try:
            check_url(url, self._policy)
        except ForbiddenUrlError as error:
            self.problem = self.problem or ClipError("fetch", f"URL rejected: {error}")
            raise

    def limit_bytes(self, response: Any) -> Any:
        """Return the response, changed so that reading it fails at the size limit."""
        from yt_dlp.networking.exceptions import RequestError

        read = response.read

        def read_counted(amount: int | None = None) -> bytes:
            data = read(MAX_TEXT_BYTES + 1 if amount is None else amount)
            self._received += len(data)
            if self._received > self._limits.max_bytes:
                self.problem = self.problem or make_too_large_error(
                    f"over {self._limits.max_bytes} bytes", self._limits
                )
            elif amount is None and len(data) > MAX_TEXT_BYTES:
                self.problem = self.problem or ClipError("fetch", f"the page has over {MAX_TEXT_BYTES} bytes")
            if self.problem:
                raise RequestError(self.problem.reason)
            return data

        response.read = read_counted
        return response


class _GuardHandler(urllib.request.BaseHandler):
    """A handler that checks each request before it is sent, redirects included, and each response before it is read."""

    handler_order = 50

    def __init__(self, guard: _RequestGuard) -> None:
        self._guard = guard

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        self._guard.check(request.full_url)
        return request

    https_request = ftp_request = http_request

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
            raise OSError("the server sent a compressed answer, which was not requested and can unpack to any size")
        return response

    https_response = http_response


class _SilentLogger:
    """A logger that drops the messages of yt-dlp. Errors come as exceptions."""

    def debug(self, message: str) -> None: ...

    def warning(self, message: str) -> None: ...

    def error(self, message: str) -> None: ...


def _find_causes(error: BaseException, kind: type[T]) -> Iterator[T]:
    """Yield the exceptions of one type among an error and its causes."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        if isinstance(current, kind):
            yield current
        seen.add(id(current))
        inner = [
            current.__cause__,
            current.__context__,
            getattr(current, "cause", None),
            getattr(current, "reason", None),
        ]
        exc_info = getattr(current, "exc_info", None) or ()
        pending += [part for part in (*inner, *exc_info[1:2]) if isinstance(part, BaseException)]


def _format_error(error: BaseException) -> str:
    """Return yt-dlp's message on one line, without its prefix and its request for bug reports."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split("; please report")[0].split("(caused by")[0]
    return " ".join(text.removeprefix("ERROR: ").split())[:300]
