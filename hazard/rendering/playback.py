"""Playback of videos: every frame with the second at which it appears, and the audio packets.

Times come from the stream. After damage, frames are dropped until the next keyframe, as in feature extraction; the last
good frame stays on the screen meanwhile.
"""

import heapq
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import av
import av.error
import cv2
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from av.video.stream import VideoStream

from features.errors import ClipError
from features.types import Span
from features.video.container import open_video
from features.video.decoder import Image
from features.video.image_folder import list_ordered_images, read_image
from features.video.timeline import FULL_SPAN, iterate_until_error

SizeFunction = Callable[[float, float], tuple[int, int]]
"""Upright width and height of a video in square pixels → the width and height of the output."""

MIN_SEEK_SECONDS = 5.0
"""Parts that begin later than this are reached by seeking, earlier ones by decoding from the start."""
_MAX_AUDIO_LAG_SECONDS = 2.0
"""Audio may be stored this much later in a file than its frames."""
_MAX_HELD_AUDIO_PACKETS = 1000
_TIME_TOLERANCE_SECONDS = 1e-3
_UNSPECIFIED_COLOR_SPACE = 2  # FFmpeg's AVCOL_SPC_UNSPECIFIED


@dataclass(frozen=True)
class PlayedFrame:
    """A frame and the second at which it appears."""

    seconds: float  # since the start of the played part
    image: Image  # (H, W, 3) RGB, upright


@dataclass(frozen=True)
class AudioPacket:
    """An audio packet and the second at which it begins, which may be a little before 0."""

    seconds: float
    packet: av.Packet


@dataclass(frozen=True)
class EndOfPlayback:
    """The second until which the last frame is shown."""

    seconds: float


MediaItem = PlayedFrame | AudioPacket | EndOfPlayback


def fit_size(
    width: float, height: float, *, max_long_side: int = 1920, max_short_side: int = 1080, min_short_side: int = 120
) -> tuple[int, int]:
    """Return an even width and height of the same shape with sides no longer than these.

    Small videos are enlarged so that text fits.
    """
    long, short = max(width, height), min(width, height)
    scale = min(max(1.0, min_short_side / short), max_long_side / long, max_short_side / short)
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))


@contextmanager
def open_playback(
    file: Path, fit: SizeFunction, *, span: Span = FULL_SPAN, folder_fps: float = 25.0
) -> Iterator[tuple[AudioStream | None, Iterator[MediaItem]]]:
    """Open a video or a folder of images; give its audio stream, if it has one, and its items in order.

    A frame is the first item and EndOfPlayback is the last one. Raises ClipError if there is nothing to play.
    """
    if file.is_dir():
        yield None, _play_image_folder(file, fit, span, folder_fps)
        return
    with open_video(file) as (container, stream):
        audio_stream = _find_audio_stream(container)
        yield audio_stream, _Player(file, fit, span).read_items(container, stream, audio_stream)


class _SeekOvershotError(Exception):
    """Seeking ended after the wanted frame."""


