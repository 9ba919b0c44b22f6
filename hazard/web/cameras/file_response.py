"""Answers with an open file: all of it, or the range that a player asks for."""

import os
import re
from collections.abc import Iterator

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

SEND_BLOCK_BYTES = 1 << 18
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def make_file_response(descriptor: int, request: Request, *, media_type: str, name: str) -> Response:
    """Return an answer with an open file, which is closed when it is sent.

    One range per request is supported (RFC 9110); players ask for no more.
    """
    status = os.fstat(descriptor)
    tag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    headers = {"Accept-Ranges": "bytes", "ETag": tag, "Content-Disposition": f'inline; filename="{name}"'}
    if request.headers.get("if-none-match") == tag:
        os.close(descriptor)
        return Response(status_code=304, headers=headers)
    is_unchanged = request.headers.get("if-range", tag) == tag
    byte_range = _RANGE.fullmatch(request.headers.get("range", "")) if is_unchanged else None
    if byte_range is None or not any(byte_range.groups()):
        return _stream_range(descriptor, 0, status.st_size, headers, media_type, 200)
    first, end = _parse_range(byte_range[1], byte_range[2], status.st_size)
    if first >= end:
        os.close(descriptor)
        return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{status.st_size}"})
    headers |= {"Content-Range": f"bytes {first}-{end - 1}/{status.st_size}"}
    return _stream_range(descriptor, first, end, headers, media_type, 206)


def _parse_range(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        return max(0, size - int(last[:18])), size
    return int(first[:18]), min(size, int(last[:18]) + 1) if last else size


def _stream_range(
    descriptor: int, first: int, end: int, headers: dict[str, str], media_type: str, status: int
) -> Response:
    headers |= {"Content-Length": str(end - first)}
    return StreamingResponse(_FileRange(descriptor, first, end), status, headers, media_type=media_type)


class _FileRange:
    """An iterator over a range of bytes of a file. It closes the file at its end."""

    def __init__(self, descriptor: int, first: int, end: int) -> None:
        self._file = open(descriptor, "rb", buffering=0)  # noqa: SIM115 - closed when it is sent, or with this object
        self._first, self._end = first, end

    def __iter__(self) -> Iterator[bytes]:
        with self._file as file:
            offset, end = self._first, self._end
            while offset < end and (block := os.pread(file.fileno(), min(SEND_BLOCK_BYTES, end - offset), offset)):
                offset += len(block)
                yield block
