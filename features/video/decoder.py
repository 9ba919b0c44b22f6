"""The decoder: a video file to preprocessed frames, exact by timestamp.

The fast path decodes only what the sampled frames need. It starts at the keyframes before them if the container allows
it, and skips frames that no other frame refers to. If it meets an error, a corrupt frame or an unexpected timestamp,
the full path takes over: it decodes the whole file and samples among the frames that were really decoded.
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
"""Smallest decoded share of a partial clip. A clip below it is a failure."""

MAX_CACHED_PACKET_BYTES = 64 * 2**20
"""Size of the largest file whose packets are held in memory, so that it is opened and read only once."""

Image = NDArray[np.uint8]  # (H, W, 3) RGB
FrameData = Image | np.int64
"""What `prepare` returns for a frame: its pixels, or its number in a `StreamingEncoder`."""


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
    """Decode the frames that `sampler` selects from `span`, each passed through `prepare` and `make_thumbnail`.

    Frames are sampled by the packets' timestamps. If the decoder returns other frames than the packets announced
    (damage, missing timestamps), they are sampled again among the decoded frames. Time 0 is the start of the span.
    `report_alive` is called for every decoded frame. `try_fast=False` takes the full path at once. Raises ClipError if
    the file is not a video or less than half of the span can be decoded.
    """
    is_small = check_regular_file(file) <= MAX_CACHED_PACKET_BYTES
    reader = _Reader(file, prepare, make_thumbnail, report_alive)
    for is_probed in (False, True):
        with open_container(file, is_probed=is_probed, max_pixels=max_pixels) as (container, stream):
            if not is_probed and not (try_fast and can_skip_probing(container, stream)):
                continue
            check_frame_size(stream, max_pixels)
            packet_cache: list[av.Packet] | None = [] if is_small else None
            timeline = read_timeline(container, stream, packet_cache=packet_cache)
            rows = timeline.sample_rows(sampler, span)
            is_fast = try_fast and rows and not timeline.corrupt_spans
            decoded = reader.decode_fast(container, stream, packet_cache, timeline, rows) if is_fast else None
        if decoded is not None:
            return _make_batch(decoded, timeline, rows, span, check_decoded_share(timeline.compute_covered_share(span)))
    return reader.decode_fully(timeline, sampler, span)


@dataclass
class _DecodedFrames:
    thumbnail_ticks: Set[int]
    """The ticks of the frames that get a thumbnail."""
    images: dict[int, tuple[FrameData, bytes]] = field(default_factory=dict)
    ticks: list[int] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class _Reader:
    """A file and the functions that its sampled frames pass through."""

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
        """Decode the sampled frames and only the packets they need. Returns None if anything unexpected is met."""
        decoded, wanted = _DecodedFrames(_find_thumbnail_ticks(rows)), _collect_ticks(rows)
        packets: Iterator[av.Packet] = iter(())
        next_index = -1  # the decode index of the next packet
        try:
            for tick in sorted(wanted):
                start = timeline.find_start_index(tick)
                if next_index < 0 or start > next_index:
                    stream.codec_context.flush_buffers()
                    packets = _read_packets_from(container, stream, packet_cache, timeline, start)
                    next_index = start
                while tick not in decoded.images:
                    packet = next(packets, None)
                    next_index += 1
                    _set_frame_skipping(stream, packet is not None and packet.pts not in wanted)
                    for frame in stream.decode(packet):
                        self._accept_frame(frame, wanted, decoded)
                    if packet is None and tick not in decoded.images:
                        return None
        except (av.error.FFmpegError, _UnexpectedFrameError):
            return None
        return decoded

    def decode_fully(self, expected: Timeline, sampler: RowSampler, span: Span) -> FrameBatch:
        """Decode the whole file in order and sample among the decoded frames. Raises ClipError like `read_frames`."""
        by_time = _tick_from_pts if len(expected.ticks) else _tick_from_order
        decoded = self._decode_all(
            expected.sample_rows(sampler, span), get_tick=by_time, corrupt_spans=expected.corrupt_spans
        )
        if not decoded.ticks:
            raise ClipError("decode", "no frame could be decoded")
        share = check_decoded_share(expected.compute_decoded_share(decoded.ticks, span))
        sorted_ticks, actual = sorted(decoded.ticks), expected.with_decoded_ticks(decoded.ticks)
        rows = _drop_undecoded_windows(actual.sample_rows(sampler, span), expected, decoded.ticks)
        if not len(expected.ticks):  # a raw stream has no timestamps: its end is known only now
            share = check_decoded_share(actual.compute_covered_share(span))
        missing = _collect_ticks(rows) - decoded.images.keys()
        if any(
            a >= b for a, b in pairwise(decoded.ticks)
        ):  # AVI with B-frames: the order is right, the timestamps are not
            last = len(sorted_ticks) - 1
            decoded = self._decode_all(rows, get_tick=lambda frame, count: sorted_ticks[min(count, last)])
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
        """Decode the file once, in order, and keep the frames of `rows` whose ticks are not in `exclude`.

        `get_tick` returns the tick of a frame, given the frame and the number of frames decoded before it. After a
        damaged frame all frames up to the next keyframe are ignored, because they are predicted from it. Frames in
        `corrupt_spans`, spans [from, to) of ticks, are ignored too.
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
        # One reformatter serves all frames: setting up swscale's tables for each costs more than the conversion.
        converted = self.reformatter.reformat(frame, format="rgb24", threads=1)
        image = np.asarray(converted.to_ndarray(), np.uint8)  # (H, W, 3)
        upright = np.rot90(image, k=round(frame.rotation / 90)) if frame.rotation else image
        decoded.size = (upright.shape[1], upright.shape[0])
        thumbnail = self.make_thumbnail(upright) if tick in decoded.thumbnail_ticks else b""
        decoded.images[tick] = self.prepare(upright), thumbnail


