"""Reads timed frames from live sources: RTSP, HTTP (MJPEG, HLS), a device, or a file played as if live.

The URLs of cameras are the operator's own settings. Unlike the URLs of clips (`features.sources.urls`) they may lead to
private networks, and they may hold a user name and password, which are never shown. The answer of a camera still cannot
open files or programs: only the listed formats and protocols are allowed for each kind of source.
"""

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import av
import av.error
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from features.errors import ClipError, SettingsError
from features.live.pacing import MAX_TIME_JUMP_SECONDS, CatchUp
from features.live.packet_buffer import PacketTap
from features.video.container import ALLOWED_FORMATS, MAX_FRAME_PIXELS, open_video
from features.video.preprocess import Corner
from features.video.timeline import iterate_until_error

SourceKind = Literal["rtsp", "http", "device", "file"]

HTTP_FORMATS = f"{ALLOWED_FORMATS},hls,mpjpeg,aac,webvtt"
_HTTP_PROTOCOLS = "http,https,httpproxy,tcp,tls,crypto"
_OPEN_OPTIONS: dict[str, dict[str, str]] = {
    "rtsp": {
        "format_whitelist": "rtsp",
        "protocol_whitelist": "rtsp,rtsps,rtp,srtp,tcp,tls,http,https",
        "rtsp_transport": "tcp",
        "allowed_media_types": "video",
        "fpsprobesize": "0",  # do not wait for a second of frames to measure the unused frame rate
    },
    "http": {"format_whitelist": HTTP_FORMATS, "protocol_whitelist": _HTTP_PROTOCOLS, "fpsprobesize": "0"},
    "device": {"format_whitelist": "video4linux2,v4l2"},
}
_REALTIME_FORMATS = ("rtsp", "mpjpeg", "mpegts", "video4linux2", "flv")
"""Formats that deliver frames in real time. Other formats arrive in segments, which are played at their own pace."""
MAX_SEGMENT_GAP_SECONDS = 15.0
"""Longest silence of an HLS stream between two segments."""
_MAX_SLEEP_SECONDS = 0.5
_CREDENTIALS = re.compile(r"([a-z][a-z0-9+.-]*://)\S*@", re.IGNORECASE)
_SECRETS = re.compile(
    r"([?&;][^=&;\s]*(?:pass|pwd|token|key|secret|auth|user|login|sig)[^=&;\s]*=)[^&;\s]*", re.IGNORECASE
)


@dataclass(frozen=True)
class Camera:
    """A camera to read.

    A `zone` is a polygon in fractions of the frame's width and height. An empty zone means the whole frame.
    """

    name: str
    source: str = field(repr=False)  # it may hold a password
    """A URL (rtsp, rtsps, http, https), a device number, or a file path."""
    zone: tuple[Corner, ...] = ()
    is_repeated: bool = False
    """True to play a file again and again."""

    @property
    def kind(self) -> SourceKind:
        """Kind of the source."""
        return source_kind(self.source)

    @property
    def masked_source(self) -> str:
        """The source without user name and password, safe to show."""
        return mask_credentials(self.source)


@dataclass(frozen=True)
class Timeouts:
    """How long a source or its reader may be silent."""

    open_seconds: float = 5.0
    read_seconds: float = 5.0
    hang_seconds: float = 30.0
    """A reader process without a sign of life for this long is killed. The timeouts above should expire first."""


DEFAULT_TIMEOUTS = Timeouts()


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame with its times. A `session` is a stretch of the stream's own time without a break."""

    frame: VideoFrame
    seconds: float  # since the session's first frame
    duration: float  # seconds
    wall: float  # seconds since 1970
    arrived: float  # by the monotonic clock
    is_first: bool  # of its session


class SourceLost(Exception):
    """Raised when a source ends, fails or stays silent. Its text holds no passwords."""


def source_kind(source: str) -> SourceKind:
    """Return the kind of a source. Raises SettingsError if its URL scheme is not supported."""
    if source.isascii() and source.isdigit():
        return "device"
    scheme = source.partition("://")[0].lower() if "://" in source else ""
    if scheme in ("rtsp", "rtsps"):
        return "rtsp"
    if scheme in ("http", "https"):
        return "http"
    if scheme:
        raise SettingsError(
            f"source {mask_credentials(source)}: expected rtsp, rtsps, http, https, a device number or a file path, "
            f"got the scheme '{scheme}'"
        )
    return "file"


def mask_credentials(text: str) -> str:
    """Replace user names and passwords in the URLs of a text. It hides too much rather than too little."""
    return _SECRETS.sub(r"\1***", _CREDENTIALS.sub(r"\1***@", text))


def read_timed_frames(
    camera: Camera,
    *,
    timeouts: Timeouts,
    is_paced: bool,
    report_alive: Callable[[], None],
    on_skip: Callable[[], object],
    packet_tap: PacketTap,
) -> Iterator[TimedFrame]:
    """Yield the frames of one connection as they arrive, or of a file: with `is_paced` at the speed of its own time.

    `report_alive` is called whenever data arrives, `on_skip` for each packet that is skipped to catch up. All packets
    pass through `packet_tap`. A file simply ends. Raises SourceLost if the source cannot be opened, and when any other
    kind of source ends.
    """
    last_data_at = time.monotonic()

    def on_data() -> None:
        nonlocal last_data_at
        last_data_at = time.monotonic()
        report_alive()

    try:
        with _open_source(camera, timeouts) as (container, stream):
            for _ in count() if camera.is_repeated else (0,):
                yield from _play_once(
                    camera,
                    container,
                    stream,
                    is_paced=is_paced,
                    report_alive=on_data,
                    on_skip=on_skip,
                    packet_tap=packet_tap,
                )
                if camera.kind != "file":
                    raise SourceLost("the stream ended")
                if camera.is_repeated:
                    container.seek(0)
    except ClipError as error:
        raise SourceLost(error.reason) from None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise SourceLost(_describe_error(error, time.monotonic() - last_data_at, timeouts)) from None


