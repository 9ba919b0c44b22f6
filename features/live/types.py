"""What live cameras deliver: frames, status changes and counters."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from features.live.health import CameraState, StatusChangeKind


@dataclass(frozen=True)
class LiveFrame:
    """One frame of a camera, ready for the backbone.

    `seconds` is the time of the stream since the first frame of its `session`. The session number grows with each
    connection and with each jump of the stream's clock. Windows never reach across sessions.
    """

    camera: str
    session: int
    seconds: float
    wall: datetime  # UTC time of arrival
    arrived: float  # time of arrival by this machine's monotonic clock
    pixels: NDArray[np.uint8]  # (S, S, 3) RGB, as `preprocess_frame` returns it
    jpeg: bytes = b""
    """A small JPEG of the whole frame; empty if no thumbnails were requested."""


@dataclass(frozen=True)
class StatusChange:
    """A change of a camera that is reported once: it is `offline`, it is `back`, or its file has `ended`."""

    camera: str
    kind: StatusChangeKind
    at: datetime  # UTC
    since: datetime | None
    """Time of the last frame before the change, or None if there was none."""
    reason: str = ""
    """Why the camera is offline. For a file that ended, `played to its end` or the error that stopped it."""


@dataclass(frozen=True)
class CameraCounters:
    """The counters of a camera since `open_cameras`, and its current state."""

    state: CameraState
    decoded: int
    """Frames decoded."""
    picked: int
    """Frames picked at the requested rate, whether delivered, waiting or dropped."""
    dropped: int
    """Picked frames that were overwritten before they were taken."""
    skipped: int
    """Packets skipped without decoding because the reader had fallen behind."""
    reconnects: int
    last_frame_age: float | None
    """Seconds since the arrival of the newest frame taken, or None if there was none."""
    reason: str
    """Why the last connection ended."""
