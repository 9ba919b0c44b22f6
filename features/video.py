"""The only decoder: a video file to preprocessed frames, exact by timestamp."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from features.errors import ClipError
from features.sampling import select
from features.spec import Sampling
from features.types import FrameBatch

FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,mpegvideo,h264,hevc,m4v,mxf,dv,ivf,rm"
"""Demuxers that may open a file. The list keeps out playlists, which read other files, and lone images."""

MAX_PIXELS = 8192 * 8192
"""The largest frame that is decoded: about 200 MB as RGB."""

MIN_DECODED_SHARE = 0.5
"""A clip of which less can be decoded is a failure, not a partial clip."""

Image = NDArray[np.uint8]  # (H, W, 3) RGB


def read_frames(
    file: Path,
    sampling: Sampling,
    prepare: Callable[[Image], Image],
    *,
    picture: Callable[[Image], bytes] = lambda image: b"",
    max_pixels: int = MAX_PIXELS,
    alive: Callable[[], None] = lambda: None,
) -> FrameBatch:
    """Decodes a file sequentially and keeps the frames that `sampling` picks, each put through `prepare` and `picture`.

    The picks are made on the packets' timestamps; where the decoder then gives other frames than the packets promised
    (damage, missing timestamps), they are made again on what was decoded. Time 0 is the first frame. `alive` is called
    for every decoded frame. Raises ClipError where the file is no video or under half of it can be decoded.
    """
    _check_regular(file)
    promise = _promise(file, max_pixels)
    reader = _Reader(file, lambda image: (prepare(image), picture(image)), alive)
    by_time = _by_time if len(promise.ticks) else _by_order
    decoded = reader.decode(promise.pick(sampling), name=by_time)
    if not decoded.ticks:
        raise ClipError("decode", "no frame could be decoded")
    share = promise.share(len(decoded.ticks))
    if share < MIN_DECODED_SHARE:
        raise ClipError("decode", f"only {share:.0%} of the video could be decoded, {MIN_DECODED_SHARE:.0%} are needed")
    actual = promise.replaced_by(decoded.ticks)
    wanted = actual.pick(sampling)
    order = sorted(decoded.ticks)
    if not _ascend(decoded.ticks):  # AVI with B-frames: the order is right, the timestamps are not
        decoded = reader.decode(wanted, name=lambda frame, count: int(order[count]))
    elif missing := wanted - decoded.images.keys():
        again = reader.decode(missing, name=by_time)
        decoded = replace(again, images=decoded.images | again.images)
    kept = sorted(wanted & decoded.images.keys())
    return FrameBatch(
        data=np.stack([decoded.images[tick][0] for tick in kept]),  # (N, S, S, 3)
        times=actual.seconds(np.array(kept)),
        duration=actual.duration,
        size=decoded.size,
        decoded_share=share,
        pictures=tuple(decoded.images[tick][1] for tick in kept),
    )


@dataclass(frozen=True)
class _Timeline:
    """The presentation timestamps of a stream, in ticks of its time base."""

    ticks: NDArray[np.int64]  # (N,) ascending
    tick_seconds: float
    last_seconds: float  # how long the last frame is shown
    covered: float = 1.0  # how much of the duration that the header declares has packets

    @property
    def duration(self) -> float:
        return float(self.ticks[-1] - self.ticks[0]) * self.tick_seconds + self.last_seconds if len(self.ticks) else 0.0

    def seconds(self, ticks: NDArray[np.int64]) -> NDArray[np.float64]:
        return (ticks - self.ticks[0]) * self.tick_seconds

    def pick(self, sampling: Sampling) -> set[int]:
        if not len(self.ticks):
            return set()
        return set(self.ticks[select(self.seconds(self.ticks), self.duration, sampling)].tolist())

    def share(self, decoded: int) -> float:
        """Decoded frames over those that the file should hold, missing packets included."""
        return self.covered * (min(1.0, decoded / len(self.ticks)) if len(self.ticks) else 1.0)

    def replaced_by(self, ticks: list[int]) -> "_Timeline":
        return _Timeline(np.unique(np.array(ticks, np.int64)), self.tick_seconds, self.last_seconds)


@dataclass
class _Decoded:
    images: dict[int, tuple[Image, bytes]] = field(default_factory=dict)
    ticks: list[int] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)


def _by_time(frame: VideoFrame, count: int) -> int:
    return frame.pts if frame.pts is not None else -1


def _by_order(frame: VideoFrame, count: int) -> int:
    return count


def _ascend(ticks: list[int]) -> bool:
    return all(a < b for a, b in pairwise(ticks))


def _check_regular(file: Path) -> None:
    try:
        status = os.stat(file)
    except OSError as error:
        raise ClipError("open", error.strerror or str(error)) from None
    if not stat.S_ISREG(status.st_mode):
        raise ClipError("open", "not a regular file")
    if status.st_size == 0:
        raise ClipError("open", "empty file")


@contextmanager
def _opened(file: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:
        container = av.open(os.path.abspath(file), options=options, metadata_errors="replace")
    except PermissionError:
        raise ClipError("open", "permission denied") from None
    except (av.error.FFmpegError, ValueError) as error:
        raise ClipError("open", f"not a video, or damaged ({_said(error)})") from None
    with container:
        if not container.streams.video:
            raise ClipError("open", "no video stream")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        yield container, stream


def _promise(file: Path, max_pixels: int) -> _Timeline:
    """The timeline that the packets promise, without decoding; empty where packets carry no presentation times."""
    packets, end_seconds = [], 0.0
    with _opened(file) as (container, stream):
        _check_size(stream, max_pixels)
        for packet in _until_error(container.demux()):
            if packet.size and packet.pts is not None:
                end_seconds = max(end_seconds, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.size and packet.stream_index == stream.index and not packet.is_discard:
                packets.append((packet.pts, packet.duration or 0))
        tick_seconds = float(stream.time_base or 0) or 1e-6
        start_seconds = (container.start_time or 0) / av.time_base
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        declared = (container.duration or 0) / av.time_base, (stream.duration or 0) * tick_seconds
        if container.format.name == "avi":  # FFmpeg shrinks the durations of a cut AVI, not its count of frames
            declared = declared[0], stream.frames / rate
    timed = sorted((pts, ticks) for pts, ticks in packets if pts is not None)
    if not timed or len(timed) < len(packets):  # a bare stream: frames are told by their order and the nominal rate
        return _Timeline(np.array([], np.int64), 1.0 / rate, 1.0 / rate)
    last_seconds = timed[-1][1] * tick_seconds or 1.0 / rate
    timeline = _Timeline(np.unique(np.array([pts for pts, _ in timed], np.int64)), tick_seconds, last_seconds)
    covered = min(
        _covered(end_seconds - start_seconds, declared[0], last_seconds),
        _covered(timeline.duration, declared[1], last_seconds),
    )
    return replace(timeline, covered=covered)


def _covered(met_seconds: float, declared_seconds: float, frame_seconds: float) -> float:
    """How much of the duration that a header declares has packets: 1 for what rounding may leave over."""
    missing_seconds = declared_seconds - met_seconds
    is_cut = missing_seconds > max(2 * frame_seconds, 0.02 * declared_seconds)
    return max(0.0, met_seconds / declared_seconds) if is_cut else 1.0


def _check_size(stream: VideoStream, max_pixels: int) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > max_pixels:
        raise ClipError("open", f"frame too large: {width}x{height}, at most {max_pixels / 1e6:.0f} megapixels")


@dataclass(frozen=True)
class _Reader:
    """One file, and what is made of the frames that are kept."""

    file: Path
    keep: Callable[[Image], tuple[Image, bytes]]
    alive: Callable[[], None]

    def decode(self, wanted: set[int], *, name: Callable[[VideoFrame, int], int]) -> _Decoded:
        """One sequential pass; `name` gives the tick that a frame, the how-many-eth, is known by."""
        decoded = _Decoded()
        with _opened(self.file) as (container, stream):
            for frame in _frames(container, stream):
                self.alive()
                if frame.is_corrupt:
                    continue
                tick = name(frame, len(decoded.ticks))
                decoded.ticks.append(tick)
                if tick in wanted:
                    image = _upright(frame)
                    decoded.size = (image.shape[1], image.shape[0])
                    decoded.images[tick] = self.keep(image)
        return decoded


def _frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Every frame that decodes, in presentation order; a packet that does not decode is passed over."""
    for packet in _until_error(container.demux(stream)):
        if packet.size:
            yield from _decoded_packet(stream, packet)
    yield from _decoded_packet(stream, None)


def _decoded_packet(stream: VideoStream, packet: av.Packet | None) -> list[VideoFrame]:
    try:
        return stream.decode(packet)
    except av.error.FFmpegError:
        return []


def _until_error(packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
    """A demuxer that meets the end of a truncated file raises: what came before still counts."""
    try:
        yield from packets
    except av.error.FFmpegError:
        return


def _upright(frame: VideoFrame) -> Image:
    image = np.asarray(frame.to_ndarray(format="rgb24", threads=1), np.uint8)  # (H, W, 3)
    return np.rot90(image, k=round(frame.rotation / 90)) if frame.rotation else image


def _said(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
