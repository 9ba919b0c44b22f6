"""A webhook receiver in its own process that accepts, fails, redirects, answers slowly or hangs, as its kind says."""

import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

KINDS = ("fine", "hangs", "drips", "500", "302")
SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


@contextmanager
def run_receiver(kind: str, folder: Path) -> Iterator[Path]:
    """Start a receiver of this kind, yield a file with alert settings for it, and end it after the block."""
    command = [sys.executable, __file__, kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        channel = {"kind": "webhook", "url": f"http://127.0.0.1:{process.stdout.readline().strip()}", "secret": SECRET}
        file = folder / f"{kind}.yaml"
        file.write_text(yaml.safe_dump({"alerts": {"channels": [channel]}}))
        try:
            yield file
        finally:
            process.stdin.close()  # the receiver then ends by itself


class Handler(BaseHTTPRequestHandler):
    """A handler that answers every alert in the same way."""

    kind = "fine"
    closing = threading.Event()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.kind == "hangs":
            self.closing.wait()
        elif self.kind == "drips":
            self.drip()
        else:
            self.send_response({"fine": 204}.get(self.kind) or int(self.kind))
            self.send_header("Location", "http://127.0.0.1:9/")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def drip(self) -> None:
        try:
            self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
            while not self.closing.wait(0.05):
                self.wfile.write(b"a")
        except OSError:
            self.close_connection = True

    def log_message(self, *args: object) -> None: ...


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors, because the sender is killed at its deadline."""


def main() -> None:
    Handler.kind = sys.argv[1]
    server: socketserver.BaseServer = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
    Handler.closing.set()


if __name__ == "__main__":
    main()
