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

from features.live.pacing import MAX_TIME_JUMP_SECONDS

MAX_BUFFER_BYTES = 64 * 1024 * 1024
"""Bytes of packets that are kept of one camera at most."""

PACKET_OVERHEAD_BYTES = 400
"""What a packet takes besides its data, about."""


@dataclass(frozen=True)
class EncodedPacket:
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
    def size_bytes(self) -> int:
        """Bytes that it takes."""
        return len(self.data) + PACKET_OVERHEAD_BYTES


@dataclass
class _KeyframeGroup:
    """A keyframe, and the packets that follow it up to the next one."""

    packets: list[EncodedPacket]
    size_bytes: int = 0

    @property
    def started_at(self) -> float:
        return self.packets[0].arrived


class PacketBuffer:
    """The packets of the last `seconds`, from a keyframe on: they fall out at the old end, a keyframe and its followers
    at a time, once the next keyframe is older than `seconds`, or there are more than `max_bytes`.

    A keyframe whose followers alone are more than that is forgotten with all of them, until the next keyframe.
    """

    def __init__(self, seconds: float, *, max_bytes: int = MAX_BUFFER_BYTES) -> None:
        self.seconds, self._max_bytes = seconds, max_bytes
        self._groups: deque[_KeyframeGroup] = deque()
        self._size_bytes = 0
        self._last_seconds: float | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes that are kept."""
        return self._size_bytes

    def clear(self) -> None:
        """Forgets all packets: the next ones are of another connection."""
        self._groups.clear()
        self._size_bytes, self._last_seconds = 0, None

    def add(self, packet: EncodedPacket) -> None:
        """The packet that came last. Where the stream's clock leaps, all before it is forgotten."""
        if packet.seconds is not None:
            if (
                self._last_seconds is not None
                and not self._last_seconds - 1.0 <= packet.seconds <= self._last_seconds + MAX_TIME_JUMP_SECONDS
            ):
                self.clear()
            self._last_seconds = packet.seconds
        if packet.is_keyframe:
            self._groups.append(_KeyframeGroup([]))
        if self._groups:
            self._groups[-1].packets.append(packet)
            self._groups[-1].size_bytes += packet.size_bytes
            self._size_bytes += packet.size_bytes
            self._evict(packet.arrived - self.seconds)

    def packets_between(self, since: float, until: float) -> tuple[EncodedPacket, ...]:
        """What arrived from the last keyframe at or before `since`, or the first that is kept, up to `until`.

        Empty where nothing that arrived between the two is kept.
        """
        groups = [group for group in self._groups if group.started_at <= until]
        first = max((i for i, group in enumerate(groups) if group.started_at <= since), default=0)
        kept = chain.from_iterable(group.packets for group in groups[first:])
        packets = tuple(takewhile(lambda packet: packet.arrived <= until, kept))
        return packets if packets and packets[-1].arrived >= since else ()

    def _evict(self, oldest: float) -> None:
        while len(self._groups) > 1 and (self._groups[1].started_at <= oldest or self._size_bytes > self._max_bytes):
            self._size_bytes -= self._groups.popleft().size_bytes
        if self._size_bytes > self._max_bytes:
            self._groups.clear()
            self._size_bytes = 0


MPEG_TIME_BASE = Fraction(1, 90_000)

BROWSER_CODECS = ("h264", "hevc", "vp9", "av1")
"""What browsers play out of MP4."""

_BROWSER_PIXEL_FORMATS = ("yuv420p", "yuvj420p")
"""Of H.264: few browsers decode any others."""


@dataclass(frozen=True)
class StreamParameters:
    """How a stream is coded: enough to decode or copy its packets when it is closed already."""

    stream: VideoStream
    """A copy of the stream's parameters, of a file in memory that is never written."""
    time_base: Fraction
    """Seconds of the packets' times."""

    @property
    def is_browser_playable(self) -> bool:
        """Whether browsers play it as it is."""
        codec = self.stream.codec_context
        return codec.codec.canonical_name in BROWSER_CODECS and (
            codec.codec.canonical_name != "h264" or codec.pix_fmt in _BROWSER_PIXEL_FORMATS
        )

    def copy_stream(self) -> VideoStream:
        """Another copy, whose decoder is as good as new."""
        return _copy_parameters(self.stream)


class PacketTap:
    """Keeps what a camera's connections give, as packets of `ring`; the last connection's stay until the next one's."""

    def __init__(self, seconds: float) -> None:
        self.buffer = PacketBuffer(seconds)
        self.parameters: StreamParameters | None = None

    def pass_through(
        self, packets: Iterable[av.Packet], stream: VideoStream, *, by_arrival: bool = False
    ) -> Iterator[av.Packet]:
        """The packets of a new connection, as they are taken; `by_arrival` where their own times mean nothing."""
        if not self.buffer.seconds:
            yield from packets
            return
        self.buffer.clear()
        self.parameters = StreamParameters(
            _copy_parameters(stream), (not by_arrival and stream.time_base) or MPEG_TIME_BASE
        )
        for packet in packets:
            if packet.size:
                self.buffer.add(_copy_packet(packet, time.monotonic(), by_arrival=by_arrival))
            yield packet


def _copy_parameters(stream: VideoStream) -> VideoStream:
    holder = av.open(io.BytesIO(), "w", format="nut")  # it takes any codec
    return holder.add_stream_from_template(stream, opaque=True)


def _copy_packet(packet: av.Packet, arrived: float, *, by_arrival: bool) -> EncodedPacket:
    if by_arrival:
        at = round(arrived / MPEG_TIME_BASE)
        return EncodedPacket(bytes(packet), arrived, packet.is_keyframe, at, at)
    seconds = None if packet.dts is None or packet.time_base is None else float(packet.dts * packet.time_base)
    return EncodedPacket(bytes(packet), arrived, packet.is_keyframe, packet.pts, packet.dts, seconds)
