"""Uploads, streamed to the disk with limits on bytes, time and parts that do not rely on the request's headers."""

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

from features.utils.files import is_disk_full, make_write_error
from features.utils.text import make_printable
from hazard.web.errors import RequestError

FILE_FIELD = "video"
MAX_PARTS = 20
MAX_FIELD_BYTES = 64 * 1024
MAX_NAME_LENGTH = 200
"""The largest number of characters of a file name."""
MAX_OVERHEAD_BYTES = MAX_PARTS * (MAX_FIELD_BYTES + 8 * 8192)
"""The most bytes that a request may have besides the file."""
IDLE_TIMEOUT_SECONDS = 30.0
"""The longest time that a client may send nothing."""
SMALL_BODY_TIMEOUT_SECONDS = 30.0
UPLOAD_NOT_STORED_MESSAGE = "the server could not store the upload; see its log"
_CHUNK_BYTES = 256 * 1024
_PLAIN_ENCODINGS = (b"", b"7bit", b"8bit", b"binary")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Upload:
    """A received file, stored under a name of the server's own. `name` is the sender's file name, used only as text."""

    file: Path
    name: str
    fields: dict[str, str]


@dataclass(frozen=True)
class UploadLimits:
    """The limits of one upload."""

    max_bytes: int
    seconds: float
    idle_seconds: float = IDLE_TIMEOUT_SECONDS


@asynccontextmanager
async def receive_upload(request: Request, folder: Path, limits: UploadLimits) -> AsyncIterator[Upload]:
    """Receive the upload of a multipart request into `folder`. The file is deleted after the block unless it was moved.

    Raises RequestError: 400 malformed, 408 too slow, 413 too large, 507 no room on the disk, 503 another disk error.
    """
    _check_length(request, limits.max_bytes + MAX_OVERHEAD_BYTES, shown_bytes=limits.max_bytes)
    path = folder / f"{secrets.token_hex(16)}.part"
    writer = CapacityLimiter(1)
    try:
        with _create_file(path) as file:
            form = _FormParser(_parse_boundary(request), file, limits.max_bytes)
            async for chunk in _read_chunks(request, seconds=limits.seconds, idle_seconds=limits.idle_seconds):
                await anyio.to_thread.run_sync(form.feed, chunk, limiter=writer)
        name, fields = form.finish()
        yield Upload(path, name, fields)
    finally:
        path.unlink(missing_ok=True)


async def read_small_body(request: Request, *, max_bytes: int = MAX_FIELD_BYTES) -> bytes:
    """Return the whole body of a small request. Raises RequestError: 400 cut off, 408 too slow, 413 too large."""
    _check_length(request, max_bytes, shown_bytes=max_bytes)
    body = bytearray()
    async for chunk in _read_chunks(request, seconds=SMALL_BODY_TIMEOUT_SECONDS, idle_seconds=IDLE_TIMEOUT_SECONDS):
        body += chunk
        if len(body) > max_bytes:
            raise _make_too_large_error(max_bytes)
    return bytes(body)