@dataclass
class _Player:
    """The playback of one file: decode, trim to the span, scale and turn upright."""

    file: Path
    fit: SizeFunction
    span: Span
    size: tuple[int, int] | None = None
    reformatter: VideoReformatter = field(default_factory=VideoReformatter)

    def read_items(
        self, container: InputContainer, stream: VideoStream, audio_stream: AudioStream | None
    ) -> Iterator[MediaItem]:
        """Yield the items of the span; seek to a keyframe before it, or decode from the file's start."""
        try:
            origin = _seek(container, stream, self.span[0]) if self.span[0] > MIN_SEEK_SECONDS else None
            timed = _add_times(_demux_and_decode(container, stream, audio_stream, origin), stream, origin)
            yield from self._trim_to_span(
                timed if origin is None else _check_first_frame_time(timed, self.span[0]), stream, audio_stream
            )
        except _SeekOvershotError:
            with open_video(self.file) as (reopened, video):
                audio = _find_audio_stream(reopened) if audio_stream else None
                timed = _add_times(_demux_and_decode(reopened, video, audio), video)
                yield from self._trim_to_span(timed, video, audio)

    def _trim_to_span(
        self,
        timed: Iterator[tuple[float, VideoFrame | av.Packet]],
        stream: VideoStream,
        audio_stream: AudioStream | None,
    ) -> Iterator[MediaItem]:
        """Yield the items in the span, first the frame that is on the screen when it begins.

        Raises ClipError if the span begins after the video's end or no frame could be decoded.
        """
        start, end = self.span
        waiting: list[AudioPacket] = []
        before: VideoFrame | None = None
        begun, video_end = False, 0.0
        for at, item in timed:
            if isinstance(item, av.Packet):
                if start < at + _duration_seconds(item) and at < end:
                    waiting.append(AudioPacket(at - start, item))
            else:
                video_end = at + (_duration_seconds(item) or 1 / _frame_rate(stream))
                if at < start - _TIME_TOLERANCE_SECONDS:
                    before = item
                    continue
                if not begun and before is not None and at > start + _TIME_TOLERANCE_SECONDS:
                    yield PlayedFrame(0.0, self._to_upright_image(before, stream))
                begun = True
                if at < end:
                    yield PlayedFrame(max(0.0, at - start), self._to_upright_image(item, stream))
                elif at >= end + (_MAX_AUDIO_LAG_SECONDS if audio_stream else 0):
                    break
            if begun:
                yield from waiting
                waiting = []
            del waiting[:-_MAX_HELD_AUDIO_PACKETS]
        if not begun and (before is None or video_end <= start):
            reason = (
                f"the clip starts at {start:g} s, but the video lasts only {video_end:.1f} s"
                if video_end
                else "no frame could be decoded"
            )
            raise ClipError("decode", reason)
        if not begun and before is not None:
            yield PlayedFrame(0.0, self._to_upright_image(before, stream))
        yield EndOfPlayback(min(video_end, end) - start)

    def _to_upright_image(self, frame: VideoFrame, stream: VideoStream) -> Image:
        is_turned = round(frame.rotation / 90) % 2 == 1
        if self.size is None:
            width = frame.width * float(stream.sample_aspect_ratio or 1)
            self.size = self.fit(frame.height, width) if is_turned else self.fit(width, frame.height)
        width, height = self.size[::-1] if is_turned else self.size
        # If a file does not name its color space, players assume BT.709 from 720 lines on.
        is_bt709 = frame.colorspace == _UNSPECIFIED_COLOR_SPACE and frame.height >= 720
        converted = self.reformatter.reformat(
            frame, width, height, format="rgb24", src_colorspace=Colorspace.ITU709 if is_bt709 else None, threads=1
        )
        image = np.asarray(converted.to_ndarray(), np.uint8)  # (H, W, 3)
        return np.ascontiguousarray(np.rot90(image, k=round(frame.rotation / 90))) if frame.rotation else image


def _seek(container: InputContainer, stream: VideoStream, start: float) -> float:
    """Seek to a keyframe before `start`; return the stream's own time of its first frame, in seconds.

    Raises _SeekOvershotError if the stream cannot be sought.
    """
    first = next((item for item in _demux_and_decode(container, stream, None) if isinstance(item, VideoFrame)), None)
    if first is None or first.pts is None or not stream.time_base:
        raise _SeekOvershotError
    origin = float(first.pts * stream.time_base)
    try:
        container.seek(int((origin + start) / stream.time_base), stream=stream, backward=True)
    except av.error.FFmpegError:
        raise _SeekOvershotError from None
    return origin


def _check_first_frame_time(
    timed: Iterator[tuple[float, VideoFrame | av.Packet]], start: float
) -> Iterator[tuple[float, VideoFrame | av.Packet]]:
    """Yield the items unchanged. Raises _SeekOvershotError if the first frame is after `start` or no frame comes."""
    is_first = True
    for at, item in timed:
        if is_first and isinstance(item, VideoFrame):
            is_first = False
            if at > start + _TIME_TOLERANCE_SECONDS:
                raise _SeekOvershotError
        yield at, item
    if is_first:  # no keyframe followed
        raise _SeekOvershotError


