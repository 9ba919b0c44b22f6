"""The timeline of a video, read from its packets without decoding: frame times and the points to start decoding at."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from features.errors import ClipError
from features.types import Span
from features.video.sampling import Rows, RowSampler

SEEKABLE_FORMATS = ("mov,mp4", "matroska")
"""Containers in which decoding can start at every keyframe.

In others the keyframe flag may only mean that the picture recovers after it.
"""

FULL_SPAN: Span = (0.0, math.inf)
"""The whole video."""

MIN_HOLE_BYTES = 4096
"""Bytes without a packet that count as a hole in a Matroska file: more than headers and laced audio take."""

_NO_TICKS = np.array([], np.int64)


@dataclass(frozen=True)
class Timeline:
    """The presentation timestamps of a stream, in ticks of its time base.

    `seek_points` are (decode index, tick) of the packets that decoding can start from, in decode order. `covered_share`
    is the share of the declared duration for which there are packets. `corrupt_spans` are spans [from, to) of ticks
    from a loss of bytes to the next keyframe: a decoder returns wrong frames there without an error.
    """

    ticks: NDArray[np.int64]  # (N,) ascending; empty where packets carry no presentation times
    tick_seconds: float
    last_frame_seconds: float  # how long the last frame is shown
    seek_points: Sequence[tuple[int, int]] = field(default=((0, 0),))
    covered_share: float = 1.0
    corrupt_spans: Sequence[tuple[int, int]] = ()

    @property
    def duration(self) -> float:
        """Seconds from the start of the first frame to the end of the last one."""
        return (
            float(self.ticks[-1] - self.ticks[0]) * self.tick_seconds + self.last_frame_seconds
            if len(self.ticks)
            else 0.0
        )

    def to_seconds(self, ticks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the seconds since the first frame for ticks (N,)."""
        return (ticks - self.ticks[0]) * self.tick_seconds

    def sample_rows(self, sampler: RowSampler, span: Span = FULL_SPAN) -> Rows:
        """Return the ticks (R, L) of the rows that `sampler` selects from a part of the video.

        Raises ClipError if the part starts after the end of the video.
        """
        if not len(self.ticks):
            return {}
        start, end = span
        if start >= self.duration:
            raise ClipError("decode", f"the clip starts at {start:g} s, but the video lasts only {self.duration:.1f} s")
        return {
            name: self.ticks[rows]
            for name, rows in sampler(self.to_seconds(self.ticks), start, min(end, self.duration)).items()
        }

    def find_start_index(self, tick: int) -> int:
        """Return the decode index of the latest packet from which decoding still yields the frame of `tick`."""
        ticks, last_indices = self._seek_points_by_tick
        position = bisect_right(ticks, tick)
        return last_indices[position - 1] if position else 0

    @cached_property
    def _seek_points_by_tick(self) -> tuple[list[int], list[int]]:
        """The ticks of `seek_points`, ascending, and the largest decode index up to each."""
        order = sorted((tick, index) for index, tick in self.seek_points)
        return [tick for tick, _ in order], list(accumulate((index for _, index in order), max))

    def compute_covered_share(self, span: Span) -> float:
        """Return the share of a part of the video for which there are packets."""
        start, end = span
        if not len(self.ticks) or (start, end) == FULL_SPAN:
            return self.covered_share
        asked_end = self.duration / self.covered_share if end == math.inf else end
        return compute_covered_share(min(self.duration, asked_end) - start, asked_end - start, self.last_frame_seconds)

    def compute_decoded_share(self, decoded: Sequence[int], span: Span = FULL_SPAN) -> float:
        """Return the decoded frames of a part over the frames it should hold, missing packets included."""
        expected = self._count_frames_in(self.ticks, span)
        return self.compute_covered_share(span) * (
            min(1.0, self._count_frames_in(np.array(decoded), span) / expected) if expected else 1.0
        )

    def _count_frames_in(self, ticks: NDArray[np.int64], span: Span) -> int:
        seconds = self.to_seconds(ticks) if len(self.ticks) else np.zeros(len(ticks))
        return int(((seconds >= span[0] - self.last_frame_seconds) & (seconds < span[1])).sum())

    def with_decoded_ticks(self, ticks: Sequence[int]) -> "Timeline":
        """Return the timeline of the frames that were really decoded."""
        return replace(self, ticks=np.unique(np.array(ticks, np.int64)), covered_share=1.0)


