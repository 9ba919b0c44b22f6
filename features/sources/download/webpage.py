"""The video of a web page, by yt-dlp. Only in a process of its own that `guard_process` has bound to the rules."""

import importlib.util
import re
import urllib.request
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from features.errors import ClipError
from features.sources.download.http import HEADERS, Limits, check_content, too_large
from features.sources.download.policy import AddressRefused, Rules, check_address
from features.utils.files import is_full, move_whole, scratch_folder, stopped

T = TypeVar("T", bound=BaseException)

HEIGHT = 480
"""Of several sizes the largest up to this one is taken: networks look at 224 pixels."""

MAX_LISTED = 100
"""A playlist is counted up to here."""

TEXT_BYTES = 64 * 2**20
"""A page or a list that is read into memory may be this long."""


def can_read_pages() -> bool:
    """Whether yt-dlp, the extra `url`, is installed."""
    return importlib.util.find_spec("yt_dlp") is not None


def fetch_page(url: str, place: Path, *, rules: Rules, limits: Limits) -> None:
    """Puts the video of a page into the file `place`.

    Raises ClipError where there is none, or several; EnvironmentStopped where `place` cannot be written. The time is
    bounded by whoever ends this process.
    """
    with scratch_folder(place) as folder:
        try:
            _extract(url, folder, _Watch(rules, limits))
        except OSError as error:
            raise stopped(error, place) from error
        came = [file for file in folder.iterdir() if file.is_file()]
        if len(came) != 1:
            raise ClipError("fetch", f"{len(came)} files came of the page, one was expected")
        check_content(came[0])
        move_whole(came[0], place)


def _extract(url: str, folder: Path, watch: "_Watch") -> None:
    """Raises ClipError, and OSError where there is no space."""
    from yt_dlp.globals import plugin_dirs
    from yt_dlp.utils import UnsupportedError, YoutubeDLError

    plugin_dirs.value = []
    try:
        with _downloader(_options(folder), watch) as downloader:
            info = _one_video(downloader.extract_info(url, download=False))
            if not watch.has_checked:
                raise ClipError("fetch", "this version of yt-dlp goes around the address checks; install another")
            downloader.process_ie_result(info, download=True)
    except (YoutubeDLError, OSError) as error:
        if watch.problem:
            raise watch.problem from None
        if refusal := next(_causes(error, AddressRefused), None):
            raise ClipError("fetch", f"refused: {refusal}") from None
        if full := next(filter(is_full, _causes(error, OSError)), None):
            raise full from None
        if next(_causes(error, UnsupportedError), None):
            raise ClipError("fetch", "no video was found on the page") from None
        raise ClipError("fetch", _said(error)) from None


def _options(folder: Path) -> dict[str, Any]:
    """No settings of the user's own, no proxy, no cookies, no program beside Python, no part left out in silence."""
    return {
        "logger": _Log(),
        "noprogress": True,
        "color": "never",
        "outtmpl": {"default": str(folder).replace("%", "%%") + "/video.%(ext)s"},
        "format": "bv*/b",
        "format_sort": [f"res:{HEIGHT}"],
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
        "http_headers": {"Accept-Encoding": HEADERS["Accept-Encoding"]},
        "noplaylist": True,
        "extract_flat": "in_playlist",
        "playlistend": MAX_LISTED + 1,
    }


def _one_video(info: dict[str, Any] | None) -> dict[str, Any]:
    """The only video that a page leads to. One of several would stand for the page by chance: it is refused."""
    if info is None:
        raise ClipError("fetch", "no video was found on the page")
    if info.get("_type") in ("playlist", "multi_video"):
        entries = [entry for entry in info.get("entries") or () if entry]
        if len(entries) != 1:
            count = info.get("playlist_count") or len(entries)
            many = f"more than {MAX_LISTED}" if count > MAX_LISTED else str(count)
            such = next((e["url"] for e in entries if str(e.get("url", "")).startswith("http")), "")
            hint = f", such as {such}" if such else ""
            raise ClipError("fetch", f"a playlist of {many} videos, all left out: give their own addresses{hint}")
        info = entries[0]
    if info.get("is_live"):
        raise ClipError("fetch", "a live stream, which has no end to be fetched")
    return info


def _downloader(options: dict[str, Any], watch: "_Watch") -> Any:
    from yt_dlp import YoutubeDL
    from yt_dlp.networking._urllib import UrllibRH

    class CheckedRH(UrllibRH):
        _SUPPORTED_URL_SCHEMES = ("http", "https", "data")

        def _create_instance(self, *args: Any, **kwargs: Any) -> Any:
            opener = super()._create_instance(*args, **kwargs)
            opener.add_handler(_Hops(watch))
            return opener

        def _send(self, request: Any) -> Any:
            return watch.counted(super()._send(request))

    class Downloader(YoutubeDL):
        """Knows one way to speak to servers: other handlers bring network code that nothing here can bind."""

        @cached_property
        def _request_director(self) -> Any:
            return self.build_request_director([CheckedRH])

    return Downloader(options)


class _Watch:
    """Checks each address, counts the bytes of all answers together, and remembers the first thing that it refused."""

    def __init__(self, rules: Rules, limits: Limits) -> None:
        self.problem: ClipError | None = None
        self.has_checked = False
        self._rules, self._limits, self._received = rules, limits, 0

    def check(self, url: str) -> None:
        """Raises AddressRefused."""
        self.has_checked = True
        try:
            check_address(url, self._rules)
        except AddressRefused as error:
            self.problem = self.problem or ClipError("fetch", f"refused: {error}")
            raise

    def counted(self, response: Any) -> Any:
        """The same answer; reading it ends at the cap."""
        from yt_dlp.networking.exceptions import RequestError

        read = response.read

        def counting(amount: int | None = None) -> bytes:
            data = read(TEXT_BYTES + 1 if amount is None else amount)
            self._received += len(data)
            if self._received > self._limits.max_bytes:
                self.problem = self.problem or too_large(f"over {self._limits.max_bytes} bytes", self._limits)
            elif amount is None and len(data) > TEXT_BYTES:
                self.problem = self.problem or ClipError("fetch", f"a page of over {TEXT_BYTES} bytes")
            if self.problem:
                raise RequestError(self.problem.reason)
            return data

        response.read = counting
        return response


class _Hops(urllib.request.BaseHandler):
    """Sees each request before it is sent, those that redirects lead to as well, and each answer before it is read."""

    handler_order = 50

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        self._watch.check(request.full_url)
        return request

    https_request = ftp_request = http_request

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
            raise OSError("a compressed answer, which was not asked for and may be of any size unpacked")
        return response

    https_response = http_response


class _Log:
    """Nothing of yt-dlp's talk: what matters comes as an exception."""

    def debug(self, message: str) -> None: ...

    def warning(self, message: str) -> None: ...

    def error(self, message: str) -> None: ...


def _causes(error: BaseException, kind: type[T]) -> Iterator[T]:
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


def _said(error: BaseException) -> str:
    """yt-dlp's message on one line, without its prefix and its plea for bug reports."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split("; please report")[0].split("(caused by")[0]
    return " ".join(text.removeprefix("ERROR: ").split())[:300]
