"""The desktop window of a monitor: an observer that sends tiles to the window's process."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Pipe

from features.errors import RuntimeEnvironmentError
from features.live.types import LiveFrame, StatusChange
from hazard.monitor.cameras import CameraSettings
from hazard.monitor.detector import LiveDetector
from hazard.monitor.display.tile import Tile
from hazard.monitor.display.tile_updater import TileUpdater
from hazard.monitor.display.window import CLOSED, NO_GUI

MIN_REDRAW_SECONDS = 1 / 15
"""Shortest time between two updates of the window."""
START_TIMEOUT_SECONDS = 60.0
"""Longest wait for the display to open a window."""
REINSTALL_COMMAND = "python -m pip install --force-reinstall --no-deps opencv-python"
NO_WINDOW_ADVICE = "leave --window out: all results are in the output folder"

log = logging.getLogger(__name__)


@contextmanager
def open_screen(detector: LiveDetector, cameras: Sequence[CameraSettings]) -> Iterator["Screen"]:
    """Show a window with all cameras until the block ends. Raises RuntimeEnvironmentError if none can be opened."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise RuntimeEnvironmentError(
            f"--window needs a desktop, but neither DISPLAY nor WAYLAND_DISPLAY is set; {NO_WINDOW_ADVICE}"
        )
    updaters = [TileUpdater(camera, detector.watchers[camera.name]) for camera in cameras]
    ours, theirs = Pipe()
    process = _start_process(theirs)
    theirs.close()
    try:
        _wait_until_ready(ours, [updater.tile for updater in updaters])
        screen = Screen(updaters, ours)
        try:
            yield screen
        finally:
            process.kill()
            screen.stop()
    finally:
        process.kill()
        process.wait()
        ours.close()


def _start_process(connection: Connection) -> subprocess.Popen[bytes]:
    """Start a fresh interpreter, since a process of `multiprocessing` may have imported PyAV; see `window.py`."""
    number = connection.fileno()
    code = f"from hazard.monitor.display.window import *; serve_window(Connection({number}))"
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        pass_fds=[number],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # Qt's warnings about fonts and displays
        start_new_session=True,  # Ctrl-C is handled by the parent
    )


def _wait_until_ready(connection: Connection, tiles: Sequence[Tile]) -> None:
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY", "here")
    try:
        connection.send(tiles)
        if not connection.poll(START_TIMEOUT_SECONDS):
            raise RuntimeEnvironmentError(f"--window: display {display} does not answer; {NO_WINDOW_ADVICE}")
        if connection.recv() == NO_GUI:
            raise RuntimeEnvironmentError(
                "--window: this OpenCV was built without windows; put opencv-python in the place of "
                f"opencv-python-headless: {REINSTALL_COMMAND}, or {NO_WINDOW_ADVICE}"
            )
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise RuntimeEnvironmentError(
            f"--window: no window can be opened on display {display}; {NO_WINDOW_ADVICE}"
        ) from None


class Screen:
    """The window of one `open_screen` block, as an observer of `watch_cameras`. It never waits for the window."""

    def __init__(self, updaters: Sequence[TileUpdater], connection: Connection) -> None:
        self._updaters = list(updaters)
        self._updater_by_camera = {updater.camera.name: updater for updater in updaters}
        self._connection = connection
        self._last_tiles = [updater.tile for updater in updaters]
        self._due_tiles: dict[int, Tile] = {}
        self._changed = threading.Condition()
        self._is_closed = self._is_crashed = self._is_stopped = False
        self._sender = threading.Thread(target=self._send_tiles, daemon=True)
        self._sender.start()

    @property
    def is_closed(self) -> bool:
        """Whether the user has closed the window. If it has crashed, one warning is logged and the monitor goes on."""
        if not self._is_closed and not self._is_crashed and self._connection.poll():
            try:
                self._is_closed = self._connection.recv() == CLOSED
                log.info("the window was closed")
            except (EOFError, OSError):
                self._is_crashed = True
                log.warning("the window has crashed; the monitor goes on without it")
        return self._is_closed

    def __call__(self, items: Sequence[LiveFrame | StatusChange] = ()) -> None:
        """Update the tiles after a poll, and send those that have changed. Only the newest tile of a camera is sent."""
        for item in items:
            self._updater_by_camera[item.camera].receive(item)
        for updater in self._updaters:
            updater.update()
        tiles = [updater.tile for updater in self._updaters]
        changed = {i: tile for i, tile in enumerate(tiles) if tile is not self._last_tiles[i]}
        self._last_tiles = tiles
        if changed:
            with self._changed:
                self._due_tiles |= changed
                self._changed.notify()

    def stop(self) -> None:
        """Stop sending. The window's process must have ended before, since a tile may still be on its way to it."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        self._sender.join()

    def _send_tiles(self) -> None:
        """Send tiles until `stop`, in a thread of its own, so that a slow or hanging window delays nothing else."""
        with suppress(OSError):
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._due_tiles or self._is_stopped)
                    due, self._due_tiles = self._due_tiles, {}
                    if self._is_stopped:
                        return
                self._connection.send(due)
                with self._changed:
                    self._changed.wait_for(lambda: self._is_stopped, timeout=MIN_REDRAW_SECONDS)
