"""Where live frames come from: RTSP, HTTP (MJPEG, HLS), a device, or a file as if live.

Addresses of cameras are the operator's own settings: unlike the URLs of clips (`features.sources.urls`), they may
lead to private networks, and may carry a user name and password, which are never shown. Still, what a camera answers
can open neither files nor programs: the formats and protocols of each kind of source are listed.
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
        "fpsprobesize": "0",  # does not wait for a second of frames to learn a rate that nobody asks for
    },
    "http": {"format_whitelist": HTTP_FORMATS, "protocol_whitelist": _HTTP_PROTOCOLS, "fpsprobesize": "0"},
    "device": {"format_whitelist": "video4linux2,v4l2"},
}
_REALTIME_FORMATS = ("rtsp", "mpjpeg", "mpegts", "video4linux2", "flv")
"""Formats whose frames come when they happen; others come in pieces and are played at their own pace."""
MAX_SEGMENT_GAP_SECONDS = 15.0
"""So long an HLS stream may be silent between two pieces."""
_MAX_SLEEP_SECONDS = 0.5
_CREDENTIALS = re.compile(r"([a-z][a-z0-9+.-]*://)\S*@", re.IGNORECASE)
_SECRETS = re.compile(
    r"([?&;][^=&;\s]*(?:pass|pwd|token|key|secret|auth|user|login|sig)[^=&;\s]*=)[^&;\s]*", re.IGNORECASE
)


@dataclass(frozen=True)
class Camera:
    """What to watch. A `zone` is a polygon in shares of the picture's width and height; none: all of it."""

    name: str
    source: str = field(repr=False)  # it may hold a password
    """An address (rtsp, rtsps, http, https), the number of a device, or the path of a file."""
    zone: tuple[Corner, ...] = ()
    is_repeated: bool = False
    """Of a file: played again and again."""

    @property
    def kind(self) -> SourceKind:
        """What sort of source it is."""
        return source_kind(self.source)

    @property
    def masked_source(self) -> str:
        """The source as it may be shown."""
        return mask_credentials(self.source)


@dataclass(frozen=True)
class Timeouts:
    """How long a source may keep silent."""

    open_seconds: float = 5.0
    read_seconds: float = 5.0
    hang_seconds: float = 30.0
    """A reader that shows no sign of life for so long, although the deadlines above are over, is killed."""


DEFAULT_TIMEOUTS = Timeouts()


@dataclass(frozen=True)
class TimedFrame:
    """A frame as it came. A `session` is a stretch without a break in the stream's own time."""

    frame: VideoFrame
    seconds: float  # since the session's first frame
    duration: float  # seconds
    wall: float  # seconds since 1970
    arrived: float  # by the monotonic clock
    is_first: bool  # of its session


class SourceLost(Exception):
    """A source that ended, broke or keeps silent. Its text may be shown."""


def source_kind(source: str) -> SourceKind:
    """What sort of source a text names. Raises SettingsError for an address of another scheme."""
    if source.isascii() and source.isdigit():
        return "device"
    scheme = source.partition("://")[0].lower() if "://" in source else ""
    if scheme in ("rtsp", "rtsps"):
        return "rtsp"
    if scheme in ("http", "https"):
        return "http"
    if scheme:
        raise SettingsError(
            f"source {mask_credentials(source)}: expected rtsp, rtsps, http or https, a device's number or a file, got "
            f"the scheme '{scheme}'"
        )
    return "file"


def mask_credentials(text: str) -> str:
    """A text without the user names and passwords of its addresses; it rather hides too much."""
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
    """The frames of one connection as they come, or of a file, where `is_paced` as if it happened now.

    `beat` is called whenever anything comes; `skipped` for each packet that is passed over to catch up; `keeper` has
    all packets pass. A file ends; for anything else SourceLost is raised at the end, and for what cannot be opened.
    """
    last = time.monotonic()

    def alive() -> None:
        nonlocal last
        last = time.monotonic()
        report_alive()

    try:
        with _open_source(camera, timeouts) as (container, stream):
            for _ in count() if camera.is_repeated else (0,):
                yield from _play_once(
                    camera,
                    container,
                    stream,
                    is_paced=is_paced,
                    report_alive=alive,
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
        raise SourceLost(_describe_error(error, time.monotonic() - last, timeouts)) from None


@contextmanager
def _open_source(camera: Camera, timeouts: Timeouts) -> Iterator[tuple[InputContainer, VideoStream]]:
    kind = camera.kind
    if kind == "file":
        with open_video(Path(camera.source)) as opened:
            yield opened
        return
    source = f"/dev/video{int(camera.source)}" if kind == "device" else camera.source
    is_in_pieces = kind == "http" and urlsplit(source).path.lower().endswith(".m3u8")
    read_seconds = max(timeouts.read_seconds, MAX_SEGMENT_GAP_SECONDS) if is_in_pieces else timeouts.read_seconds
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
        stream.codec_context.thread_count, stream.codec_context.thread_type = 1, "NONE"  # threads hold frames back
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
    is_immediate = not is_file and container.format.name.startswith(_REALTIME_FORMATS)
    catch_up = CatchUp() if is_immediate and not is_timeless else None
    kept = packet_tap.pass_through(packets, stream, by_arrival=is_timeless)
    frames = _decode_packets(
        kept, stream, report_alive, lambda packet: catch_up is not None and _is_late(packet, catch_up), on_skip
    )
    jump = math.inf if is_file else MAX_TIME_JUMP_SECONDS
    timed = _add_times(frames, by_arrival=is_timeless, jump_seconds=jump)
    yield from _pace_frames(timed, report_alive) if is_paced and not is_immediate else timed


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
    """The sound frames; after packets that were passed over from a fresh start."""
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
        except av.error.InvalidDataError:  # damage, or what came before the first keyframe
            continue


def _add_times(frames: Iterable[VideoFrame], *, by_arrival: bool, jump_seconds: float) -> Iterator[TimedFrame]:
    """Frames with their times; those out of order, or without a time, are left out."""
    origin = last = math.nan
    for frame in frames:
        arrived, wall = time.monotonic(), time.time()
        at = arrived if by_arrival else frame.time
        if at is None:
            continue
        is_first = not last - 1.0 <= at <= last + jump_seconds if math.isfinite(jump_seconds) else math.isnan(last)
        if not is_first and at <= last:
            continue
        origin = at if is_first else origin
        last = at
        lasts = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        yield TimedFrame(frame, at - origin, lasts, wall, arrived, is_first)


def _pace_frames(frames: Iterable[TimedFrame], report_alive: Callable[[], None]) -> Iterator[TimedFrame]:
    """Each moment when it is due, counted from the first of its session."""
    began = 0.0
    for moment in frames:
        began = time.monotonic() if moment.is_first else began
        while (ahead := began + moment.seconds - time.monotonic()) > 0:
            report_alive()
            time.sleep(min(ahead, _MAX_SLEEP_SECONDS))
        yield replace(moment, arrived=time.monotonic(), wall=time.time())


def _describe_error(error: Exception, silent_seconds: float, timeouts: Timeouts) -> str:
    """Why a source is lost. FFmpeg calls a deadline `immediate exit`, or, of RTSP, invalid data."""
    if isinstance(error, (av.error.ExitError, av.error.InvalidDataError)) and silent_seconds >= 0.9 * min(
        timeouts.open_seconds, timeouts.read_seconds
    ):
        return f"silent for {silent_seconds:.0f} s"
    return mask_credentials(str(getattr(error, "strerror", None) or error).splitlines()[0])
