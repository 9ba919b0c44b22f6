"""A camera that speaks RTSP, for tests: GStreamer's server, fed with a recording, that may be killed at any moment."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

PYTHON = "/usr/bin/python3"
"""Debian's own, which has GStreamer's bindings."""
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
    """Whether this machine has GStreamer's RTSP server and what it takes to play H.264 out of an MP4 file."""
    try:
        return subprocess.run([PYTHON, "-c", _PROBE], capture_output=True, timeout=60).returncode == 0
    except OSError:
        return False


class RtspCamera:
    """One server that plays a recording to whoever connects, from its start, at its own pace."""

    def __init__(self, recording: Path, *, port: int = 0) -> None:
        self.recording, self.port = recording, port
        self._process: subprocess.Popen[str] | None = None
        self.start()

    @property
    def address(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/camera"

    def start(self) -> None:
        """Listens, from the second time on at the port of the first."""
        self._process = subprocess.Popen(
            [PYTHON, str(_SERVER), str(self.recording.absolute()), str(self.port)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout
        self.port = int(self._process.stdout.readline().split()[1])

    def kill(self) -> None:
        """Gone at once, as after a power cut."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None


@contextmanager
def rtsp_camera(recording: Path) -> Iterator[RtspCamera]:
    """A camera that is gone when the block ends."""
    camera = RtspCamera(recording)
    try:
        yield camera
    finally:
        camera.kill()


@contextmanager
def silent_server() -> Iterator[int]:
    """The port of a server that accepts connections and never says a word."""
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
