"""Uploads, streamed to the disk: bounded in bytes, time, parts and number, whatever their headers promise."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import anyio.to_thread
from anyio import CapacityLimiter
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from features.utils.files import is_full, stopped
from features.utils.text import printable
from hazard.web.errors import Refused

FIELD = "video"
MOST_PARTS = 20
MOST_FIELD_BYTES = 64 * 1024
MOST_NAME = 200
"""Characters of a file's name that are kept."""
OVERHEAD_BYTES = MOST_PARTS * (MOST_FIELD_BYTES + 8 * 8192)
"""What a request may have besides the file."""
IDLE_SECONDS = 30.0
"""How long a client may send nothing."""
JSON_SECONDS = 30.0
_PIECE = 256 * 1024
_PLAIN = (b"", b"7bit", b"8bit", b"binary")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Upload:
    """A file that came, under a name of the server's own; `name` is what the sender calls it, and only text."""

    file: Path
    name: str
    fields: dict[str, str]


@dataclass(frozen=True)
class UploadLimits:
    """What one upload may take."""

    max_bytes: int
    seconds: float
    idle_seconds: float = IDLE_SECONDS


@asynccontextmanager
async def received(request: Request, folder: Path, limits: UploadLimits) -> AsyncIterator[Upload]:
    """The upload of a multipart request, in `folder` while the block runs, unless it is moved away meanwhile.

    Raises Refused: 400 malformed, 408 too slow, 413 too large, 507 no room on the disk.
    """
    _check_length(request, limits.max_bytes + OVERHEAD_BYTES, said=limits.max_bytes)
    path = folder / f"{secrets.token_hex(16)}.part"
    writer = CapacityLimiter(1)
    try:
        with _opened(path) as file:
            form = _Form(_boundary(request), file, limits.max_bytes)
            async for piece in _pieces(request, seconds=limits.seconds, idle_seconds=limits.idle_seconds):
                await anyio.to_thread.run_sync(form.feed, piece, limiter=writer)
        name, fields = form.finish()
        yield Upload(path, name, fields)
    finally:
        path.unlink(missing_ok=True)


async def small_body(request: Request, *, most: int = MOST_FIELD_BYTES) -> bytes:
    """The whole of a small request. Raises Refused: 408, 413."""
    _check_length(request, most, said=most)
    body = bytearray()
    async for piece in _pieces(request, seconds=JSON_SECONDS, idle_seconds=IDLE_SECONDS):
        body += piece
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


class _Form:
    """A multipart body as it comes: one file to the disk, a few short fields."""

    def __init__(self, boundary: bytes, file: IO[bytes], max_bytes: int) -> None:
        self._file, self._max_bytes, self._left = file, max_bytes, max_bytes + OVERHEAD_BYTES
        self._name: str | None = None
        self._fields: dict[str, bytearray] = {}
        self._headers: dict[bytes, bytes] = {}
        self._header, self._value = bytearray(), bytearray()
        self._target: bytearray | None = None  # None: the file
        self._parts, self._written, self._is_whole = 0, 0, False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_data,
                "on_part_data": self._data,
                "on_end": self._end,
            },
        )

    def feed(self, piece: bytes) -> None:
        """The next bytes. Raises Refused."""
        self._left -= len(piece)
        if self._left < 0:
            raise _too_large(self._max_bytes)
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise Refused(400, f"malformed multipart: {error}") from None
        except OSError as error:
            raise _no_room(error, Path(self._file.name)) from None

    def finish(self) -> tuple[str, dict[str, str]]:
        """The file's name, and the fields. Raises Refused where something is missing."""
        if not self._is_whole:
            raise Refused(400, "malformed multipart: it ends in the middle")
        if self._name is None:
            raise Refused(400, f"no file in the field '{FIELD}'; send it as: curl -F {FIELD}=@FILE")
        if not self._written:
            raise Refused(400, "the file is empty")
        return self._name, {name: _text(bytes(value)) for name, value in self._fields.items()}

    def _begin(self) -> None:
        self._parts += 1
        self._headers = {}
        if self._parts > MOST_PARTS:
            raise Refused(400, f"more than {MOST_PARTS} parts in one form")

    def _end_header(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _begin_data(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        field = _text(options.get(b"name", b""))
        if kind != b"form-data" or not field:
            raise Refused(400, "malformed multipart: a part without a name")
        if self._headers.get(b"content-transfer-encoding", b"").strip().lower() not in _PLAIN:
            raise Refused(400, "malformed multipart: a part in a transfer encoding; send bytes as they are")
        if b"filename" in options:
            self._begin_file(field, _text(options[b"filename"]))
        else:
            self._target = self._fields.setdefault(field, bytearray())

    def _begin_file(self, field: str, name: str) -> None:
        if field != FIELD:
            raise Refused(400, f"a file in the field '{printable(field[:40])}'; the field is called '{FIELD}'")
        if self._name is not None:
            raise Refused(400, "more than one file; send one a request")
        self._name, self._target = printable(name)[:MOST_NAME] or "video", None

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._target is not None:
            self._target += data[start:end]
            if len(self._target) > MOST_FIELD_BYTES:
                raise Refused(400, f"a field of more than {MOST_FIELD_BYTES} bytes")
            return
        self._written += end - start
        if self._written > self._max_bytes:
            raise _too_large(self._max_bytes)
        left = memoryview(data)[start:end]
        while left:
            left = left[self._file.write(left) :]

    def _end(self) -> None:
        self._is_whole = True


async def _pieces(request: Request, *, seconds: float, idle_seconds: float) -> AsyncIterator[bytes]:
    """The body in larger pieces than the network has. Raises Refused where the client takes too long."""
    until, gathered = time.monotonic() + seconds, bytearray()
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(max(0.0, min(idle_seconds, until - time.monotonic()))):
                gathered += await anext(stream)
        except TimeoutError:
            raise Refused(408, "the request took too long to come") from None
        except StopAsyncIteration:
            break
        except ClientDisconnect:
            raise Refused(400, "the request ended in the middle") from None
        if len(gathered) >= _PIECE:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


def _check_length(request: Request, most: int, *, said: int) -> None:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > most:
        raise _too_large(said)


def _too_large(most: int) -> Refused:
    return Refused(413, f"too large: at most {most / 1e6:g} MB are taken")


def _no_room(error: OSError, path: Path) -> Refused:
    log.error("an upload could not be kept: %s", stopped(error, path))
    return Refused(507 if is_full(error) else 503, "the server cannot keep this upload; its log says why")


def _boundary(request: Request) -> bytes:
    boundary = parse_options_header(request.headers.get("content-type"))[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= 70:
        raise Refused(400, "malformed multipart: no boundary of 1 to 70 characters")
    return boundary


def _opened(path: Path) -> IO[bytes]:
    try:
        return open(path, "xb", buffering=0)  # a full disk is noticed at once, and not when the file is closed
    except OSError as error:
        raise _no_room(error, path) from None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
