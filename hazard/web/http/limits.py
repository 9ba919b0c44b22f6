"""What one connection, and all of them, may take of the server: time for a header, connections, work at once."""

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
"""How long a request's header may take to come."""
MAX_HEADER_BYTES = 16 * 1024
LINGER_SECONDS = 3.0
"""How long what a client goes on sending after its answer is read and thrown away, so that it can read the answer."""
STALL_TIMEOUT_SECONDS = 600.0
"""How long a client may take nothing of an answer that is too large for the buffers; a paused player takes nothing."""
MAX_CONNECTIONS = 500
"""Beyond these, the connection that has waited longest for a header to come is closed for a new one."""


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 with an end for clients that send or read a byte now and then."""

    _header_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """One more connection, perhaps instead of another."""
        super().connection_made(_LingeringTransport(transport, self))  # type: ignore[arg-type]
        if len(self.connections) > MAX_CONNECTIONS:
            waiting = [one for one in self.connections if isinstance(one, BoundedProtocol) and one._header_timer]
            min(waiting, key=lambda one: one._header_timer.when() if one._header_timer else 0.0, default=self).abort()
        self._update_header_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is left behind."""
        super().connection_lost(exc)
        for timer in (self._header_timer, self._stall_timer):
            if timer:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """A part of a request; after the answer to it, thrown away."""
        if not self.transport.is_closing():
            super().data_received(data)
            self._update_header_timer()

    def on_response_complete(self) -> None:
        """An answer is on its way; the rest of a request that nobody wants is not waited for."""
        is_unread = self.conn.their_state is h11.SEND_BODY
        super().on_response_complete()
        if is_unread:
            self.transport.close()
        self._update_header_timer()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets an answer as all errors do."""
        self._send_error(400, "not an HTTP request that can be read")

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(STALL_TIMEOUT_SECONDS, self.abort)

    def resume_writing(self) -> None:
        """The client reads on."""
        super().resume_writing()
        if self._stall_timer:
            self._stall_timer.cancel()

    def abort(self) -> None:
        """At once, whatever is on its way."""
        self.transport.abort()

    def _update_header_timer(self) -> None:
        """A deadline for each header, from the first moment that one is waited for."""
        is_waiting = self.conn.their_state is h11.IDLE and not self.transport.is_closing()
        if self._header_timer and not is_waiting:
            self._header_timer.cancel()
            self._header_timer = None
        elif is_waiting and not self._header_timer:
            self._header_timer = self.loop.call_later(HEADER_TIMEOUT_SECONDS, self._handle_header_timeout)

    def _handle_header_timeout(self) -> None:
        self._header_timer = None
        if self.conn.trailing_data[0]:
            self._send_error(408, "the request took too long to come")
        else:  # browsers connect before they know what to ask
            self.transport.close()

    def _send_error(self, status: int, reason: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"error": reason, "status": status}).encode()
            own = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
            headers = [*{**SECURITY_HEADERS, **own, "Cache-Control": "no-store"}.items()]
            for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class _LingeringTransport:
    """A connection that is closed only when the client had time to read: unread data would take the answer from it."""

    def __init__(self, transport: asyncio.Transport, protocol: BoundedProtocol) -> None:
        self._transport, self._protocol, self._is_lingering = transport, protocol, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether nothing more is answered here."""
        return self._is_lingering or self._transport.is_closing()

    def close(self) -> None:
        """Ends the answer; the connection at once or, where the client still sends, a little later."""
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
    """So many at once; more are refused."""

    max_count: int
    description: str
    count: int = 0

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Takes one for as long as the block runs. Raises Refused."""
        if self.count >= self.max_count:
            raise RequestError(429, f"{self.description} {self.max_count} at once; try again in a moment")
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


def make_uvicorn_options() -> dict[str, Any]:
    """What uvicorn is told besides where to listen."""
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
