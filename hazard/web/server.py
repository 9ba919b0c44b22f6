"""The socket and the loop of `hazard serve`. The socket is bound before any model is opened."""

import contextlib
import errno
import ipaddress
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from features.errors import RuntimeEnvironmentError, SettingsError
from hazard.utils.bind_address import BindAddress
from hazard.web.http.limits import make_uvicorn_options
from hazard.web.settings import ServeSettings

MIN_TOKEN_LENGTH = 16


def check_exposure(settings: ServeSettings) -> None:
    """Check that other machines cannot reach the server without a good token. Raises SettingsError."""
    token = settings.token.get_secret_value() if settings.token else ""
    if settings.token and (len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable()):
        raise SettingsError(
            f"the token needs at least {MIN_TOKEN_LENGTH} printable ASCII characters; make one: openssl rand -hex 16"
        )
    if not token and not all(ipaddress.ip_address(ip.partition("%")[0]).is_loopback for ip in _resolve_host(settings)):
        raise SettingsError(
            f"host {settings.host}: other machines can reach it, so a token is needed: --token, or $HAZARD_TOKEN"
        )


@contextmanager
def open_listener(settings: ServeSettings) -> Iterator[socket.socket]:
    """Yield a bound socket that holds connections until the server answers. Raises RuntimeEnvironmentError."""
    address = BindAddress(settings.host, settings.port)
    family, _, _, _, socket_address = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(socket_address)
            listener.listen(512)
        except OSError as error:
            reason = "the port is in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error)).lower()
            raise RuntimeEnvironmentError(f"{address}: {reason}; choose another with --port") from None
        yield listener


def server_url(listener: socket.socket, settings: ServeSettings) -> str:
    """Return the URL to open in a browser on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://{BindAddress(host, listener.getsockname()[1])}"


def serve(app: FastAPI, listener: socket.socket, *, is_stopped: Callable[[], bool]) -> None:
    """Answer requests until `is_stopped` returns true. Requests in progress then get five seconds to finish."""
    for name in ("uvicorn.error", "python_multipart"):  # mistakes of clients are not logged
        logging.getLogger(name).setLevel(logging.CRITICAL)
    _StoppableServer(uvicorn.Config(app, **make_uvicorn_options()), is_stopped).run(sockets=[listener])


class _StoppableServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, is_stopped: Callable[[], bool]) -> None:
        super().__init__(config)
        self._is_stopped = is_stopped

    def capture_signals(self) -> Any:
        """Leave the signals to the command."""
        return contextlib.nullcontext()

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop; uvicorn calls this ten times a second."""
        return await super().on_tick(counter) or self._is_stopped()


def _resolve_host(settings: ServeSettings) -> list[str]:
    try:
        entries = socket.getaddrinfo(settings.host or None, settings.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise SettingsError(f"host {settings.host}: no such host; use an address of this machine, or 0.0.0.0") from None
    return [str(entry[4][0]) for entry in entries]
