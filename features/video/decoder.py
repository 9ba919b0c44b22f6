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
from features.video.container import MAX_PIXELS, check_regular, check_size, opened_file, tells_enough
from features.video.sampling import Pick, Rows
from features.video.timeline import WHOLE, Timeline, read_timeline, until_error

MIN_DECODED_SHARE = 0.5
"""A clip of which less can be decoded is a failure, not a partial clip."""

HELD_BYTES = 64 * 2**20
"""The packets of a smaller file are held in memory, so that it is opened and read once."""

Image = NDArray[np.uint8]  # (H, W, 3) RGB
Kept = Image | np.int64
"""What is kept of a frame: its pixels, or a number by which somebody knows it."""


def read_frames(
    file: Path,
    pick: Pick,
    prepare: Callable[[Image], Kept],
    *,
    span: Span = WHOLE,
    picture: Callable[[Image], bytes] = lambda image: b"",
    max_pixels: int = MAX_PIXELS,
    alive: Callable[[], None] = lambda: None,
    quick: bool = True,
) -> FrameBatch:
    """Decodes a file and keeps the frames that `pick` wants of `span`, each put through `prepare` and `picture`.

    The picks are made on the packets' timestamps; where the decoder then gives other frames than the packets promised
    (damage, missing timestamps), they are made again on what was decoded. Time 0 is the start of the span. `alive` is
    called for every decoded frame. Raises ClipError where the file is no video or under half of it can be decoded.
    `quick=False` goes the sure way at once.
    """
    is_small = check_regular(file) <= HELD_BYTES
    reader = _Reader(file, prepare, picture, alive)
    for is_probed in (False, True):
        with opened_file(file, is_probed=is_probed, max_pixels=max_pixels) as (container, stream):
            if not is_probed and not (quick and tells_enough(container, stream)):
                continue
            check_size(stream, max_pixels)
            held: list[av.Packet] | None = [] if is_small else None
            timeline = read_timeline(container, stream, held=held)
            rows = timeline.pick(pick, span)
            is_whole = quick and rows and not timeline.unsound
            decoded = reader.quick(container, stream, held, timeline, rows) if is_whole else None
        if decoded is not None:
            return _batch(decoded, timeline, rows, span, enough(timeline.covered_in(span)))
    return reader.sure(timeline, pick, span)


