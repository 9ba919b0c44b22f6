"""Fixtures for tests of live cameras."""

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import cv2
import pytest

from tests.helpers.data.videos import numbered_frame
from tests.helpers.servers.local_http import serve


@pytest.fixture
def motion_jpeg() -> Iterator[str]:
    """URL of a camera that sends numbered JPEGs, about ten a second, and needs a password."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") is None:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for number in range(400):
                jpeg = cv2.imencode(".jpg", numbered_frame(number))[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                try:
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                except OSError:
                    return
                time.sleep(0.1)

        def log_message(self, *_: object) -> None: ...

    with serve(Handler) as url:
        yield url.replace("//", "//guard:s3cret@") + "/video"
