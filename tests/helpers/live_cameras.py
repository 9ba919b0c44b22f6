"""Settings and functions for tests that read live cameras."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from features.live.cameras import LiveCameras
from features.live.source import Timeouts
from features.live.types import LiveFrame, StatusChange
from features.spec import Preprocessing
from tests.helpers.data.videos import SIZE
from tests.helpers.servers.rtsp import MISSING, has_server

WHOLE = Preprocessing(size=SIZE[0], fit="squash")
SHORT_TIMEOUTS = Timeouts(open_seconds=2, read_seconds=2, hang_seconds=5)
needs_rtsp = pytest.mark.skipif(not has_server(), reason=MISSING)


def collect(
    live: LiveCameras, is_enough: Callable[[list[Any]], bool], limit: float = 90.0
) -> list[LiveFrame | StatusChange]:
    """Poll until `is_enough` accepts the items so far, at most `limit` seconds, and return the items."""
    found: list[LiveFrame | StatusChange] = []
    deadline = time.monotonic() + limit
    while not is_enough(found):
        assert time.monotonic() < deadline, (found[-3:], live.counters())
        found += live.poll(0.5)
    return found


def frames_of(found: list[LiveFrame | StatusChange], camera: str = "yard") -> list[LiveFrame]:
    return [item for item in found if isinstance(item, LiveFrame) and item.camera == camera]


def kinds_of(found: list[LiveFrame | StatusChange], camera: str = "yard") -> list[str]:
    return [item.kind for item in found if isinstance(item, StatusChange) and item.camera == camera]
