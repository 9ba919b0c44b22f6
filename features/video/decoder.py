"""The only decoder: a video file to preprocessed frames, exact by timestamp.

The quick way decodes only what the wanted frames need: it starts at the keyframes before them where the container
allows it, and passes over frames that nothing refers to. Whatever looks odd on the way (an error, a corrupt frame, a
timestamp that does not fit) sends the file to the sure way: all is decoded, and the picks are made among what came.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from features.errors import ClipError
from features.types import FrameBatch, Span
from features.video.container import (
    MAX_FRAME_PIXELS,
    can_skip_probing,
    check_frame_size,
    check_regular_file,
    open_container,
)
from features.video.sampling import Rows, RowSampler
from features.video.timeline import FULL_SPAN, Timeline, iterate_until_error, read_timeline

MIN_DECODED_SHARE = 0.5
"""A clip of which less can be decoded is a failure, not a partial clip."""

MAX_CACHED_PACKET_BYTES = 64 * 2**20
"""The packets of a smaller file are held in memory, so that it is opened and read once."""

Image = NDArray[np.uint8]  # (H, W, 3) RGB
FrameData = Image | np.int64
"""What is kept of a frame: its pixels, or a number by which somebody knows it."""


def read_frames(
    file: Path,
    sampler: RowSampler,
    prepare: Callable[[Image], FrameData],
    *,
    span: Span = FULL_SPAN,
    make_thumbnail: Callable[[Image], bytes] = lambda image: b"",
    max_pixels: int = MAX_FRAME_PIXELS,
    report_alive: Callable[[], None] = lambda: None,
    try_fast: bool = True,
) -> FrameBatch:
    """Decodes a file and keeps the frames that `pick` wants of `span`, each put through `prepare` and `picture`.

    The picks are made on the packets' timestamps; where the decoder then gives other frames than the packets promised
    (damage, missing timestamps), they are made again on what was decoded. Time 0 is the start of the span. `alive` is
    called for every decoded frame. Raises ClipError where the file is no video or under half of it can be decoded.
    `quick=False` goes the sure way at once.
    """
    is_small = check_regular_file(file) <= MAX_CACHED_PACKET_BYTES
    reader = _Reader(file, prepare, make_thumbnail, report_alive)
    for is_probed in (False, True):
        with open_container(file, is_probed=is_probed, max_pixels=max_pixels) as (container, stream):
            if not is_probed and not (try_fast and can_skip_probing(container, stream)):
                continue
            check_frame_size(stream, max_pixels)
            held: list[av.Packet] | None = [] if is_small else None
            timeline = read_timeline(container, stream, packet_cache=held)
            rows = timeline.sample_rows(sampler, span)
            is_whole = try_fast and rows and not timeline.corrupt_spans
            decoded = reader.decode_fast(container, stream, held, timeline, rows) if is_whole else None
        if decoded is not None:
            return _make_batch(decoded, timeline, rows, span, check_decoded_share(timeline.compute_covered_share(span)))
    return reader.decode_fully(timeline, sampler, span)


@dataclass
class _DecodedFrames:
    thumbnail_ticks: Set[int]
    """Of which ticks there shall be a picture."""
    images: dict[int, tuple[FrameData, bytes]] = field(default_factory=dict)
    ticks: list[int] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class _Reader:
    """One file, and what is made of the frames that are kept."""

    file: Path
    prepare: Callable[[Image], FrameData]
    make_thumbnail: Callable[[Image], bytes]
    report_alive: Callable[[], None]
    reformatter: VideoReformatter = field(default_factory=VideoReformatter)

    def decode_fast(
        self,
        container: InputContainer,
        stream: VideoStream,
        packet_cache: list[av.Packet] | None,
        timeline: Timeline,
        rows: Rows,
    ) -> _DecodedFrames | None:
        """The wanted frames and no more than they need; None where anything is odd."""
        decoded, wanted = _DecodedFrames(_find_thumbnail_ticks(rows)), _collect_ticks(rows)
        packets: Iterator[av.Packet] = iter(())
        at = -1  # the decode index of the next packet
        try:
            for tick in sorted(wanted):
                start = timeline.find_start_index(tick)
                if at < 0 or start > at:
                    stream.codec_context.flush_buffers()
                    packets, at = _read_packets_from(container, stream, packet_cache, timeline, start), start
                while tick not in decoded.images:
                    packet = next(packets, None)
                    at += 1
                    _set_frame_skipping(stream, packet is not None and packet.pts not in wanted)
                    for frame in stream.decode(packet):
                        self._accept_frame(frame, wanted, decoded)
                    if packet is None and tick not in decoded.images:
                        return None
        except (av.error.FFmpegError, _UnexpectedFrameError):
            return None
        return decoded

    def decode_fully(self, expected: Timeline, sampler: RowSampler, span: Span) -> FrameBatch:
        """Everything in order, and the picks made among the frames that came."""
        by_time = _tick_from_pts if len(expected.ticks) else _tick_from_order
        decoded = self._decode_all(
            expected.sample_rows(sampler, span), get_tick=by_time, corrupt_spans=expected.corrupt_spans
        )
        if not decoded.ticks:
            raise ClipError("decode", "no frame could be decoded")
        share = check_decoded_share(expected.compute_decoded_share(decoded.ticks, span))
        order, actual = sorted(decoded.ticks), expected.with_decoded_ticks(decoded.ticks)
        rows = _drop_undecoded_windows(actual.sample_rows(sampler, span), expected, decoded.ticks)
        if not len(expected.ticks):  # a bare stream promised nothing: only now is its end known
            share = check_decoded_share(actual.compute_covered_share(span))
        missing = _collect_ticks(rows) - decoded.images.keys()
        if any(a >= b for a, b in pairwise(decoded.ticks)):  # AVI with B-frames: the order is right, the times are not
            decoded = self._decode_all(rows, get_tick=lambda frame, count: order[min(count, len(order) - 1)])
        elif missing:
            again = self._decode_all(
                rows, exclude=decoded.images.keys(), get_tick=by_time, corrupt_spans=expected.corrupt_spans
            )
            again.images.update(decoded.images)
            decoded = again
        return _make_batch(decoded, actual, rows, span, share)

    def _decode_all(
        self,
        rows: Rows,
        *,
        exclude: Set[int] = frozenset(),
        get_tick: Callable[[VideoFrame, int], int],
        corrupt_spans: Sequence[tuple[int, int]] = (),
    ) -> _DecodedFrames:
        """One sequential pass, which keeps the frames of `rows` that are not in `exclude`.

        `name` gives the tick that a frame, the how-many-eth, is known by.

        After damage nothing counts until the next keyframe: the frames in between are built on it. Nor does what lies
        in an `corrupt_spans` span [from, to) of ticks.
        """
        decoded, wanted, is_sound = _DecodedFrames(_find_thumbnail_ticks(rows)), _collect_ticks(rows) - exclude, True
        with open_container(self.file) as (container, stream):
            for frame in _decode_frames(container, stream):
                self.report_alive()
                is_sound = frame is not None and not frame.is_corrupt and (is_sound or frame.key_frame)
                if frame is None or not is_sound:
                    continue
                tick = get_tick(frame, len(decoded.ticks))
                if any(start <= tick < end for start, end in corrupt_spans):
                    continue
                decoded.ticks.append(tick)
                if tick in wanted:
                    self._store_frame(frame, tick, decoded)
        return decoded

    def _accept_frame(self, frame: VideoFrame, wanted: set[int], decoded: _DecodedFrames) -> None:
        self.report_alive()
        if frame.is_corrupt or frame.pts is None or (decoded.ticks and frame.pts <= decoded.ticks[-1]):
            raise _UnexpectedFrameError
        decoded.ticks.append(frame.pts)
        if frame.pts in wanted:
            self._store_frame(frame, frame.pts, decoded)

    def _store_frame(self, frame: VideoFrame, tick: int, decoded: _DecodedFrames) -> None:
        # One reformatter for all frames: making swscale's tables anew for each costs more than the conversion.
        converted = self.reformatter.reformat(frame, format="rgb24", threads=1)
        image = np.asarray(converted.to_ndarray(), np.uint8)  # (H, W, 3)
        upright = np.rot90(image, k=round(frame.rotation / 90)) if frame.rotation else image
        decoded.size = (upright.shape[1], upright.shape[0])
        picture = self.make_thumbnail(upright) if tick in decoded.thumbnail_ticks else b""
        decoded.images[tick] = self.prepare(upright), picture


class _UnexpectedFrameError(Exception):
    """A frame that the quick way does not trust."""


def check_decoded_share(share: float) -> float:
    """The share of a clip that could be decoded. Raises ClipError where it is under MIN_DECODED_SHARE."""
    if share < MIN_DECODED_SHARE:
        raise ClipError("decode", f"only {share:.0%} of the video could be decoded, {MIN_DECODED_SHARE:.0%} are needed")
    return share


def _collect_ticks(rows: Rows) -> set[int]:
    """The ticks of all rows of all views and windows."""
    return {tick for ticks in rows.values() for tick in ticks.ravel().tolist()}


def _find_thumbnail_ticks(rows: Rows) -> set[int]:
    """The ticks that somebody may look at: of each row of a view, and of each window, the middle one."""
    middles = ((name, ticks[:, ticks.shape[1] // 2]) for name, ticks in rows.items() if len(ticks))
    return {tick for name, each in middles for tick in (each if isinstance(name, str) else [each[len(each) // 2]])}


def _drop_undecoded_windows(rows: Rows, expected: Timeline, decoded: Sequence[int]) -> Rows:
    """Without the windows of which too little could be decoded: nothing is said of what nobody saw."""
    if not len(expected.ticks):
        return rows
    promised, came = (expected.to_seconds(np.sort(ticks)) for ticks in (expected.ticks, np.array(decoded, np.int64)))

    def is_seen(span: Span) -> bool:
        edges = span[0] - expected.last_frame_seconds, span[1]
        seen, whole = (int(np.diff(np.searchsorted(times, edges))[0]) for times in (came, promised))
        return seen >= MIN_DECODED_SHARE * whole

    return {name: ticks for name, ticks in rows.items() if isinstance(name, str) or is_seen(name)}


def _make_batch(decoded: _DecodedFrames, timeline: Timeline, rows: Rows, span: Span, share: float) -> FrameBatch:
    kept = np.array(sorted(_collect_ticks(rows) & decoded.images.keys()), np.int64)
    found = {name: ticks[np.isin(ticks, kept).all(axis=1)] for name, ticks in rows.items()}
    there = {name: ticks for name, ticks in found.items() if len(ticks) or isinstance(name, str)}
    if not there or not all(len(ticks) for ticks in there.values()):
        raise ClipError("decode", "none of the wanted frames could be decoded")
    return FrameBatch(
        data=np.stack([decoded.images[tick][0] for tick in kept.tolist()]),  # (N, S, S, 3) or (N,)
        times=(timeline.to_seconds(kept) - span[0]).clip(0),
        duration=min(timeline.duration, span[1]) - span[0],
        size=decoded.size,
        rows={name: np.searchsorted(kept, ticks) for name, ticks in there.items()},
        decoded_share=share,
        thumbnails=tuple(decoded.images[tick][1] for tick in kept.tolist()),
    )


def _tick_from_pts(frame: VideoFrame, count: int) -> int:
    return frame.pts if frame.pts is not None else -1


def _tick_from_order(frame: VideoFrame, count: int) -> int:
    return count


def _read_packets_from(
    container: InputContainer, stream: VideoStream, packet_cache: list[av.Packet] | None, timeline: Timeline, start: int
) -> Iterator[av.Packet]:
    """The stream's packets from a decode index on."""
    if packet_cache is not None:
        return iter(packet_cache[start:])
    tick = dict(timeline.seek_points)[start]
    container.seek(tick, stream=stream, backward=True)
    return _skip_to_keyframe(container.demux(stream), tick, is_first=start == 0)


