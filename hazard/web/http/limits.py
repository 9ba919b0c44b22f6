"""The limits of connections and requests: time for a header, number of connections, simultaneous uploads."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from hazard.web.errors import RequestError
from hazard.web.http.guard import SECURITY_HEADERS

HEADER_TIMEOUT_SECONDS = 10.0
"""The longest time that a request's header may take to arrive."""
MAX_HEADER_BYTES = 16 * 1024
LINGER_SECONDS = 3.0
"""The time for which data that a client sends after its answer is read and dropped, so that it can read the answer."""
STALL_TIMEOUT_SECONDS = 600.0
"""The longest time that a client may read nothing of an answer too large for the buffers, as a paused player does."""
MAX_CONNECTIONS = 500
"""The most connections. Beyond that, the one that has waited longest for a header is closed for a new one."""


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 with time limits for clients that send or read too slowly."""

    _header_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection. If there are too many, close the one that has waited longest."""
        super().connection_made(_LingeringTransport(transport, self))  # type: ignore[arg-type]
        if len(self.connections) > MAX_CONNECTIONS:
            waiting = [
                other for other in self.connections if isinstance(other, BoundedProtocol) and other._header_timer
            ]
            oldest = min(
                waiting, key=lambda other: other._header_timer.when() if other._header_timer else 0.0, default=self
            )
            oldest.abort()
        self._update_header_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers of a lost connection."""
        super().connection_lost(exc)
        for timer in (self._header_timer, self._stall_timer):
            if timer:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Handle a part of a request. Data after the answer is dropped."""
        if not self.transport.is_closing():
            super().data_received(data)
            self._update_header_timer()

    def on_response_complete(self) -> None:
        """Close the connection after an answer if the rest of its request was not read."""
        is_unread = self.conn.their_state is h11.SEND_BODY
        super().on_response_complete()
        if is_unread:
            self.transport.close()
        self._update_header_timer()

    def send_400_response(self, msg: str) -> None:
        """Answer data that is not HTTP with an error in the usual form."""
        self._send_error(400, "the request is not valid HTTP")

    def pause_writing(self) -> None:
        """Start the timer of a client that does not read."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(STALL_TIMEOUT_SECONDS, self.abort)

    def resume_writing(self) -> None:
        """Stop the timer of a client that reads again."""
        super().resume_writing()
        if self._stall_timer:
            self._stall_timer.cancel()

    def abort(self) -> None:
        """Close the connection at once, without sending what is buffered."""
        self.transport.abort()

    def _update_header_timer(self) -> None:
        """Start or stop the timer for the next header. It runs whenever the connection waits for one."""
        is_waiting = self.conn.their_state is h11.IDLE and not self.transport.is_closing()
        if self._header_timer and not is_waiting:
            self._header_timer.cancel()
            self._header_timer = None
        elif is_waiting and not self._header_timer:
            self._header_timer = self.loop.call_later(HEADER_TIMEOUT_SECONDS, self._handle_header_timeout)

    def _handle_header_timeout(self) -> None:
        self._header_timer = None
        if self.conn.trailing_data[0]:
            self._send_error(408, "the request took too long to arrive")
        else:  # browsers open connections before they need them
            self.transport.close()

    def _send_error(self, status: int, reason: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"error": reason, "status": status}).encode()
            body_headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
            headers = [*{**SECURITY_HEADERS, **body_headers, "Cache-Control": "no-store"}.items()]
            for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class _LingeringTransport:
    """A transport that closes only after the client had time to read: unread data would make it lose the answer."""

    def __init__(self, transport: asyncio.Transport, protocol: BoundedProtocol) -> None:
        self._transport, self._protocol, self._is_lingering = transport, protocol, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Return whether nothing more is answered on this connection."""
        return self._is_lingering or self._transport.is_closing()

    def close(self) -> None:
        """End the answer. Close the connection at once, or a little later if the client is still sending."""
        is_sending = self._protocol.conn.their_state in (h11.SEND_BODY, h11.ERROR)
        if not is_sending or self.is_closing():
            self._transport.close()
            return
        self._is_lingering = True
        self._transport.resume_reading()
        with suppress(OSError, RuntimeError):
            self._transport.write_eof()
        self._protocol.loop.call_later(LINGER_SECONDS, self._transport.abort)


@dataclass
class ConcurrencyLimit:
    """A limit on simultaneous work; more is rejected."""

    max_count: int
    description: str
    count: int = 0

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Hold one place during the block. Raises RequestError 429 if none is free."""
        if self.count >= self.max_count:
            raise RequestError(429, f"more than {self.max_count} {self.description} at once; try again in a moment")
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


def make_uvicorn_options() -> dict[str, Any]:
    """Return the options of uvicorn, except the address."""
    return {
        "http": BoundedProtocol,
        "ws": "none",
        "loop": "asyncio",
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "h11_max_incomplete_event_size": MAX_HEADER_BYTES,
        "timeout_keep_alive": 5,
        "timeout_graceful_shutdown": 5,
        "backlog": 512,
    }