@contextmanager
def _open_source(camera: Camera, timeouts: Timeouts) -> Iterator[tuple[InputContainer, VideoStream]]:
    kind = camera.kind
    if kind == "file":
        with open_video(Path(camera.source)) as opened:
            yield opened
        return
    source = f"/dev/video{int(camera.source)}" if kind == "device" else camera.source
    is_segmented = kind == "http" and urlsplit(source).path.lower().endswith(".m3u8")
    read_seconds = max(timeouts.read_seconds, MAX_SEGMENT_GAP_SECONDS) if is_segmented else timeouts.read_seconds
    with av.open(
        source,
        format="v4l2" if kind == "device" else None,
        options=_OPEN_OPTIONS[kind],
        timeout=(timeouts.open_seconds, read_seconds),
        metadata_errors="replace",
    ) as container:
        if not container.streams.video:
            raise ClipError("open", "no video stream")
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.codec_context.thread_type = 1, "NONE"  # decoder threads delay frames
        stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
        yield container, stream


def _play_once(
    camera: Camera,
    container: InputContainer,
    stream: VideoStream,
    *,
    is_paced: bool,
    report_alive: Callable[[], None],
    on_skip: Callable[[], object],
    packet_tap: PacketTap,
) -> Iterator[TimedFrame]:
    is_file, is_timeless = camera.kind == "file", container.format.name == "mpjpeg"
    packets = iterate_until_error(container.demux(stream)) if is_file else container.demux(stream)
    is_realtime = not is_file and container.format.name.startswith(_REALTIME_FORMATS)
    catch_up = CatchUp() if is_realtime and not is_timeless else None
    tapped = packet_tap.pass_through(packets, stream, by_arrival=is_timeless)
    frames = _decode_packets(
        tapped, stream, report_alive, lambda packet: catch_up is not None and _is_late(packet, catch_up), on_skip
    )
    jump = math.inf if is_file else MAX_TIME_JUMP_SECONDS
    timed = _add_times(frames, by_arrival=is_timeless, jump_seconds=jump)
    yield from _pace_frames(timed, report_alive) if is_paced and not is_realtime else timed


def _is_late(packet: av.Packet, catch_up: CatchUp) -> bool:
    if packet.dts is None or packet.time_base is None:
        return False
    return catch_up.should_skip(float(packet.dts * packet.time_base), time.monotonic(), is_keyframe=packet.is_keyframe)


def _decode_packets(
    packets: Iterable[av.Packet],
    stream: VideoStream,
    report_alive: Callable[[], None],
    is_late: Callable[[av.Packet], bool],
    on_skip: Callable[[], object],
) -> Iterator[VideoFrame]:
    """Yield the undamaged frames. The decoder is flushed after packets were skipped."""
    is_fresh = True
    for packet in packets:
        report_alive()
        if packet.size and is_late(packet):
            on_skip()
            is_fresh = False
            continue
        if not is_fresh:
            stream.codec_context.flush_buffers()
            is_fresh = True
        try:
            yield from (frame for frame in stream.decode(packet) if not frame.is_corrupt)
        except av.error.InvalidDataError:  # damaged, or before the first keyframe
            continue


def _add_times(frames: Iterable[VideoFrame], *, by_arrival: bool, jump_seconds: float) -> Iterator[TimedFrame]:
    """Yield frames with their times. Frames without a time, or out of order, are left out."""
    origin = last = math.nan
    for frame in frames:
        arrived, wall = time.monotonic(), time.time()
        seconds = arrived if by_arrival else frame.time
        if seconds is None:
            continue
        is_first = not last - 1.0 <= seconds <= last + jump_seconds if math.isfinite(jump_seconds) else math.isnan(last)
        if not is_first and seconds <= last:
            continue
        origin = seconds if is_first else origin
        last = seconds
        duration = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        yield TimedFrame(frame, seconds - origin, duration, wall, arrived, is_first)


def _pace_frames(frames: Iterable[TimedFrame], report_alive: Callable[[], None]) -> Iterator[TimedFrame]:
    """Yield each frame when it is due, counted from the first frame of its session."""
    started_at = 0.0
    for timed_frame in frames:
        started_at = time.monotonic() if timed_frame.is_first else started_at
        while (wait_seconds := started_at + timed_frame.seconds - time.monotonic()) > 0:
            report_alive()
            time.sleep(min(wait_seconds, _MAX_SLEEP_SECONDS))
        yield replace(timed_frame, arrived=time.monotonic(), wall=time.time())


def _describe_error(error: Exception, silent_seconds: float, timeouts: Timeouts) -> str:
    """Return why a source was lost.

    When a timeout expires, FFmpeg reports `immediate exit` or, for RTSP, invalid data.
    """
    if isinstance(error, (av.error.ExitError, av.error.InvalidDataError)) and silent_seconds >= 0.9 * min(
        timeouts.open_seconds, timeouts.read_seconds
    ):
        return f"silent for {silent_seconds:.0f} s"
    return mask_credentials(str(getattr(error, "strerror", None) or error).splitlines()[0])