def _skip_to_keyframe(packets: Iterable[av.Packet], tick: int, *, is_first: bool) -> Iterator[av.Packet]:
    """Packets from the keyframe of `tick` on, or from the very first. Seeking may land a little before it."""
    found = is_first
    for packet in packets:
        found = found or (packet.is_keyframe and packet.pts == tick)
        if not found and packet.pts is not None and packet.is_keyframe and packet.pts > tick:
            raise _UnexpectedFrameError
        if found and packet.size:
            yield packet


def _set_frame_skipping(stream: VideoStream, skip: bool) -> None:
    """Whether frames that nothing refers to are passed over; without threads a decoder obeys at the next packet."""
    wish: Literal["NONREF", "DEFAULT"] = "NONREF" if skip else "DEFAULT"
    if stream.codec_context.skip_frame != wish:
        stream.codec_context.skip_frame = wish


def _decode_frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame | None]:
    """Every frame that decodes, in presentation order; None where a packet does not."""
    for packet in iterate_until_error(container.demux(stream)):
        if packet.size:
            yield from _decode_packet(stream, packet)
    yield from _decode_packet(stream, None)


def _decode_packet(stream: VideoStream, packet: av.Packet | None) -> list[VideoFrame] | list[None]:
    try:
        return stream.decode(packet)
    except av.error.FFmpegError:
        return [None]
