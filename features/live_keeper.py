"""Keeps the packets of a camera's connection as they pass, and how they are coded."""

import io
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av.video.stream import VideoStream

from features.live_packets import Coded, PacketRing

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