class _FormParser:
    """A parser of a multipart body: it writes the one file to the disk and keeps a few short fields."""

    def __init__(self, boundary: bytes, file: IO[bytes], max_bytes: int) -> None:
        self._file, self._max_bytes, self._bytes_left = file, max_bytes, max_bytes + MAX_OVERHEAD_BYTES
        self._file_name: str | None = None
        self._fields: dict[str, bytearray] = {}
        self._headers: dict[bytes, bytes] = {}
        self._header_name, self._header_value = bytearray(), bytearray()
        self._field_buffer: bytearray | None = None  # None: the file
        self._part_count, self._written_bytes, self._is_complete = 0, 0, False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": lambda data, start, end: self._header_name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_data,
                "on_part_data": self._receive_data,
                "on_end": self._end_form,
            },
        )

    def feed(self, chunk: bytes) -> None:
        """Parse the next bytes. Raises RequestError."""
        self._bytes_left -= len(chunk)
        if self._bytes_left < 0:
            raise _make_too_large_error(self._max_bytes)
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise RequestError(400, f"malformed multipart: {error}") from None
        except OSError as error:
            raise _make_storage_error(error, Path(self._file.name)) from None

    def finish(self) -> tuple[str, dict[str, str]]:
        """Return the file's name and the fields. Raises RequestError 400 if the form is incomplete."""
        if not self._is_complete:
            raise RequestError(400, "malformed multipart: the form is incomplete")
        if self._file_name is None:
            raise RequestError(400, f"no file in the field '{FILE_FIELD}'; send it as: curl -F {FILE_FIELD}=@FILE")
        if not self._written_bytes:
            raise RequestError(400, "the file is empty")
        return self._file_name, {name: _decode_text(bytes(value)) for name, value in self._fields.items()}

    def _begin_part(self) -> None:
        self._part_count += 1
        self._headers = {}
        if self._part_count > MAX_PARTS:
            raise RequestError(400, f"more than {MAX_PARTS} parts in one form")

    def _end_header(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name, self._header_value = bytearray(), bytearray()

    def _begin_data(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        field = _decode_text(options.get(b"name", b""))
        if kind != b"form-data" or not field:
            raise RequestError(400, "malformed multipart: a part without a name")
        if self._headers.get(b"content-transfer-encoding", b"").strip().lower() not in _PLAIN_ENCODINGS:
            raise RequestError(400, "malformed multipart: a part has a transfer encoding; send the raw bytes")
        if b"filename" in options:
            self._begin_file(field, _decode_text(options[b"filename"]))
        else:
            self._field_buffer = self._fields.setdefault(field, bytearray())

    def _begin_file(self, field: str, name: str) -> None:
        if field != FILE_FIELD:
            raise RequestError(
                400, f"a file in the field '{make_printable(field[:40])}'; send it in the field '{FILE_FIELD}'"
            )
        if self._file_name is not None:
            raise RequestError(400, "more than one file; send one per request")
        self._file_name, self._field_buffer = make_printable(name)[:MAX_NAME_LENGTH] or "video", None

    def _receive_data(self, data: bytes, start: int, end: int) -> None:
        if self._field_buffer is not None:
            self._field_buffer += data[start:end]
            if len(self._field_buffer) > MAX_FIELD_BYTES:
                raise RequestError(400, f"a field of more than {MAX_FIELD_BYTES} bytes")
            return
        self._written_bytes += end - start
        if self._written_bytes > self._max_bytes:
            raise _make_too_large_error(self._max_bytes)
        unwritten = memoryview(data)[start:end]
        while unwritten:
            unwritten = unwritten[self._file.write(unwritten) :]

    def _end_form(self) -> None:
        self._is_complete = True


async def _read_chunks(request: Request, *, seconds: float, idle_seconds: float) -> AsyncIterator[bytes]:
    """Yield the body in chunks larger than the network's. Raises RequestError: 408 too slow, 400 cut off."""
    deadline, buffer = time.monotonic() + seconds, bytearray()
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(max(0.0, min(idle_seconds, deadline - time.monotonic()))):
                buffer += await anext(stream)
        except TimeoutError:
            raise RequestError(408, "the request took too long to arrive") from None
        except StopAsyncIteration:
            break
        except ClientDisconnect:
            raise RequestError(400, "the client closed the connection before the end of the request") from None
        if len(buffer) >= _CHUNK_BYTES:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)


def _check_length(request: Request, max_bytes: int, *, shown_bytes: int) -> None:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > max_bytes:
        raise _make_too_large_error(shown_bytes)


def _make_too_large_error(max_bytes: int) -> RequestError:
    return RequestError(413, f"too large: the limit is {max_bytes / 1e6:g} MB")


def _make_storage_error(error: OSError, path: Path) -> RequestError:
    log.error("an upload could not be stored: %s", make_write_error(error, path))
    return RequestError(507 if is_disk_full(error) else 503, UPLOAD_NOT_STORED_MESSAGE)


def _parse_boundary(request: Request) -> bytes:
    boundary = parse_options_header(request.headers.get("content-type"))[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= 70:
        raise RequestError(400, "malformed multipart: no boundary of 1 to 70 characters")
    return boundary


def _create_file(path: Path) -> IO[bytes]:
    try:
        return open(path, "xb", buffering=0)  # unbuffered: a full disk is noticed at once, not when the file is closed
    except OSError as error:
        raise _make_storage_error(error, path) from None


def _decode_text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