@dataclass
class _Decoded:
    pictured: Set[int]
    """Of which ticks there shall be a picture."""
    images: dict[int, tuple[Kept, bytes]] = field(default_factory=dict)
    ticks: list[int] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class _Reader:
    """One file, and what is made of the frames that are kept."""

    file: Path
    prepare: Callable[[Image], Kept]
    picture: Callable[[Image], bytes]
    alive: Callable[[], None]
    reformatter: VideoReformatter = field(default_factory=VideoReformatter)

    def quick(
        self,
        container: InputContainer,
        stream: VideoStream,
        held: list[av.Packet] | None,
        timeline: Timeline,
        rows: Rows,
    ) -> _Decoded | None:
        """The wanted frames and no more than they need; None where anything is odd."""
        decoded, wanted = _Decoded(_pictured(rows)), _wanted(rows)
        packets: Iterator[av.Packet] = iter(())
        at = -1  # the decode index of the next packet
        try:
            for tick in sorted(wanted):
                start = timeline.start_for(tick)
                if at < 0 or start > at:
                    stream.codec_context.flush_buffers()
                    packets, at = _from(container, stream, held, timeline, start), start
                while tick not in decoded.images:
                    packet = next(packets, None)
                    at += 1
                    _pass_over(stream, packet is not None and packet.pts not in wanted)
                    for frame in stream.decode(packet):
                        self._take(frame, wanted, decoded)
                    if packet is None and tick not in decoded.images:
                        return None
        except (av.error.FFmpegError, _OddError):
            return None
        return decoded

    def sure(self, promise: Timeline, pick: Pick, span: Span) -> FrameBatch:
        """Everything in order, and the picks made among the frames that came."""
        by_time = _by_time if len(promise.ticks) else _by_order
        decoded = self._decode_all(promise.pick(pick, span), name=by_time, unsound=promise.unsound)
        if not decoded.ticks:
            raise ClipError("decode", "no frame could be decoded")
        share = enough(promise.share(decoded.ticks, span))
        order, actual = sorted(decoded.ticks), promise.replaced_by(decoded.ticks)
        rows = _seen(actual.pick(pick, span), promise, decoded.ticks)
        if not len(promise.ticks):  # a bare stream promised nothing: only now is its end known
            share = enough(actual.covered_in(span))
        missing = _wanted(rows) - decoded.images.keys()
        if any(a >= b for a, b in pairwise(decoded.ticks)):  # AVI with B-frames: the order is right, the times are not
            decoded = self._decode_all(rows, name=lambda frame, count: order[min(count, len(order) - 1)])
        elif missing:
            again = self._decode_all(rows, but=decoded.images.keys(), name=by_time, unsound=promise.unsound)
            again.images.update(decoded.images)
            decoded = again
        return _batch(decoded, actual, rows, span, share)

    def _decode_all(
        self,
        rows: Rows,
        *,
        but: Set[int] = frozenset(),
        name: Callable[[VideoFrame, int], int],
        unsound: Sequence[tuple[int, int]] = (),
    ) -> _Decoded:
        """One sequential pass, which keeps the frames of `rows` that are not in `but`.

        `name` gives the tick that a frame, the how-many-eth, is known by.

        After damage nothing counts until the next keyframe: the frames in between are built on it. Nor does what lies
        in an `unsound` span [from, to) of ticks.
        """
        decoded, wanted, is_sound = _Decoded(_pictured(rows)), _wanted(rows) - but, True
        with opened_file(self.file) as (container, stream):
            for frame in _frames(container, stream):
                self.alive()
                is_sound = frame is not None and not frame.is_corrupt and (is_sound or frame.key_frame)
                if frame is None or not is_sound:
                    continue
                tick = name(frame, len(decoded.ticks))
                if any(start <= tick < end for start, end in unsound):
                    continue
                decoded.ticks.append(tick)
                if tick in wanted:
                    self._keep(frame, tick, decoded)
        return decoded

    def _take(self, frame: VideoFrame, wanted: set[int], decoded: _Decoded) -> None:
        self.alive()
        if frame.is_corrupt or frame.pts is None or (decoded.ticks and frame.pts <= decoded.ticks[-1]):
            raise _OddError
        decoded.ticks.append(frame.pts)
        if frame.pts in wanted:
            self._keep(frame, frame.pts, decoded)

    def _keep(self, frame: VideoFrame, tick: int, decoded: _Decoded) -> None:
        # One reformatter for all frames: making swscale's tables anew for each costs more than the conversion.
        converted = self.reformatter.reformat(frame, format="rgb24", threads=1)
        image = np.asarray(converted.to_ndarray(), np.uint8)  # (H, W, 3)
        upright = np.rot90(image, k=round(frame.rotation / 90)) if frame.rotation else image
        decoded.size = (upright.shape[1], upright.shape[0])
        picture = self.picture(upright) if tick in decoded.pictured else b""
        decoded.images[tick] = self.prepare(upright), picture


class _OddError(Exception):
    """A frame that the quick way does not trust."""


def enough(share: float) -> float:
    """The share of a clip that could be decoded. Raises ClipError where it is under MIN_DECODED_SHARE."""
    if share < MIN_DECODED_SHARE:
        raise ClipError("decode", f"only {share:.0%} of the video could be decoded, {MIN_DECODED_SHARE:.0%} are needed")
    return share


def _wanted(rows: Rows) -> set[int]:
    """The ticks of all rows of all views and windows."""
    return {tick for ticks in rows.values() for tick in ticks.ravel().tolist()}


