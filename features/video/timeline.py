"""What a video's packets promise, read without decoding: which frames there are, when, and where decoding can start."""

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
"""Containers whose keyframes are frames that decoding can start from: elsewhere a flag may only promise recovery."""

FULL_SPAN: Span = (0.0, math.inf)

MIN_HOLE_BYTES = 4096
"""Bytes of a Matroska file that belong to no packet: more than headers and laced audio explain."""

_NO_TICKS = np.array([], np.int64)


@dataclass(frozen=True)
class Timeline:
    """The presentation timestamps of a stream, in ticks of its time base.

    `starts` are (decode index, tick) of the packets that decoding can start from, in decode order. `covered` is the
    share of the duration that the header declares for which there are packets. `corrupt_spans` are spans [from, to) of ticks
    after bytes that were lost, until the next keyframe: a decoder makes pictures there without a word, wrong ones.
    """

    ticks: NDArray[np.int64]  # (N,) ascending; empty where packets carry no presentation times
    tick_seconds: float
    last_frame_seconds: float  # how long the last frame is shown
    seek_points: Sequence[tuple[int, int]] = field(default=((0, 0),))
    covered_share: float = 1.0
    corrupt_spans: Sequence[tuple[int, int]] = ()

    @property
    def duration(self) -> float:
        """Seconds from the first frame's appearance to the last one's end."""
        return (
            float(self.ticks[-1] - self.ticks[0]) * self.tick_seconds + self.last_frame_seconds
            if len(self.ticks)
            else 0.0
        )

    def to_seconds(self, ticks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Seconds since the first frame."""
        return (ticks - self.ticks[0]) * self.tick_seconds

    def sample_rows(self, sampler: RowSampler, span: Span = FULL_SPAN) -> Rows:
        """The ticks (R, L) of the rows that `pick` wants of a part of the video.

        Raises ClipError where the part begins after the video's end.
        """
        if not len(self.ticks):
            return {}
        start, end = span
        if start >= self.duration:
            raise ClipError("decode", f"it begins at {start:g} s of a video that lasts {self.duration:.1f} s")
        return {
            name: self.ticks[rows]
            for name, rows in sampler(self.to_seconds(self.ticks), start, min(end, self.duration)).items()
        }

    def find_start_index(self, tick: int) -> int:
        """The decode index of the last packet from which decoding gives the frame of `tick`."""
        ticks, last = self._seek_points_by_tick
        place = bisect_right(ticks, tick)
        return last[place - 1] if place else 0

    @cached_property
    def _seek_points_by_tick(self) -> tuple[list[int], list[int]]:
        """The ticks of `starts`, ascending, and up to each the last decode index: it is asked for often."""
        order = sorted((tick, index) for index, tick in self.seek_points)
        return [tick for tick, _ in order], list(accumulate((index for _, index in order), max))

    def compute_covered_share(self, span: Span) -> float:
        """The share of a part of the video for which there are packets."""
        start, end = span
        if not len(self.ticks) or (start, end) == FULL_SPAN:
            return self.covered_share
        asked_end = self.duration / self.covered_share if end == math.inf else end
        return compute_covered_share(min(self.duration, asked_end) - start, asked_end - start, self.last_frame_seconds)

    def compute_decoded_share(self, decoded: Sequence[int], span: Span = FULL_SPAN) -> float:
        """Decoded frames over those that a part of the file should hold, missing packets included."""
        promised = self._count_frames_in(self.ticks, span)
        return self.compute_covered_share(span) * (
            min(1.0, self._count_frames_in(np.array(decoded), span) / promised) if promised else 1.0
        )

    def _count_frames_in(self, ticks: NDArray[np.int64], span: Span) -> int:
        seconds = self.to_seconds(ticks) if len(self.ticks) else np.zeros(len(ticks))
        return int(((seconds >= span[0] - self.last_frame_seconds) & (seconds < span[1])).sum())

    def with_decoded_ticks(self, ticks: Sequence[int]) -> "Timeline":
        """The timeline of the frames that really came."""
        return replace(self, ticks=np.unique(np.array(ticks, np.int64)), covered_share=1.0)


def read_timeline(container: InputContainer, stream: VideoStream, *, packet_cache: list[av.Packet] | None) -> Timeline:
    """Reads all packets once; those of the stream are kept in `held` where it is a list."""
    packets: list[tuple[int | None, int, bool]] = []  # pts, duration, keyframe
    hidden = end_byte = 0
    breaks: list[int] = []  # numbers of the packets before which bytes are lost
    may_skip_damage = container.format.name.startswith("matroska")  # others give damaged packets to the decoder
    ends: dict[int, int] = {}  # of each stream, in its own ticks
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
        if packet.is_discard:  # an edit list hides it, but others may be decoded from it
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
    """(ticks lost, unsound span) of each break in the bytes that is a break in time too.

    A break in time alone is a variable frame rate.
    """
    times = np.array([pts or 0 for pts, _, _ in packets], np.int64)
    usual = int(np.median(np.diff(np.sort(times)))) if len(times) > 1 else 0
    holes = []
    for at in breaks:
        before, after = int(times[:at].max()), int(times[at:].min())
        if after - before > 1.5 * usual:
            sound = next((int(times[i]) for i in range(at, len(packets)) if packets[i][2]), int(times.max()) + 1)
            holes.append((after - before - usual, (after, sound)))
    return holes


def iterate_until_error(packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
    """A demuxer that meets the end of a truncated file raises: what came before still counts."""
    try:
        yield from packets
    except av.error.FFmpegError:
        return


def _build_timeline(stream: VideoStream, packets: Sequence[tuple[int | None, int, bool]]) -> Timeline:
    rate = _frame_rate(stream)
    timed = sorted((pts, duration) for pts, duration, _ in packets if pts is not None)
    if not timed or len(timed) < len(packets):  # a bare stream: frames are told by their order and the nominal rate
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
    if container.format.name == "avi":  # FFmpeg shrinks the durations of a cut AVI, not its count of frames
        declared = stream.frames / _frame_rate(stream)
    met_seconds = end_seconds - (container.start_time or 0) / av.time_base
    return min(
        compute_covered_share(met_seconds, (container.duration or 0) / av.time_base, timeline.last_frame_seconds),
        compute_covered_share(timeline.duration, declared, timeline.last_frame_seconds),
    )


def compute_covered_share(found_seconds: float, declared_seconds: float, frame_seconds: float) -> float:
    """How much of the duration that a header declares has packets: 1 for what rounding may leave over."""
    missing_seconds = declared_seconds - found_seconds
    is_cut = missing_seconds > max(2 * frame_seconds, 0.02 * declared_seconds)
    return max(0.0, found_seconds / declared_seconds) if is_cut else 1.0


def _frame_rate(stream: VideoStream) -> float:
    return float(stream.average_rate or stream.guessed_rate or 25)
