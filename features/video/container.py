"""Opening of video files: the formats that are accepted, the largest frame, and the checks before decoding."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from features.errors import ClipError
from features.video.timeline import SEEKABLE_FORMATS

ALLOWED_FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,mpegvideo,h264,hevc,m4v,mxf,dv,ivf,rm"
"""The FFmpeg demuxers that may open a file. Playlists, which read other files, and single images are left out."""

MAX_FRAME_PIXELS = 8192 * 8192
"""Pixels of the largest frame that is decoded, about 200 MB as RGB."""


def check_video(file: Path) -> None:
    """Check that a file is a video. Raises ClipError if it is not."""
    with open_container(file):
        pass


@contextmanager
def open_video(file: Path, *, max_pixels: int = MAX_FRAME_PIXELS) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its first video stream with the checks of `read_frames`, for playback. Raises ClipError."""
    check_regular_file(file)
    with open_container(file, max_pixels=max_pixels) as (container, stream):
        check_frame_size(stream, max_pixels)
        yield container, stream


def check_regular_file(file: Path) -> int:
    """Return the size of a regular file in bytes. Raises ClipError if it is not a regular file or is empty."""
    try:
        status = os.stat(file)
    except OSError as error:
        raise ClipError("open", error.strerror or str(error)) from None
    if not stat.S_ISREG(status.st_mode):
        raise ClipError("open", "not a regular file")
    if status.st_size == 0:
        raise ClipError("open", "empty file")
    return status.st_size


def check_frame_size(stream: VideoStream, max_pixels: int) -> None:
    """Check the frame size in the header. Raises ClipError if it is larger than `max_pixels`."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > max_pixels:
        raise ClipError("open", f"frame too large: {width}x{height}, at most {max_pixels / 1e6:.0f} megapixels")


def can_skip_probing(container: InputContainer, stream: VideoStream) -> bool:
    """Return whether the container's header holds all that probing would find out."""
    return container.format.name.startswith(SEEKABLE_FORMATS) and stream.codec_context.width > 0


@contextmanager
def open_container(
    file: Path, *, is_probed: bool = True, max_pixels: int = MAX_FRAME_PIXELS
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its first video stream. Raises ClipError if FFmpeg cannot open it as a video.

    Probing decodes up to twenty frames, which is a large part of the work for a short clip.
    """
    options = {"format_whitelist": ALLOWED_FORMATS, "protocol_whitelist": "file"}
    if not is_probed:
        options["codec_whitelist"] = "none"  # affects only the probing, not the stream's own decoder
    try:
        container = av.open(os.path.abspath(file), options=options, metadata_errors="replace")
    except PermissionError:
        raise ClipError("open", "permission denied") from None
    except (av.error.FFmpegError, ValueError) as error:
        raise ClipError("open", f"not a video, or damaged ({_format_error(error)})") from None
    with container:
        if not container.streams.video:
            raise ClipError("open", "no video stream")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.options = {"max_pixels": str(max_pixels)}  # frames may be larger than the header says
        yield container, stream


def _format_error(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
