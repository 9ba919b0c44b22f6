"""Camera events for tests, as the live detector makes them."""

from datetime import UTC, datetime, timedelta

from hazard.monitor.camera_watcher import EventChange
from hazard.monitor.detector import CameraEvent
from hazard.types import Event

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PICTURE = b"\xff\xd8\xff\xd9"


def make_camera_event(
    start: float,
    at: float,
    *,
    is_over: bool = False,
    is_cut: bool = False,
    camera: str = "door",
    session: float = 0.0,
    jpeg: bytes = PICTURE,
) -> CameraEvent:
    """Return the change at `at` of an event that began at `start`, in a session that began at `session`, in seconds."""
    event = Event("fight", start - session, at - session, 0.9, 0.9)
    change = EventChange(is_over, event, is_cut, is_from_session_start=start - session <= 1.0)
    return CameraEvent(camera, change, moment(at), 1, at - session, at, jpeg)


def moment(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)
