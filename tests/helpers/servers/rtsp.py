"""An RTSP camera for tests: GStreamer's server plays a recording and can be killed at any moment."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

PYTHON = "/usr/bin/python3"
"""Debian's own Python, which has GStreamer's bindings."""
PACKAGES = "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
MISSING = f"needs GStreamer's RTSP server (Debian: the packages {PACKAGES})"
_SERVER = Path(__file__).parent / "rtsp_server.py"
_PROBE = (
    "import gi; gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0');"
    "from gi.repository import Gst, GstRtspServer; Gst.init(None);"
    "assert all(map(Gst.ElementFactory.find, ('qtdemux', 'h264parse', 'rtph264pay')))"
)


@cache
def has_server() -> bool:
    """Return whether GStreamer's RTSP server and its elements for H.264 in MP4 files are installed."""
    try:
        return subprocess.run([PYTHON, "-c", _PROBE], capture_output=True, timeout=60).returncode == 0
    except OSError:
        return False


class RtspCamera:
    """A server that plays a recording from its start, in real time, to each client."""

    def __init__(self, recording: Path, *, port: int = 0) -> None:
        self.recording, self.port = recording, port
        self._process: subprocess.Popen[str] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/camera"

    def start(self) -> None:
        """Start the server. Every later start uses the port of the first."""
        self._process = subprocess.Popen(
            [PYTHON, str(_SERVER), str(self.recording.absolute()), str(self.port)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout
        self.port = int(self._process.stdout.readline().split()[1])

    def kill(self) -> None:
        """Kill the server at once, as a power cut would."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None


@contextmanager
def rtsp_camera(recording: Path) -> Iterator[RtspCamera]:
    """Start a camera and kill it when the block ends."""
    camera = RtspCamera(recording)
    try:
        yield camera
    finally:
        camera.kill()


@contextmanager
def silent_server() -> Iterator[int]:
    """Yield the port of a server that accepts connections and never sends anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    held.append(listening.accept()[0])
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listening.getsockname()[1]
        finally:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            for one in held:
                one.close()
