"""Buffers the encoded packets of a camera's connection and records how they are encoded."""

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
"""Most memory for the packets of one camera."""

PACKET_OVERHEAD_BYTES = 400
"""Approximate memory of a packet without its data."""


@dataclass(frozen=True)
class EncodedPacket:
    """An encoded packet.

    Its data is a copy, because demuxers return buffers that belong to a driver or that are much larger than the packet.
    """

    data: bytes = field(repr=False)
    arrived: float
    """Time of arrival by the monotonic clock, in seconds."""
    is_keyframe: bool
    pts: int | None = None
    dts: int | None = None
    """Presentation and decoding time, in ticks of the stream."""
    seconds: float | None = None
    """Decoding time by the stream's clock, or None if that clock is unusable."""

    @property
    def size_bytes(self) -> int:
        """Memory that the packet takes, in bytes."""
        return len(self.data) + PACKET_OVERHEAD_BYTES


@dataclass
class _KeyframeGroup:
    """A keyframe and the packets up to the next one."""

    packets: list[EncodedPacket]
    size_bytes: int = 0

    @property
    def started_at(self) -> float:
        return self.packets[0].arrived


class PacketBuffer:
    """The packets of the last `seconds`, starting at a keyframe.

    Old packets are removed one keyframe group at a time, once the next keyframe is older than `seconds` or the buffer
    exceeds `max_bytes`. If a single group exceeds `max_bytes`, it is removed, and packets are dropped until the next
    keyframe.
    """

    def __init__(self, seconds: float, *, max_bytes: int = MAX_BUFFER_BYTES) -> None:
        self.seconds, self._max_bytes = seconds, max_bytes
        self._groups: deque[_KeyframeGroup] = deque()
        self._size_bytes = 0
        self._last_seconds: float | None = None

    @property
    def size_bytes(self) -> int:
        """Memory that the buffered packets take, in bytes."""
        return self._size_bytes

    def clear(self) -> None:
        """Remove all packets: the next ones belong to another connection."""
        self._groups.clear()
        self._size_bytes, self._last_seconds = 0, None

    def add(self, packet: EncodedPacket) -> None:
        """Add the newest packet. If the stream's clock jumps, all earlier packets are removed."""
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
        """Return the packets that arrived from the last keyframe at or before `since` up to `until`.

        If no keyframe is that old, they start at the oldest one in the buffer. The result is empty if no buffered
        packet arrived between the two times.
        """
        groups = [group for group in self._groups if group.started_at <= until]
        first = max((i for i, group in enumerate(groups) if group.started_at <= since), default=0)
        buffered = chain.from_iterable(group.packets for group in groups[first:])
        packets = tuple(takewhile(lambda packet: packet.arrived <= until, buffered))
        return packets if packets and packets[-1].arrived >= since else ()

    def _evict(self, oldest: float) -> None:
        while len(self._groups) > 1 and (self._groups[1].started_at <= oldest or self._size_bytes > self._max_bytes):
            self._size_bytes -= self._groups.popleft().size_bytes
        if self._size_bytes > self._max_bytes:
            self._groups.clear()
            self._size_bytes = 0


MPEG_TIME_BASE = Fraction(1, 90_000)

BROWSER_CODECS = ("h264", "hevc", "vp9", "av1")
"""Codecs that browsers play in MP4."""

_BROWSER_PIXEL_FORMATS = ("yuv420p", "yuvj420p")
"""Pixel formats of H.264 that most browsers decode."""


@dataclass(frozen=True)
class StreamParameters:
    """How a stream is encoded: enough to decode or copy its packets after it was closed."""

    stream: VideoStream
    """A copy of the stream's parameters; it belongs to a file in memory that is never written."""
    time_base: Fraction
    """Seconds per tick of the packets' times."""

    @property
    def is_browser_playable(self) -> bool:
        """True if browsers play the stream without transcoding."""
        codec = self.stream.codec_context
        return codec.codec.canonical_name in BROWSER_CODECS and (
            codec.codec.canonical_name != "h264" or codec.pix_fmt in _BROWSER_PIXEL_FORMATS
        )

    def copy_stream(self) -> VideoStream:
        """Return another copy, with a fresh decoder."""
        return _copy_parameters(self.stream)


class PacketTap:
    """Buffers the packets of a camera's connections. Those of the last connection stay until the next one."""

    def __init__(self, seconds: float) -> None:
        self.buffer = PacketBuffer(seconds)
        self.parameters: StreamParameters | None = None

    def pass_through(
        self, packets: Iterable[av.Packet], stream: VideoStream, *, by_arrival: bool = False
    ) -> Iterator[av.Packet]:
        """Yield the packets of a new connection unchanged and buffer copies of them.

        Set `by_arrival` if the packets' own times are meaningless; their times of arrival are then used.
        """
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
    holder = av.open(io.BytesIO(), "w", format="nut")  # this format accepts any codec
    return holder.add_stream_from_template(stream, opaque=True)


def _copy_packet(packet: av.Packet, arrived: float, *, by_arrival: bool) -> EncodedPacket:
    if by_arrival:
        ticks = round(arrived / MPEG_TIME_BASE)
        return EncodedPacket(bytes(packet), arrived, packet.is_keyframe, ticks, ticks)
    seconds = None if packet.dts is None or packet.time_base is None else float(packet.dts * packet.time_base)
    return EncodedPacket(bytes(packet), arrived, packet.is_keyframe, packet.pts, packet.dts, seconds)
