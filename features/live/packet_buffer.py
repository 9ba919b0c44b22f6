"""Keeps the packets of a camera's connection as they pass, and how they are coded."""

import io
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, takewhile

import av
from av.video.stream import VideoStream

from features.live.pacing import JUMP_SECONDS

MOST_BYTES = 64 * 1024 * 1024
"""Bytes of packets that are kept of one camera at most."""

PACKET_BYTES = 400
"""What a packet takes besides its data, about."""


@dataclass(frozen=True)
class Coded:
    """A packet. Its data are a copy: demuxers hand over buffers of the driver's, or far larger than what is in them."""

    data: bytes = field(repr=False)
    arrived: float
    """By the monotonic clock."""
    is_keyframe: bool
    pts: int | None = None
    dts: int | None = None
    """Ticks of the stream."""
    seconds: float | None = None
    """When it is decoded, by the stream's clock; None where that clock says nothing."""

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.data) + PACKET_BYTES


@dataclass
class _Group:
    """A keyframe, and the packets that follow it up to the next one."""

    packets: list[Coded]
    size: int = 0

    @property
    def began(self) -> float:
        return self.packets[0].arrived


class PacketRing:
    """The packets of the last `seconds`, from a keyframe on: they fall out at the old end, a keyframe and its followers
    at a time, once the next keyframe is older than `seconds`, or there are more than `most_bytes`.

    A keyframe whose followers alone are more than that is forgotten with all of them, until the next keyframe.
    """

    def __init__(self, seconds: float, *, most_bytes: int = MOST_BYTES) -> None:
        self.seconds, self._most_bytes = seconds, most_bytes
        self._groups: deque[_Group] = deque()
        self._size = 0
        self._last: float | None = None

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._size

    def clear(self) -> None:
        """Forgets all packets: the next ones are of another connection."""
        self._groups.clear()
        self._size, self._last = 0, None

    def add(self, packet: Coded) -> None:
        """The packet that came last. Where the stream's clock leaps, all before it is forgotten."""
        if packet.seconds is not None:
            if self._last is not None and not self._last - 1.0 <= packet.seconds <= self._last + JUMP_SECONDS:
                self.clear()
            self._last = packet.seconds
        if packet.is_keyframe:
            self._groups.append(_Group([]))
        if self._groups:
            self._groups[-1].packets.append(packet)
            self._groups[-1].size += packet.size
            self._size += packet.size
            self._forget(packet.arrived - self.seconds)

    def between(self, since: float, until: float) -> tuple[Coded, ...]:
        """What arrived from the last keyframe at or before `since`, or the first that is kept, up to `until`.

        Empty where nothing that arrived between the two is kept.
        """
        groups = [group for group in self._groups if group.began <= until]
        first = max((i for i, group in enumerate(groups) if group.began <= since), default=0)
        kept = chain.from_iterable(group.packets for group in groups[first:])
        packets = tuple(takewhile(lambda packet: packet.arrived <= until, kept))
        return packets if packets and packets[-1].arrived >= since else ()

    def _forget(self, oldest: float) -> None:
        while len(self._groups) > 1 and (self._groups[1].began <= oldest or self._size > self._most_bytes):
            self._size -= self._groups.popleft().size
        if self._size > self._most_bytes:
            self._groups.clear()
            self._size = 0


TICK = Fraction(1, 90_000)

COPIED_CODECS = ("h264", "hevc", "vp9", "av1")
"""What browsers play out of MP4."""

_PLAYED_PIXELS = ("yuv420p", "yuvj420p")
"""Of H.264: few browsers decode any others."""


@dataclass(frozen=True)
class Coding:
    """How a stream is coded: enough to decode or copy its packets when it is closed already."""

    stream: VideoStream
    """A copy of the stream's parameters, of a file in memory that is never written."""
    tick: Fraction
    """Seconds of the packets' times."""

    @property
    def is_copied(self) -> bool:
        """Whether browsers play it as it is."""
        codec = self.stream.codec_context
        return codec.codec.canonical_name in COPIED_CODECS and (
            codec.codec.canonical_name != "h264" or codec.pix_fmt in _PLAYED_PIXELS
        )

    def copied(self) -> VideoStream:
        """Another copy, whose decoder is as good as new."""
        return _copy(self.stream)


class Keeper:
    """Keeps what a camera's connections give, as packets of `ring`; the last connection's stay until the next one's."""

    def __init__(self, seconds: float) -> None:
        self.ring = PacketRing(seconds)
        self.coding: Coding | None = None

    def keeping(
        self, packets: Iterable[av.Packet], stream: VideoStream, *, by_arrival: bool = False
    ) -> Iterator[av.Packet]:
        """The packets of a new connection, as they are taken; `by_arrival` where their own times mean nothing."""
        if not self.ring.seconds:
            yield from packets
            return
        self.ring.clear()
        self.coding = Coding(_copy(stream), (not by_arrival and stream.time_base) or TICK)
        for packet in packets:
            if packet.size:
                self.ring.add(_coded(packet, time.monotonic(), by_arrival=by_arrival))
            yield packet


def _copy(stream: VideoStream) -> VideoStream:
    holder = av.open(io.BytesIO(), "w", format="nut")  # it takes any codec
    return holder.add_stream_from_template(stream, opaque=True)


def _coded(packet: av.Packet, arrived: float, *, by_arrival: bool) -> Coded:
    if by_arrival:
        at = round(arrived / TICK)
        return Coded(bytes(packet), arrived, packet.is_keyframe, at, at)
    seconds = None if packet.dts is None or packet.time_base is None else float(packet.dts * packet.time_base)
    return Coded(bytes(packet), arrived, packet.is_keyframe, packet.pts, packet.dts, seconds)
