"""The video of a web page, by yt-dlp. Only in a process of its own that `guard_process` has bound to the rules."""

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
"""Of several sizes the largest up to this one is taken: networks look at 224 pixels."""

MAX_PLAYLIST_ENTRIES = 100
"""A playlist is counted up to here."""

MAX_TEXT_BYTES = 64 * 2**20
"""A page or a list that is read into memory may be this long."""


def can_read_pages() -> bool:
    """Whether yt-dlp, the extra `url`, is installed."""
    return importlib.util.find_spec("yt_dlp") is not None


def fetch_page(url: str, destination: Path, *, policy: DownloadPolicy, limits: DownloadLimits) -> None:
    """Puts the video of a page into the file `place`.

    Raises ClipError where there is none, or several; EnvironmentStopped where `place` cannot be written. The time is
    bounded by whoever ends this process.
    """
    with make_scratch_folder(destination) as folder:
        try:
            _download_video(url, folder, _RequestGuard(policy, limits))
        except OSError as error:
            raise make_write_error(error, destination) from error
        came = [file for file in folder.iterdir() if file.is_file()]
        if len(came) != 1:
            raise ClipError("fetch", f"{len(came)} files came of the page, one was expected")
        check_is_video(came[0])
        move_into_place(came[0], destination)


def _download_video(url: str, folder: Path, guard: "_RequestGuard") -> None:
    """Raises ClipError, and OSError where there is no space."""
    from yt_dlp.globals import plugin_dirs
    from yt_dlp.utils import UnsupportedError, YoutubeDLError

    plugin_dirs.value = []
    try:
        with _make_downloader(_make_options(folder), guard) as downloader:
            info = _select_video(downloader.extract_info(url, download=False))
            if not guard.has_checked:
                raise ClipError("fetch", "this version of yt-dlp goes around the address checks; install another")
            downloader.process_ie_result(info, download=True)
    except (YoutubeDLError, OSError) as error:
        if guard.problem:
            raise guard.problem from None
        if refusal := next(_find_causes(error, ForbiddenUrlError), None):
            raise ClipError("fetch", f"refused: {refusal}") from None
        if full := next(filter(is_disk_full, _find_causes(error, OSError)), None):
            raise full from None
        if next(_find_causes(error, UnsupportedError), None):
            raise ClipError("fetch", "no video was found on the page") from None
        raise ClipError("fetch", _format_error(error)) from None


def _make_options(folder: Path) -> dict[str, Any]:
    """No settings of the user's own, no proxy, no cookies, no program beside Python, no part left out in silence."""
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
    """The only video that a page leads to. One of several would stand for the page by chance: it is refused."""
    if info is None:
        raise ClipError("fetch", "no video was found on the page")
    if info.get("_type") in ("playlist", "multi_video"):
        entries = [entry for entry in info.get("entries") or () if entry]
        if len(entries) != 1:
            count = info.get("playlist_count") or len(entries)
            many = f"more than {MAX_PLAYLIST_ENTRIES}" if count > MAX_PLAYLIST_ENTRIES else str(count)
            such = next((e["url"] for e in entries if str(e.get("url", "")).startswith("http")), "")
            hint = f", such as {such}" if such else ""
            raise ClipError("fetch", f"a playlist of {many} videos, all left out: give their own addresses{hint}")
        info = entries[0]
    if info.get("is_live"):
        raise ClipError("fetch", "a live stream, which has no end to be fetched")
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
        """Knows one way to speak to servers: other handlers bring network code that nothing here can bind."""

        @cached_property
        def _request_director(self) -> Any:
            return self.build_request_director([CheckedRH])

    return Downloader(options)


class _RequestGuard:
    """Checks each address, counts the bytes of all answers together, and remembers the first thing that it refused."""

    def __init__(self, policy: DownloadPolicy, limits: DownloadLimits) -> None:
        self.problem: ClipError | None = None
        self.has_checked = False
        self._policy, self._limits, self._received = policy, limits, 0

    def check(self, url: str) -> None:
        """Raises AddressRefused."""
        self.has_checked = True
        try:
            check_url(url, self._policy)
        except ForbiddenUrlError as error:
            self.problem = self.problem or ClipError("fetch", f"refused: {error}")
            raise

    def limit_bytes(self, response: Any) -> Any:
        """The same answer; reading it ends at the cap."""
        from yt_dlp.networking.exceptions import RequestError

        read = response.read

        def counting(amount: int | None = None) -> bytes:
            data = read(MAX_TEXT_BYTES + 1 if amount is None else amount)
            self._received += len(data)
            if self._received > self._limits.max_bytes:
                self.problem = self.problem or make_too_large_error(
                    f"over {self._limits.max_bytes} bytes", self._limits
                )
            elif amount is None and len(data) > MAX_TEXT_BYTES:
                self.problem = self.problem or ClipError("fetch", f"a page of over {MAX_TEXT_BYTES} bytes")
            if self.problem:
                raise RequestError(self.problem.reason)
            return data

        response.read = counting
        return response


class _GuardHandler(urllib.request.BaseHandler):
    """Sees each request before it is sent, those that redirects lead to as well, and each answer before it is read."""

    handler_order = 50

    def __init__(self, guard: _RequestGuard) -> None:
        self._guard = guard

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        self._guard.check(request.full_url)
        return request

    https_request = ftp_request = http_request

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
            raise OSError("a compressed answer, which was not asked for and may be of any size unpacked")
        return response

    https_response = http_response


class _SilentLogger:
    """Nothing of yt-dlp's talk: what matters comes as an exception."""

    def debug(self, message: str) -> None: ...

    def warning(self, message: str) -> None: ...

    def error(self, message: str) -> None: ...


def _find_causes(error: BaseException, kind: type[T]) -> Iterator[T]:
    """Those of a kind among an error and what it was raised from."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        met = pending.pop()
        if met is None or id(met) in seen:
            continue
        if isinstance(met, kind):
            yield met
        seen.add(id(met))
        inner = [met.__cause__, met.__context__, getattr(met, "cause", None), getattr(met, "reason", None)]
        exc_info = getattr(met, "exc_info", None) or ()
        pending += [part for part in (*inner, *exc_info[1:2]) if isinstance(part, BaseException)]


def _format_error(error: BaseException) -> str:
    """yt-dlp's message on one line, without its prefix and its plea for bug reports."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split("; please report")[0].split("(caused by")[0]
    return " ".join(text.removeprefix("ERROR: ").split())[:300]
