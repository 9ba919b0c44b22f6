"""Videos and cameras that show clearly when an event happens, and a model that always recognises it."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import cv2
import numpy as np

from features.cli.extract import extract_features
from hazard.cli.train import train_temporal

SIZE = (160, 120)  # width, height
RATE = 10
CALM, ALARM = False, True


def draw_picture(number: int, is_alarming: bool) -> np.ndarray:
    """Return a frame (H, W, 3): a dim gradient, or a bright chessboard whose squares swap if it is alarming."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    if not is_alarming:
        return np.repeat((40 + x // 4 + number % 5)[..., None], 3, axis=2).astype(np.uint8)
    board = ((x // 20 + y // 20 + number) % 2)[..., None] * np.array([255, 220, 60])
    return board.astype(np.uint8)


def write_pictures(path: Path, alarms: Sequence[bool]) -> Path:
    """Write a video of ten frames per second. `alarms` says for each frame whether it is alarming."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE)
        stream.codec_context.thread_count = 1
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = *SIZE, "yuv420p", RATE
        stream.max_b_frames = 0
        for number, is_alarming in enumerate(alarms):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(draw_picture(number, is_alarming), format="rgb24")))
        file.mux(stream.encode(None))
    return path


def write_recording(path: Path, events: Sequence[tuple[float, float]], *, start: float, end: float) -> Path:
    """Write what a camera shows from second `start` to `end`, alarming in each (start, end) of `events`."""
    times = np.arange(round(start * RATE), round(end * RATE)) / RATE
    return write_pictures(path, [any(a <= time < b for a, b in events) for time in times])


def train_alarm_model(folder: Path) -> Path:
    """Train a model that tells calm from alarming windows of one second, and return its folder."""
    for number in range(12):
        for label, is_alarming in (("normal", CALM), ("hazardous", ALARM)):
            (folder / "clips" / label).mkdir(parents=True, exist_ok=True)
            file = folder / "clips" / label / f"scene{number % 4}_{number}.mp4"
            write_pictures(file, [is_alarming] * RATE)
    arguments = [folder / "clips", "-o", folder / "c.h5", "--weights", "random", "--frames", 4, "--runtime", "torch"]
    assert extract_features.main([str(a) for a in arguments], standalone_mode=False) == 0
    arguments = [folder / "c.h5", "-o", folder / "model", "--baseline", "ridge"]
    assert train_temporal.main([str(a) for a in arguments], standalone_mode=False) == 0
    return folder / "model"


@dataclass
class ClockCamera:
    """A motion-JPEG camera in real time, alarming in each (start, end) of the monotonic clock."""

    url: str = ""
    events: list[tuple[float, float]] = field(default_factory=list)
    connections: list[tuple[float, float]] = field(default_factory=list)
    """(start, end) of each connection on the monotonic clock."""

    def is_alarming(self, now: float) -> bool:
        return any(start <= now < end for start, end in self.events)


@contextmanager
def clock_camera() -> Iterator[ClockCamera]:
    camera = ClockCamera()
    closing = threading.Event()
    jpegs = {
        kind: [cv2.imencode(".jpg", draw_picture(number, kind)[..., ::-1])[1].tobytes() for number in range(10)]
        for kind in (CALM, ALARM)
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            began, number = time.monotonic(), 0
            try:
                while not closing.wait(1 / RATE):
                    number += 1
                    jpeg = jpegs[camera.is_alarming(time.monotonic())][number % 10]
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
            except OSError:
                pass
            finally:
                camera.connections.append((began, time.monotonic()))

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    camera.url = f"http://127.0.0.1:{server.server_port}/video"
    try:
        yield camera
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
