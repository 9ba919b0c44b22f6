"""The HTTP server of `/metrics`, for Prometheus.

Each scrape is answered in its own thread. Slow, hanging or too frequent scrapers do not slow down the monitor: only a
few connections are open at once, and each is closed after some seconds.
"""

import errno
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from features.errors import RuntimeEnvironmentError, SettingsError
from hazard.monitor.metrics.prometheus import MetricsCollector
from hazard.utils.bind_address import BindAddress

MAX_CONNECTIONS = 8
"""Largest number of open connections. Further ones are closed without an answer."""
MAX_CONNECTION_SECONDS = 10.0
"""Longest time that a connection stays open."""

log = logging.getLogger(__name__)


@contextmanager
def serve_metrics(collector: MetricsCollector, address: BindAddress) -> Iterator[str]:
    """Serve /metrics while the block runs. Yields its URL; port 0 takes a free port.

    Raises SettingsError if prometheus-client is not installed or the host is unknown, RuntimeEnvironmentError if the
    port cannot be opened.
    """
    if find_spec("prometheus_client") is None:
        raise SettingsError("--metrics needs prometheus-client: pip install prometheus-client")
    with _bind_server(address, _make_handler(collector)) as server:
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
        try:
            yield f"http://{address._replace(port=server.server_address[1])}/metrics"
        finally:
            server.shutdown()


class _MetricsServer(ThreadingMixIn, TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 2 * MAX_CONNECTIONS

    def __init__(self, address: BindAddress, handler: type) -> None:
        self._connections: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        family, _, _, _, socket_address = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        self.address_family = family
        super().__init__(socket_address, handler)  # type: ignore[arg-type]

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Accept a connection unless MAX_CONNECTIONS are open."""
        with self._lock:
            is_free = len(self._connections) < MAX_CONNECTIONS
            if is_free:
                self._connections[request] = time.monotonic()
            return is_free

    def shutdown_request(self, request: Any) -> None:
        """Close a connection and stop counting it."""
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Close connections that have lasted too long. `serve_forever` calls this twice a second."""
        with self._lock:
            expired = [
                request
                for request, started in self._connections.items()
                if time.monotonic() - started > MAX_CONNECTION_SECONDS
            ]
        for request in expired:
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)  # its thread wakes up and closes it

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log one line for an error of ours, and nothing for a broken connection."""
        error = sys.exception()
        if not isinstance(error, OSError):
            log.warning("metrics: a scrape failed: %s: %s", type(error).__name__, error)


def _make_handler(collector: MetricsCollector) -> type:
    from prometheus_client import CollectorRegistry, MetricsHandler, ProcessCollector

    collector_registry = CollectorRegistry(auto_describe=True)
    collector_registry.register(collector)
    ProcessCollector(registry=collector_registry)

    class Handler(MetricsHandler):
        registry = collector_registry
        server_version, sys_version = "hazard-video", ""

        def do_GET(self) -> None:  # noqa: N802
            if self.path.partition("?")[0] == "/metrics":
                super().do_GET()
            else:
                self.send_error(404, "see /metrics")

    return Handler


def _bind_server(address: BindAddress, handler: type) -> _MetricsServer:
    try:
        return _MetricsServer(address, handler)
    except socket.gaierror:
        raise SettingsError(
            f"--metrics {address}: no such host; give an address of this machine, or 0.0.0.0 for all of its addresses"
        ) from None
    except OSError as error:
        reason = "the port is taken" if error.errno == errno.EADDRINUSE else (error.strerror or str(error)).lower()
        raise RuntimeEnvironmentError(
            f"--metrics {address}: {reason}; give another address with --metrics [HOST:]PORT"
        ) from None
