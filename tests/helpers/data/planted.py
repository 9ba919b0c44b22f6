"""A folder of files with every kind of fault, and workers that hang or crash."""

import ctypes
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from features.extraction.jobs import ExtractJob
from tests.helpers.data.videos import (
    flip_bits,
    make_fifo,
    numbered_frame,
    overwrite,
    truncate,
    write_audio_only,
    write_no_frames,
    write_numbered,
    write_textured,
)

FASTSTART = {"movflags": "faststart"}
ODD_NAMES = [b"new\nline.mp4", "größe: 日本.mp4".encode(), b"\xff\xfe.mp4", b"a:b\\c%s{}.mp4", b"-o.mp4", b"'$(x)`.mp4"]


def write_faulty_files(folder: Path) -> None:
    """Write one file for each fault, named after its row in the table of faults."""
    good = write_numbered(folder / "good.mp4", 12)
    (folder / "01 zero.mp4").touch()
    (folder / "02 text.mp4").write_text("this is no video\n" * 50)
    (folder / "02 noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    cv2.imwrite(str(folder / "image.png"), numbered_frame(1))
    (folder / "image.png").rename(folder / "03 image.mp4")
    cv2.imwrite(str(folder / "image.jpg"), numbered_frame(1))
    (folder / "image.jpg").rename(folder / "03 image.avi")
    truncate(write_textured(folder / "04 no index.mp4", 50), 0.9)
    for suffix in ("mp4", "mkv", "avi"):
        options = FASTSTART if suffix == "mp4" else {}
        for share in (0.8, 0.4):
            truncate(write_textured(folder / f"05 {share}.{suffix}", 100, container_options=options), share)
        overwrite(write_textured(folder / f"06.{suffix}", 100), 0.45, 0.55)
    flip_bits(write_textured(folder / "07 few.mp4", 250), 6)
    flip_bits(write_textured(folder / "07 many.mp4", 250), 200)
    write_audio_only(folder / "08.mp4")
    write_no_frames(folder / "09.avi")
    write_no_frames(folder / "09.mp4")
    write_numbered(folder / "10.mp4", 1)
    make_fifo(folder / "16 pipe.mp4")
    (folder / "16 device.mp4").symlink_to("/dev/zero")
    (folder / "16 gone.mp4").symlink_to(folder / "nothing")
    (folder / "16 folder.mp4").mkdir()
    with socket.socket(socket.AF_UNIX) as listener, chdir(folder):
        listener.bind("16 socket.mp4")
    for i, name in enumerate(ODD_NAMES):
        os.link(good, os.fsencode(folder) + b"/36 " + name) if i else shutil.copy(good, folder / f"36 {name.decode()}")


@contextmanager
def chdir(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class MisbehavingExtractJob(ExtractJob):
    """An extraction job that hangs or crashes on clips with "hang" or "crash" in their name."""

    def start(self) -> Callable:
        work = super().start()

        def misbehave(clip, alive):  # type: ignore[no-untyped-def]
            if "hang" in clip.path:
                time.sleep(600)
            if "crash" in clip.path:
                os.kill(os.getpid(), signal.SIGSEGV)
            return work(clip, alive)

        return misbehave


PLAYLISTS = {
    "ffconcat": "ffconcat version 1.0\nfile canary.bin\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\ncanary.bin\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD type="static" mediaPresentationDuration="PT2S"><Period><AdaptationSet '
    'mimeType="video/mp4"><Representation id="0" bandwidth="1"><BaseURL>canary.bin</BaseURL><SegmentBase/>'
    "</Representation></AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
}


@contextmanager
def detect_opening(path: Path) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether any process opened the file since the block began."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):
        pytest.skip("needs inotify (Linux)")
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(descriptor, os.fsencode(path), 0x20) >= 0  # IN_OPEN

    def was_opened() -> bool:
        try:
            return bool(os.read(descriptor, 4096))
        except BlockingIOError:
            return False

    try:
        yield was_opened
    finally:
        os.close(descriptor)