class _UnexpectedFrameError(Exception):
    """A frame that sends the file from the fast path to the full path."""


def check_decoded_share(share: float) -> float:
    """Return the decoded share of a clip. Raises ClipError if it is below MIN_DECODED_SHARE."""
    if share < MIN_DECODED_SHARE:
        raise ClipError("decode", f"only {share:.0%} of the video could be decoded; {MIN_DECODED_SHARE:.0%} is needed")
    return share


def _collect_ticks(rows: Rows) -> set[int]:
    """Return the ticks of all rows of all views and windows."""
    return {tick for ticks in rows.values() for tick in ticks.ravel().tolist()}


def _find_thumbnail_ticks(rows: Rows) -> set[int]:
    """Return the ticks that get a thumbnail: the middle frame of each row of a view, and of each window."""
    all_middles = ((name, ticks[:, ticks.shape[1] // 2]) for name, ticks in rows.items() if len(ticks))
    return {
        tick
        for name, middles in all_middles
        for tick in (middles if isinstance(name, str) else [middles[len(middles) // 2]])
    }


def _drop_undecoded_windows(rows: Rows, expected: Timeline, decoded: Sequence[int]) -> Rows:
    """Return the rows without the windows whose decoded share is below MIN_DECODED_SHARE."""
    if not len(expected.ticks):
        return rows
    expected_times, decoded_times = (
        expected.to_seconds(np.sort(ticks)) for ticks in (expected.ticks, np.array(decoded, np.int64))
    )

    def is_decoded(span: Span) -> bool:
        edges = span[0] - expected.last_frame_seconds, span[1]
        found, wanted = (int(np.diff(np.searchsorted(times, edges))[0]) for times in (decoded_times, expected_times))
        return found >= MIN_DECODED_SHARE * wanted

    return {name: ticks for name, ticks in rows.items() if isinstance(name, str) or is_decoded(name)}


def _make_batch(decoded: _DecodedFrames, timeline: Timeline, rows: Rows, span: Span, share: float) -> FrameBatch:
    decoded_ticks = np.array(sorted(_collect_ticks(rows) & decoded.images.keys()), np.int64)
    complete = {name: ticks[np.isin(ticks, decoded_ticks).all(axis=1)] for name, ticks in rows.items()}
    found = {name: ticks for name, ticks in complete.items() if len(ticks) or isinstance(name, str)}
    if not found or not all(len(ticks) for ticks in found.values()):
        raise ClipError("decode", "none of the sampled frames could be decoded")
    return FrameBatch(
        data=np.stack([decoded.images[tick][0] for tick in decoded_ticks.tolist()]),  # (N, S, S, 3) or (N,)
        times=(timeline.to_seconds(decoded_ticks) - span[0]).clip(0),
        duration=min(timeline.duration, span[1]) - span[0],
        size=decoded.size,
        rows={name: np.searchsorted(decoded_ticks, ticks) for name, ticks in found.items()},
        decoded_share=share,
        thumbnails=tuple(decoded.images[tick][1] for tick in decoded_ticks.tolist()),
    )


def _tick_from_pts(frame: VideoFrame, count: int) -> int:
    return frame.pts if frame.pts is not None else -1


def _tick_from_order(frame: VideoFrame, count: int) -> int:
    return count


def _read_packets_from(
    container: InputContainer, stream: VideoStream, packet_cache: list[av.Packet] | None, timeline: Timeline, start: int
) -> Iterator[av.Packet]:
    """Return the packets of the stream from a decode index on."""
    if packet_cache is not None:
        return iter(packet_cache[start:])
    tick = dict(timeline.seek_points)[start]
    container.seek(tick, stream=stream, backward=True)
    return _skip_to_keyframe(container.demux(stream), tick, is_first=start == 0)


def _skip_to_keyframe(packets: Iterable[av.Packet], tick: int, *, is_first: bool) -> Iterator[av.Packet]:
    """Yield packets from the keyframe at `tick` on, or all if `is_first`. Seeking may land a little before it.

    Raises _UnexpectedFrameError if a later keyframe comes first.
    """
    found = is_first
    for packet in packets:
        found = found or (packet.is_keyframe and packet.pts == tick)
        if not found and packet.pts is not None and packet.is_keyframe and packet.pts > tick:
            raise _UnexpectedFrameError
        if found and packet.size:
            yield packet


def _set_frame_skipping(stream: VideoStream, skip: bool) -> None:
    """Set whether the decoder skips unreferenced frames. Without threads this holds from the next packet on."""
    mode: Literal["NONREF", "DEFAULT"] = "NONREF" if skip else "DEFAULT"
    if stream.codec_context.skip_frame != mode:
        stream.codec_context.skip_frame = mode


def _decode_frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame | None]:
    """Yield every decoded frame in presentation order, and None for each packet that cannot be decoded."""
    for packet in iterate_until_error(container.demux(stream)):
        if packet.size:
            yield from _decode_packet(stream, packet)
    yield from _decode_packet(stream, None)


def _decode_packet(stream: VideoStream, packet: av.Packet | None) -> list[VideoFrame] | list[None]:
    try:
        return stream.decode(packet)
    except av.error.FFmpegError:
        return [None]
