"""Packets of a live stream → an MP4 file that browsers play: copied where they can decode it, otherwise as H.264."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import av
import av.error
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from features.errors import ClipError
from features.live.packet_buffer import TICK, Coded, Coding
from features.utils.files import write_atomically
from features.video.container import MAX_PIXELS

_USUAL_SECONDS = 0.04
_BT601 = 6
_X264 = {"preset": "superfast", "crf": "23", "profile": "high", "threads": "1"}
_HEADER_BYTES = 8192
_SAMPLE_BYTES = 72
"""The most that a frame takes in the index of an MP4 file: its sizes, times and place."""


def write_clip(coding: Coding, packets: Sequence[Coded], file: Path) -> float:
    """Writes packets that begin with a keyframe as MP4, from second 0 on, index in front; how many seconds they last.

    The file is made in memory, since FFmpeg holds up the process's other threads when it opens and ends a file. Raises
    ClipError where there is nothing to see, EnvironmentStopped where the file cannot be written.
    """
    packets = _timed(coding, packets)
    is_copied = coding.is_copied and all(packet.pts is not None for packet in packets)
    memory, room = io.BytesIO(), _HEADER_BYTES + _SAMPLE_BYTES * len(packets)
    with av.open(memory, "w", format="mp4", options={"moov_size": str(room)}) as container:
        seconds = _copied(container, coding, packets) if is_copied else _encoded(container, coding, packets)
    write_atomically(file, memory.getvalue())
    return seconds


def _timed(coding: Coding, packets: Sequence[Coded]) -> Sequence[Coded]:
    """RTSP's first packet has no time: it is shown just before the others."""
    times = [packet.pts for packet in packets[1:] if packet.pts is not None]
    if packets[0].pts is not None or not times:
        return packets
    return (replace(packets[0], pts=min(times) - _usual(times, coding.tick)), *packets[1:])


def _copied(container: OutputContainer, coding: Coding, packets: Sequence[Coded]) -> float:
    stream = container.add_stream_from_template(coding.stream, opaque=True)
    stream.time_base = coding.tick
    if coding.stream.codec_context.codec.canonical_name == "hevc":
        stream.codec_context.codec_tag = "hvc1"  # Apple's players know no other
    first = packets[0].pts or 0
    shown = [packet for packet in packets if (packet.pts or 0) >= first]  # the rest needs what was before
    times = [(packet.pts or 0) - first for packet in shown]
    lasts = _usual(times, coding.tick)
    for packet, pts, dts in zip(shown, times, decoding_times(times), strict=True):
        copy = _packet(packet)
        copy.pts, copy.dts, copy.duration, copy.time_base = max(pts, dts), dts, lasts, coding.tick
        copy.is_keyframe, copy.stream = packet.is_keyframe, stream
        container.mux(copy)
    return float((max(times) + lasts) * coding.tick)


def _packet(packet: Coded) -> av.Packet:
    """Its data in a buffer of FFmpeg's, with the padding that decoders read over: made of bytes it would have none."""
    copy = av.Packet(len(packet.data))
    copy.update(packet.data)
    return copy


def decoding_times(times: Sequence[int]) -> list[int]:
    """Ascending times for packets that are shown at `times`, none after its own, whatever the stream said of them."""
    ordered: list[int] = []
    for time_ in sorted(times):
        ordered.append(max(time_, ordered[-1] + 1) if ordered else time_)
    delay = max(0, *(decoded - shown for decoded, shown in zip(ordered, times, strict=True)), 0)
    return [decoded - delay for decoded in ordered]


def _usual(times: Sequence[int], tick: Fraction) -> int:
    """Ticks that a frame lasts: how long the last one is shown."""
    ordered = sorted(times)
    steps = [after - before for before, after in pairwise(ordered)]
    return max(1, round(median(steps) if steps else _USUAL_SECONDS / tick))


def _encoded(container: OutputContainer, coding: Coding, packets: Sequence[Coded]) -> float:
    reformatter, stream, last = VideoReformatter(), None, -1
    lasts = _usual([round(packet.pts * coding.tick / TICK) for packet in packets if packet.pts is not None], TICK)
    first = 0
    for frame in _frames(coding, packets):
        at = round((frame.pts or 0) * coding.tick / TICK)
        if stream is None:
            stream, first = _h264(container, frame), at
        if (tick := at - first) <= last:
            continue
        last = tick
        container.mux(_lasting(stream.encode(_converted(frame, stream, reformatter, tick)), lasts))
    if stream is None:
        raise ClipError("decode", "no picture could be decoded")
    container.mux(_lasting(stream.encode(None), lasts))
    return float((last + lasts) * TICK)


def _frames(coding: Coding, packets: Sequence[Coded]) -> Iterator[VideoFrame]:
    decoder = coding.copied().codec_context
    decoder.thread_count, decoder.thread_type, decoder.options = 1, "NONE", {"max_pixels": str(MAX_PIXELS)}
    for packet in (*packets, None):
        copy = None
        if packet is not None:
            copy = _packet(packet)
            copy.pts, copy.dts, copy.time_base, copy.is_keyframe = (
                packet.pts,
                packet.dts,
                coding.tick,
                packet.is_keyframe,
            )
        try:
            yield from (frame for frame in decoder.decode(copy) if frame.pts is not None)
        except (av.error.InvalidDataError, av.error.EOFError):
            continue


def _h264(container: OutputContainer, frame: VideoFrame) -> Any:
    stream: Any = container.add_stream("libx264", rate=30, options=_X264)
    stream.width, stream.height, stream.pix_fmt = max(2, frame.width & ~1), max(2, frame.height & ~1), "yuv420p"
    codec = stream.codec_context
    codec.time_base, codec.gop_size = TICK, 60
    codec.colorspace = codec.color_primaries = codec.color_trc = _BT601
    codec.color_range = 1  # limited
    if frame.rotation:
        stream.set_display_rotation(frame.rotation)
    return stream


def _converted(frame: VideoFrame, stream: Any, reformatter: VideoReformatter, tick: int) -> VideoFrame:
    converted = reformatter.reformat(
        frame,
        width=stream.width,
        height=stream.height,
        format="yuv420p",
        dst_colorspace=5,  # ITU-R BT.601
        dst_color_range=1,  # limited
        threads=1,
    )
    converted.pts, converted.time_base = tick, TICK
    return converted


def _lasting(packets: list[av.Packet], lasts: int) -> list[av.Packet]:
    for packet in packets:
        packet.duration = lasts
    return packets
