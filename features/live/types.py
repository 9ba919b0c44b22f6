"""What is handed over of a camera: frames, what there is to tell, and numbers."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from features.live.health import CameraState, StatusChangeKind


@dataclass(frozen=True)
class LiveFrame:
    """One frame of a camera, ready for the backbone.

    `seconds` are the stream's own, since the first frame of its `session`: a number that grows with each connection,
    and with each leap of the stream's clock. Windows never reach across sessions.
    """

    camera: str
    session: int
    seconds: float
    wall: datetime  # UTC, when it came
    arrived: float  # by the monotonic clock of this machine
    pixels: NDArray[np.uint8]  # (S, S, 3) RGB, as `features.transform.prepare` gives it
    jpeg: bytes = b""
    """The whole picture, small; empty where none was asked for."""


@dataclass(frozen=True)
class StatusChange:
    """What is told of a camera, once: it is `offline`, it is `back`, or its file has `ended`."""

    camera: str
    kind: StatusChangeKind
    at: datetime  # UTC
    since: datetime | None
    """When the last frame came before; None: never."""
    reason: str = ""
    """Why it is offline; of a replay that ended, `played to its end` or why not."""


@dataclass(frozen=True)
class CameraCounters:
    """A camera in numbers, counted since watching began."""

    state: CameraState
    decoded: int
    """Frames that came."""
    picked: int
    """Frames at the wanted rate: those that were taken, that wait, and that were dropped."""
    dropped: int
    """Picked frames that nobody took in time."""
    skipped: int
    """Packets passed over undecoded because the reader had fallen behind."""
    reconnects: int
    last_frame_age: float | None
    """Seconds since the newest frame that was taken came; None: there was none."""
    reason: str
    """Why the last connection ended."""