def _add_times(
    items: Iterator[VideoFrame | av.Packet], stream: VideoStream, origin: float | None = None
) -> Iterator[tuple[float, VideoFrame | av.Packet]]:
    """Yield each item with its seconds since the first frame. Audio waits until the first frame is known."""
    frame_seconds, last = 1 / _frame_rate(stream), -1.0
    early: list[av.Packet] = []
    for item in items:
        at = None if item.pts is None else float(item.pts * (item.time_base or 0))
        if isinstance(item, av.Packet):
            if origin is None:
                early = [*early[-_MAX_HELD_AUDIO_PACKETS:], item]
            elif at is not None:
                yield at - origin, item
            continue
        if origin is None:
            origin = at if at is not None else 0.0
            yield from ((float((p.pts or 0) * p.time_base) - origin, p) for p in early)
        seconds = at - origin if at is not None else -1.0
        last = seconds if seconds > last else max(last + frame_seconds, 0.0)  # the clock jumped back, or there is none
        yield last, item


def _demux_and_decode(
    container: InputContainer, stream: VideoStream, audio_stream: AudioStream | None, origin: float | None = None
) -> Iterator[VideoFrame | av.Packet]:
    """Yield the intact frames of the video and the audio packets, in the file's order."""
    is_intact = origin is None  # after seeking, only from a keyframe on
    # AVI numbers its packets in decoding order; sorted, these are the times of the decoded frames.
    is_avi, pending_pts = container.format.name == "avi", list[int]()
    for packet in iterate_until_error(container.demux(*([stream, audio_stream] if audio_stream else [stream]))):
        if audio_stream is not None and packet.stream_index == audio_stream.index:
            if packet.size and packet.pts is not None:
                yield packet
            continue
        if is_avi and packet.pts is not None:
            heapq.heappush(pending_pts, packet.pts)
        for frame in _decode_packet(stream, packet):
            pts = heapq.heappop(pending_pts) if pending_pts else None
            if frame is not None and pts is not None:
                frame.pts = pts
            is_intact = frame is not None and not frame.is_corrupt and (is_intact or frame.key_frame)
            if frame is not None and is_intact:
                yield frame
    # After an error of the demuxer the decoder still holds frames.
    yield from (frame for frame in _decode_packet(stream, None) if frame is not None and is_intact)


def _decode_packet(stream: VideoStream, packet: av.Packet | None) -> list[VideoFrame] | list[None]:
    try:
        return stream.decode(packet)
    except av.error.FFmpegError:
        return [None]


def _play_image_folder(file: Path, fit: SizeFunction, span: Span, fps: float) -> Iterator[MediaItem]:
    """Yield the images of a folder as frames; damaged images are left out. Raises ClipError if none can be read."""
    images = list_ordered_images(file)
    start, end = span[0], min(span[1], len(images) / fps)
    if start >= end:
        raise ClipError(
            "decode",
            f"the clip starts at {start:g} s, but its {len(images)} images last only {len(images) / fps:.1f} s",
        )
    size: tuple[int, int] | None = None
    for i in range(max(0, round(start * fps)), len(images)):
        if i / fps >= end:
            break
        try:
            image = read_image(images[i])
        except ClipError:
            continue
        size = size or fit(image.shape[1], image.shape[0])
        yield PlayedFrame(
            max(0.0, i / fps - start), np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        )
    if size is None:
        raise ClipError("decode", "no image could be read")
    yield EndOfPlayback(end - start)


def _find_audio_stream(container: InputContainer) -> AudioStream | None:
    """Return the first audio stream whose header names sample rate and channels."""
    streams = (s for s in container.streams.audio if s.codec_context and s.codec_context.sample_rate)
    return next((s for s in streams if s.codec_context.channels), None)


def _duration_seconds(item: VideoFrame | av.Packet) -> float:
    return float((item.duration or 0) * (item.time_base or 0))


def _frame_rate(stream: VideoStream) -> float:
    return float(stream.average_rate or stream.guessed_rate or 25)
