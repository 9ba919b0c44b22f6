"""An RTSP camera that plays a recording with GStreamer: `/usr/bin/python3 rtsp_server.py FILE PORT`.

It needs Debian's own Python, which has GStreamer's bindings. It prints `ready PORT` when it listens. PORT 0 takes a
free port. Each client sees the recording from its start, in real time.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PIPELINE = '( filesrc location="{}" ! qtdemux ! h264parse config-interval=1 ! rtph264pay name=pay0 pt=96 )'


def main(file: str, port: str) -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PIPELINE.format(file))
    server.get_mount_points().add_factory("/camera", factory)
    server.attach(None)
    print("ready", server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:3])
