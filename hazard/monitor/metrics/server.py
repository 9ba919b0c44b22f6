"""`/metrics` over HTTP, for Prometheus.

Scrapes are answered by threads of their own. A scraper that is slow, hangs or comes too often costs watching nothing:
few are answered at once, and each connection ends after some seconds.
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
"""Connections; more are closed unanswered."""
MAX_CONNECTION_SECONDS = 10.0
"""A connection that lasts longer is closed, whatever it is doing."""

log = logging.getLogger(__name__)


@contextmanager
def serve_metrics(collector: MetricsCollector, address: BindAddress) -> Iterator[str]:
    """Serves /metrics while the block runs; gives its URL, of port 0 with the port that was found free.

    Raises SettingsError without the package and for an unknown host, EnvironmentStopped where nothing can listen there.
    """
    if find_spec("prometheus_client") is None:
        raise SettingsError("--metrics needs prometheus-client: pip install 'hazard-video[metrics]'")
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
        family, _, _, _, place = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        self.address_family = family
        super().__init__(place, handler)  # type: ignore[arg-type]

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuses more than a few at once."""
        with self._lock:
            is_free = len(self._connections) < MAX_CONNECTIONS
            if is_free:
                self._connections[request] = time.monotonic()
            return is_free

    def shutdown_request(self, request: Any) -> None:
        """The end of a connection."""
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Twice a second: connections that last too long are ended."""
        with self._lock:
            late = [
                one for one, began in self._connections.items() if time.monotonic() - began > MAX_CONNECTION_SECONDS
            ]
        for request in late:
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)  # its thread wakes up and closes it

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Of a connection that breaks nothing is said; of what goes wrong here, one line."""
        error = sys.exception()
        if not isinstance(error, OSError):
            log.warning("metrics: a scrape failed: %s: %s", type(error).__name__, error)


def _make_handler(collector: MetricsCollector) -> type:
    from prometheus_client import CollectorRegistry, MetricsHandler, ProcessCollector

    own = CollectorRegistry(auto_describe=True)
    own.register(collector)
    ProcessCollector(registry=own)

    class Handler(MetricsHandler):
        registry = own
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
        raise SettingsError(f"--metrics {address}: no such host; give an address of this machine, or 0.0.0.0") from None
    except OSError as error:
        said = "the port is taken" if error.errno == errno.EADDRINUSE else (error.strerror or str(error)).lower()
        raise RuntimeEnvironmentError(f"--metrics {address}: {said}; give another with --metrics [HOST:]PORT") from None
