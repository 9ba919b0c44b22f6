"""Videos from start to end, for people to watch: every frame with the second it appears at, and the sound.

Times come from the stream. After damage nothing counts until the next keyframe, as in feature extraction: the frame
before stays on the screen meanwhile.
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
"""The upright width and height of a video in square pixels → the size in which it is wanted."""

MIN_SEEK_SECONDS = 5.0
"""A part that begins later is sought, not played up to."""
_MAX_AUDIO_LAG_SECONDS = 2.0
"""Sound may lie so much later in a file than the frames that it belongs to."""
_MAX_HELD_AUDIO_PACKETS = 1000
_TIME_TOLERANCE_SECONDS = 1e-3  # seconds
_UNSPECIFIED_COLOR_SPACE = 2  # of FFmpeg's colour spaces


@dataclass(frozen=True)
class PlayedFrame:
    """A frame, and when it appears."""

    seconds: float  # since the start of what is played
    image: Image  # (H, W, 3) RGB, upright


@dataclass(frozen=True)
class AudioPacket:
    """A packet of the sound, and when it begins; a little before 0 is possible."""

    seconds: float
    packet: av.Packet


@dataclass(frozen=True)
class EndOfPlayback:
    """The second at which the last frame goes."""

    seconds: float


MediaItem = PlayedFrame | AudioPacket | EndOfPlayback


def fit_size(
    width: float, height: float, *, max_long_side: int = 1920, max_short_side: int = 1080, min_short_side: int = 120
) -> tuple[int, int]:
    """An even size of the same shape with sides no longer than these; small pictures grow until they hold text."""
    long, short = max(width, height), min(width, height)
    scale = min(max(1.0, min_short_side / short), max_long_side / long, max_short_side / short)
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))


@contextmanager
def open_playback(
    file: Path, fit: SizeFunction, *, span: Span = FULL_SPAN, folder_fps: float = 25.0
) -> Iterator[tuple[AudioStream | None, Iterator[MediaItem]]]:
    """The sound stream of a video, if it has one, and its pieces in order; a folder of images is a video too.

    The first shot comes before any sound, the end comes last. Raises ClipError where there is nothing to play.
    """
    if file.is_dir():
        yield None, _play_image_folder(file, fit, span, folder_fps)
        return
    with open_video(file) as (container, stream):
        sound = _find_audio_stream(container)
        yield sound, _Player(file, fit, span).read_items(container, stream, sound)


class _SeekOvershotError(Exception):
    """Seeking ended after the frame that was sought."""


@dataclass
class _Player:
    """One file on its way through a decoder."""

    file: Path
    fit: SizeFunction
    span: Span
    size: tuple[int, int] | None = None
    reformatter: VideoReformatter = field(default_factory=VideoReformatter)

    def read_items(
        self, container: InputContainer, stream: VideoStream, sound: AudioStream | None
    ) -> Iterator[MediaItem]:
        """From a keyframe before the start where seeking works, else played up to it from the file's beginning."""
        try:
            origin = _seek(container, stream, self.span[0]) if self.span[0] > MIN_SEEK_SECONDS else None
            timed = _add_times(_demux_and_decode(container, stream, sound, origin), stream, origin)
            yield from self._trim_to_span(
                timed if origin is None else _check_first_frame_time(timed, self.span[0]), stream, sound
            )
        except _SeekOvershotError:
            with open_video(self.file) as (again, video):
                heard = _find_audio_stream(again) if sound else None
                yield from self._trim_to_span(_add_times(_demux_and_decode(again, video, heard), video), video, heard)

    def _trim_to_span(
        self, timed: Iterator[tuple[float, VideoFrame | av.Packet]], stream: VideoStream, sound: AudioStream | None
    ) -> Iterator[MediaItem]:
        """What lies in the span, with the frame that is on the screen as it begins."""
        start, end = self.span
        waiting: list[AudioPacket] = []
        before: VideoFrame | None = None
        begun, over = False, 0.0
        for at, item in timed:
            if isinstance(item, av.Packet):
                if start < at + _duration_seconds(item) and at < end:
                    waiting.append(AudioPacket(at - start, item))
            else:
                over = at + (_duration_seconds(item) or 1 / _frame_rate(stream))
                if at < start - _TIME_TOLERANCE_SECONDS:
                    before = item
                    continue
                if not begun and before is not None and at > start + _TIME_TOLERANCE_SECONDS:
                    yield PlayedFrame(0.0, self._to_upright_image(before, stream))
                begun = True
                if at < end:
                    yield PlayedFrame(max(0.0, at - start), self._to_upright_image(item, stream))
                elif at >= end + (_MAX_AUDIO_LAG_SECONDS if sound else 0):
                    break
            if begun:
                yield from waiting
                waiting = []
            del waiting[:-_MAX_HELD_AUDIO_PACKETS]
        if not begun and (before is None or over <= start):
            said = (
                f"it begins at {start:g} s of a video that lasts {over:.1f} s" if over else "no frame could be decoded"
            )
            raise ClipError("decode", said)
        if not begun and before is not None:
            yield PlayedFrame(0.0, self._to_upright_image(before, stream))
        yield EndOfPlayback(min(over, end) - start)

    def _to_upright_image(self, frame: VideoFrame, stream: VideoStream) -> Image:
        is_turned = round(frame.rotation / 90) % 2 == 1
        if self.size is None:
            width = frame.width * float(stream.sample_aspect_ratio or 1)
            self.size = self.fit(frame.height, width) if is_turned else self.fit(width, frame.height)
        width, height = self.size[::-1] if is_turned else self.size
        # Players take pictures of 720 lines and more for BT.709 where a file does not say what its colours mean.
        is_large = frame.colorspace == _UNSPECIFIED_COLOR_SPACE and frame.height >= 720
        converted = self.reformatter.reformat(
            frame, width, height, format="rgb24", src_colorspace=Colorspace.ITU709 if is_large else None, threads=1
        )
        image = np.asarray(converted.to_ndarray(), np.uint8)  # (H, W, 3)
        return np.ascontiguousarray(np.rot90(image, k=round(frame.rotation / 90))) if frame.rotation else image


