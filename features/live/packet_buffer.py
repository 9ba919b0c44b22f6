"""The last packets of a live stream, still coded, in memory: what clips of the moments before an event are made of."""

from collections import deque
from dataclasses import dataclass, field
from itertools import chain, takewhile

from features.live_rules import JUMP_SECONDS

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