def read_timeline(container: InputContainer, stream: VideoStream, *, packet_cache: list[av.Packet] | None) -> Timeline:
    """Read all packets once. Those of the stream are added to `packet_cache` unless it is None."""
    packets: list[tuple[int | None, int, bool]] = []  # pts, duration, keyframe
    hidden = end_byte = 0
    breaks: list[int] = []  # packets before which bytes are missing
    may_skip_damage = container.format.name.startswith("matroska")  # others pass damaged packets to the decoder
    ends: dict[int, int] = {}  # the end of each stream, in its own ticks
    starts: list[tuple[int, int]] = []
    for packet in iterate_until_error(container.demux()):
        if not packet.size:
            continue
        if may_skip_damage and packets and (packet.pos or 0) - end_byte > MIN_HOLE_BYTES:
            breaks.append(len(packets))
        end_byte = (packet.pos or 0) + packet.size
        if packet.pts is not None:
            index = packet.stream_index
            ends[index] = max(ends.get(index, 0), packet.pts + (packet.duration or 0))
        if packet.stream_index != stream.index:
            continue
        if packet.is_keyframe and packet.pts is not None:
            starts.append((len(packets) + hidden, packet.pts))
        if packet.is_discard:  # hidden by an edit list, but others may depend on it
            hidden += 1
        else:
            packets.append((packet.pts, packet.duration or 0, packet.is_keyframe))
        if packet_cache is not None:
            packet_cache.append(packet)
    timeline = _build_timeline(stream, packets)
    can_seek = container.format.name.startswith(SEEKABLE_FORMATS)
    end_seconds = max((float(end * (container.streams[i].time_base or 0)) for i, end in ends.items()), default=0.0)
    covered = _compute_stream_coverage(container, stream, timeline, end_seconds)
    holes = _find_holes(packets, breaks) if len(timeline.ticks) else []
    lost_seconds = sum(lost for lost, _ in holes) * timeline.tick_seconds
    return replace(
        timeline,
        seek_points=starts if can_seek and starts else ((0, 0),),
        covered_share=covered * (1 - lost_seconds / timeline.duration) if holes else covered,
        corrupt_spans=[span for _, span in holes],
    )


def _find_holes(
    packets: Sequence[tuple[int | None, int, bool]], breaks: Sequence[int]
) -> list[tuple[int, tuple[int, int]]]:
    """Return (lost ticks, corrupt span) of each break in the bytes that is also a gap in time.

    A gap in time alone is a variable frame rate.
    """
    times = np.array([pts or 0 for pts, _, _ in packets], np.int64)
    usual_step = int(np.median(np.diff(np.sort(times)))) if len(times) > 1 else 0
    holes = []
    for index in breaks:
        before, after = int(times[:index].max()), int(times[index:].min())
        if after - before > 1.5 * usual_step:
            next_keyframe = next(
                (int(times[i]) for i in range(index, len(packets)) if packets[i][2]), int(times.max()) + 1
            )
            holes.append((after - before - usual_step, (after, next_keyframe)))
    return holes


def iterate_until_error(packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
    """Yield packets until the demuxer raises, as it does at the end of a truncated file."""
    try:
        yield from packets
    except av.error.FFmpegError:
        return


def _build_timeline(stream: VideoStream, packets: Sequence[tuple[int | None, int, bool]]) -> Timeline:
    rate = _frame_rate(stream)
    timed = sorted((pts, duration) for pts, duration, _ in packets if pts is not None)
    if not timed or len(timed) < len(packets):  # a raw stream: times follow from the frame order and nominal rate
        return Timeline(_NO_TICKS, 1.0 / rate, 1.0 / rate)
    tick_seconds = float(stream.time_base or 0) or 1e-6
    ticks = np.unique(np.array([pts for pts, _ in timed], np.int64))
    return Timeline(ticks, tick_seconds, timed[-1][1] * tick_seconds or 1.0 / rate)


def _compute_stream_coverage(
    container: InputContainer, stream: VideoStream, timeline: Timeline, end_seconds: float
) -> float:
    if not len(timeline.ticks):
        return 1.0
    declared = float((stream.duration or 0) * (stream.time_base or 0))
    if container.format.name == "avi":  # FFmpeg adjusts the duration of a truncated AVI, not its frame count
        declared = stream.frames / _frame_rate(stream)
    found_seconds = end_seconds - (container.start_time or 0) / av.time_base
    return min(
        compute_covered_share(found_seconds, (container.duration or 0) / av.time_base, timeline.last_frame_seconds),
        compute_covered_share(timeline.duration, declared, timeline.last_frame_seconds),
    )


def compute_covered_share(found_seconds: float, declared_seconds: float, frame_seconds: float) -> float:
    """Return the share of the declared duration that has packets; 1 if only a rounding error is missing."""
    missing_seconds = declared_seconds - found_seconds
    is_cut = missing_seconds > max(2 * frame_seconds, 0.02 * declared_seconds)
    return max(0.0, found_seconds / declared_seconds) if is_cut else 1.0


def _frame_rate(stream: VideoStream) -> float:
    return float(stream.average_rate or stream.guessed_rate or 25)