def _seek(container: InputContainer, stream: VideoStream, start: float) -> float:
    """The stream's own time of its first frame, with the demuxer a little before `start`."""
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
    """The same, unless the first frame is too late already, or none comes."""
    is_first = True
    for at, item in timed:
        if is_first and isinstance(item, VideoFrame):
            is_first = False
            if at > start + _TIME_TOLERANCE_SECONDS:
                raise _SeekOvershotError
        yield at, item
    if is_first:  # no keyframe came any more
        raise _SeekOvershotError


def _add_times(
    items: Iterator[VideoFrame | av.Packet], stream: VideoStream, origin: float | None = None
) -> Iterator[tuple[float, VideoFrame | av.Packet]]:
    """Each item with its seconds since the first frame. Sound waits until that is known."""
    usual, last = 1 / _frame_rate(stream), -1.0
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
        last = seconds if seconds > last else max(last + usual, 0.0)  # clocks that jump back; none
        yield last, item


def _demux_and_decode(
    container: InputContainer, stream: VideoStream, sound: AudioStream | None, origin: float | None = None
) -> Iterator[VideoFrame | av.Packet]:
    """Sound frames of the video, and packets of the sound, in the file's order."""
    is_sound = origin is None  # after seeking, only from a keyframe on
    is_avi, order = container.format.name == "avi", list[int]()  # whose packets are numbered as they are decoded
    for packet in iterate_until_error(container.demux(*([stream, sound] if sound else [stream]))):
        if sound is not None and packet.stream_index == sound.index:
            if packet.size and packet.pts is not None:
                yield packet
            continue
        if is_avi and packet.pts is not None:
            heapq.heappush(order, packet.pts)
        for frame in _decode_packet(stream, packet):
            tick = heapq.heappop(order) if order else None
            if frame is not None and tick is not None:
                frame.pts = tick
            is_sound = frame is not None and not frame.is_corrupt and (is_sound or frame.key_frame)
            if frame is not None and is_sound:
                yield frame
    yield from (
        frame for frame in _decode_packet(stream, None) if frame is not None and is_sound
    )  # after a demuxer's error


def _decode_packet(stream: VideoStream, packet: av.Packet | None) -> list[VideoFrame] | list[None]:
    try:
        return stream.decode(packet)
    except av.error.FFmpegError:
        return [None]


def _play_image_folder(file: Path, fit: SizeFunction, span: Span, fps: float) -> Iterator[MediaItem]:
    """A folder of images; one that is damaged is left out."""
    images = list_ordered_images(file)
    start, end = span[0], min(span[1], len(images) / fps)
    if start >= end:
        raise ClipError(
            "decode", f"it begins at {start:g} s of {len(images)} images that last {len(images) / fps:.1f} s"
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
    """The first sound stream whose header says enough."""
    streams = (s for s in container.streams.audio if s.codec_context and s.codec_context.sample_rate)
    return next((s for s in streams if s.codec_context.channels), None)


def _duration_seconds(item: VideoFrame | av.Packet) -> float:
    return float((item.duration or 0) * (item.time_base or 0))


def _frame_rate(stream: VideoStream) -> float:
    return float(stream.average_rate or stream.guessed_rate or 25)
