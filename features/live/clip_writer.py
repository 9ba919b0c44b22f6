"""Writes packets of a live stream as MP4 that browsers play: copied if they can decode it, otherwise as H.264."""

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
from features.live.packet_buffer import MPEG_TIME_BASE, EncodedPacket, StreamParameters
from features.utils.files import write_atomically
from features.video.container import MAX_FRAME_PIXELS

_DEFAULT_FRAME_SECONDS = 0.04
_BT601 = 6
_X264_OPTIONS = {"preset": "superfast", "crf": "23", "profile": "high", "threads": "1"}
_MP4_HEADER_BYTES = 8192
_MP4_SAMPLE_BYTES = 72
"""Most bytes that a frame takes in the index of an MP4 file: its size, times and position."""


def write_clip(parameters: StreamParameters, packets: Sequence[EncodedPacket], file: Path) -> float:
    """Write packets that start with a keyframe as MP4, and return the duration in seconds.

    The file starts at second 0 and has its index in front. It is built in memory, because FFmpeg blocks the other
    threads of the process while it opens and closes a file. Raises ClipError if no frame can be decoded,
    RuntimeEnvironmentError if the file cannot be written.
    """
    packets = _set_first_pts(parameters, packets)
    is_copied = parameters.is_browser_playable and all(packet.pts is not None for packet in packets)
    memory, index_bytes = io.BytesIO(), _MP4_HEADER_BYTES + _MP4_SAMPLE_BYTES * len(packets)
    with av.open(memory, "w", format="mp4", options={"moov_size": str(index_bytes)}) as container:
        seconds = (
            _mux_packets(container, parameters, packets)
            if is_copied
            else _transcode_packets(container, parameters, packets)
        )
    write_atomically(file, memory.getvalue())
    return seconds


def _set_first_pts(parameters: StreamParameters, packets: Sequence[EncodedPacket]) -> Sequence[EncodedPacket]:
    """Set the missing time of the first RTSP packet: it is shown just before the others."""
    times = [packet.pts for packet in packets[1:] if packet.pts is not None]
    if packets[0].pts is not None or not times:
        return packets
    return (replace(packets[0], pts=min(times) - _usual_frame_ticks(times, parameters.time_base)), *packets[1:])


def _mux_packets(container: OutputContainer, parameters: StreamParameters, packets: Sequence[EncodedPacket]) -> float:
    stream = container.add_stream_from_template(parameters.stream, opaque=True)
    stream.time_base = parameters.time_base
    if parameters.stream.codec_context.codec.canonical_name == "hevc":
        stream.codec_context.codec_tag = "hvc1"  # Apple's players accept no other
    first = packets[0].pts or 0
    shown = [packet for packet in packets if (packet.pts or 0) >= first]  # the others depend on earlier packets
    times = [(packet.pts or 0) - first for packet in shown]
    frame_ticks = _usual_frame_ticks(times, parameters.time_base)
    for packet, pts, dts in zip(shown, times, make_decoding_times(times), strict=True):
        copy = _make_av_packet(packet)
        copy.pts, copy.dts, copy.duration, copy.time_base = max(pts, dts), dts, frame_ticks, parameters.time_base
        copy.is_keyframe, copy.stream = packet.is_keyframe, stream
        container.mux(copy)
    return float((max(times) + frame_ticks) * parameters.time_base)


def _make_av_packet(packet: EncodedPacket) -> av.Packet:
    """Copy the data into a buffer of FFmpeg.

    Decoders read beyond the end of a packet. Only a buffer allocated by FFmpeg has the padding that this needs.
    """
    copy = av.Packet(len(packet.data))
    copy.update(packet.data)
    return copy


def make_decoding_times(times: Sequence[int]) -> list[int]:
    """Return strictly ascending decoding times for packets shown at `times`, none after its own presentation time.

    The decoding times of the stream are ignored.
    """
    ordered: list[int] = []
    for time_ in sorted(times):
        ordered.append(max(time_, ordered[-1] + 1) if ordered else time_)
    delay = max(0, *(decoded - shown for decoded, shown in zip(ordered, times, strict=True)), 0)
    return [decoded - delay for decoded in ordered]


def _usual_frame_ticks(times: Sequence[int], time_base: Fraction) -> int:
    """Return the median frame duration in ticks, used as the duration of the last frame."""
    ordered = sorted(times)
    steps = [after - before for before, after in pairwise(ordered)]
    return max(1, round(median(steps) if steps else _DEFAULT_FRAME_SECONDS / time_base))


def _transcode_packets(
    container: OutputContainer, parameters: StreamParameters, packets: Sequence[EncodedPacket]
) -> float:
    reformatter, stream, last = VideoReformatter(), None, -1
    frame_ticks = _usual_frame_ticks(
        [round(packet.pts * parameters.time_base / MPEG_TIME_BASE) for packet in packets if packet.pts is not None],
        MPEG_TIME_BASE,
    )
    first = 0
    for frame in _decode_frames(parameters, packets):
        ticks = round((frame.pts or 0) * parameters.time_base / MPEG_TIME_BASE)
        if stream is None:
            stream, first = _add_h264_stream(container, frame), ticks
        if (tick := ticks - first) <= last:
            continue
        last = tick
        container.mux(_set_duration(stream.encode(_convert_frame(frame, stream, reformatter, tick)), frame_ticks))
    if stream is None:
        raise ClipError("decode", "no frame could be decoded")
    container.mux(_set_duration(stream.encode(None), frame_ticks))
    return float((last + frame_ticks) * MPEG_TIME_BASE)


def _decode_frames(parameters: StreamParameters, packets: Sequence[EncodedPacket]) -> Iterator[VideoFrame]:
    decoder = parameters.copy_stream().codec_context
    decoder.thread_count, decoder.thread_type, decoder.options = 1, "NONE", {"max_pixels": str(MAX_FRAME_PIXELS)}
    for packet in (*packets, None):
        copy = None
        if packet is not None:
            copy = _make_av_packet(packet)
            copy.pts, copy.dts, copy.time_base, copy.is_keyframe = (
                packet.pts,
                packet.dts,
                parameters.time_base,
                packet.is_keyframe,
            )
        try:
            yield from (frame for frame in decoder.decode(copy) if frame.pts is not None)
        except (av.error.InvalidDataError, av.error.EOFError):
            continue


def _add_h264_stream(container: OutputContainer, frame: VideoFrame) -> Any:
    stream: Any = container.add_stream("libx264", rate=30, options=_X264_OPTIONS)
    stream.width, stream.height, stream.pix_fmt = max(2, frame.width & ~1), max(2, frame.height & ~1), "yuv420p"
    codec = stream.codec_context
    codec.time_base, codec.gop_size = MPEG_TIME_BASE, 60
    codec.colorspace = codec.color_primaries = codec.color_trc = _BT601
    codec.color_range = 1  # limited
    if frame.rotation:
        stream.set_display_rotation(frame.rotation)
    return stream


def _convert_frame(frame: VideoFrame, stream: Any, reformatter: VideoReformatter, pts: int) -> VideoFrame:
    converted = reformatter.reformat(
        frame,
        width=stream.width,
        height=stream.height,
        format="yuv420p",
        dst_colorspace=5,  # ITU-R BT.601
        dst_color_range=1,  # limited
        threads=1,
    )
    converted.pts, converted.time_base = pts, MPEG_TIME_BASE
    return converted


def _set_duration(packets: list[av.Packet], ticks: int) -> list[av.Packet]:
    for packet in packets:
        packet.duration = ticks
    return packets