def _pictured(rows: Rows) -> set[int]:
    """The ticks that somebody may look at: of each row of a view, and of each window, the middle one."""
    middles = ((name, ticks[:, ticks.shape[1] // 2]) for name, ticks in rows.items() if len(ticks))
    return {tick for name, each in middles for tick in (each if isinstance(name, str) else [each[len(each) // 2]])}


def _seen(rows: Rows, promise: Timeline, decoded: Sequence[int]) -> Rows:
    """Without the windows of which too little could be decoded: nothing is said of what nobody saw."""
    if not len(promise.ticks):
        return rows
    promised, came = (promise.seconds(np.sort(ticks)) for ticks in (promise.ticks, np.array(decoded, np.int64)))

    def is_seen(span: Span) -> bool:
        edges = span[0] - promise.last_seconds, span[1]
        seen, whole = (int(np.diff(np.searchsorted(times, edges))[0]) for times in (came, promised))
        return seen >= MIN_DECODED_SHARE * whole

    return {name: ticks for name, ticks in rows.items() if isinstance(name, str) or is_seen(name)}


def _batch(decoded: _Decoded, timeline: Timeline, rows: Rows, span: Span, share: float) -> FrameBatch:
    kept = np.array(sorted(_wanted(rows) & decoded.images.keys()), np.int64)
    found = {name: ticks[np.isin(ticks, kept).all(axis=1)] for name, ticks in rows.items()}
    there = {name: ticks for name, ticks in found.items() if len(ticks) or isinstance(name, str)}
    if not there or not all(len(ticks) for ticks in there.values()):
        raise ClipError("decode", "none of the wanted frames could be decoded")
    return FrameBatch(
        data=np.stack([decoded.images[tick][0] for tick in kept.tolist()]),  # (N, S, S, 3) or (N,)
        times=(timeline.seconds(kept) - span[0]).clip(0),
        duration=min(timeline.duration, span[1]) - span[0],
        size=decoded.size,
        rows={name: np.searchsorted(kept, ticks) for name, ticks in there.items()},
        decoded_share=share,
        pictures=tuple(decoded.images[tick][1] for tick in kept.tolist()),
    )


def _by_time(frame: VideoFrame, count: int) -> int:
    return frame.pts if frame.pts is not None else -1


def _by_order(frame: VideoFrame, count: int) -> int:
    return count


def _from(
    container: InputContainer, stream: VideoStream, held: list[av.Packet] | None, timeline: Timeline, start: int
) -> Iterator[av.Packet]:
    """The stream's packets from a decode index on."""
    if held is not None:
        return iter(held[start:])
    tick = dict(timeline.starts)[start]
    container.seek(tick, stream=stream, backward=True)
    return _after(container.demux(stream), tick, is_first=start == 0)


def _after(packets: Iterable[av.Packet], tick: int, *, is_first: bool) -> Iterator[av.Packet]:
    """Packets from the keyframe of `tick` on, or from the very first. Seeking may land a little before it."""
    found = is_first
    for packet in packets:
        found = found or (packet.is_keyframe and packet.pts == tick)
        if not found and packet.pts is not None and packet.is_keyframe and packet.pts > tick:
            raise _OddError
        if found and packet.size:
            yield packet


def _pass_over(stream: VideoStream, skip: bool) -> None:
    """Whether frames that nothing refers to are passed over; without threads a decoder obeys at the next packet."""
    wish: Literal["NONREF", "DEFAULT"] = "NONREF" if skip else "DEFAULT"
    if stream.codec_context.skip_frame != wish:
        stream.codec_context.skip_frame = wish


def _frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame | None]:
    """Every frame that decodes, in presentation order; None where a packet does not."""
    for packet in until_error(container.demux(stream)):
        if packet.size:
            yield from _decoded_packet(stream, packet)
    yield from _decoded_packet(stream, None)


def _decoded_packet(stream: VideoStream, packet: av.Packet | None) -> list[VideoFrame] | list[None]:
    try:
        return stream.decode(packet)
    except av.error.FFmpegError:
        return [None]
