"""The cameras on the desktop, for whoever watches along: an onlooker that keeps a window's process up to date."""

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
"""From one picture to the next, at least."""
START_TIMEOUT_SECONDS = 60.0
"""A display that has not taken a window by then never will."""
NO_WINDOW_ADVICE = "leave --window out: what happens is in the output folder either way"

log = logging.getLogger(__name__)


@contextmanager
def open_screen(detector: LiveDetector, cameras: Sequence[CameraSettings]) -> Iterator["Screen"]:
    """A window with all cameras, until the block ends. Raises EnvironmentStopped where there can be none."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise RuntimeEnvironmentError(
            f"--window needs a desktop, and neither DISPLAY nor WAYLAND_DISPLAY is set; {NO_WINDOW_ADVICE}"
        )
    followed = [TileUpdater(camera, detector.watchers[camera.name]) for camera in cameras]
    ours, theirs = Pipe()
    process = _start_process(theirs)
    theirs.close()
    try:
        _wait_until_ready(ours, [one.tile for one in followed])
        screen = Screen(followed, ours)
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
        stderr=subprocess.DEVNULL,  # Qt's complaints of fonts and displays
        start_new_session=True,  # Ctrl-C is for the parent to answer
    )


def _wait_until_ready(connection: Connection, tiles: Sequence[Tile]) -> None:
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY", "here")
    try:
        connection.send(tiles)
        if not connection.poll(START_TIMEOUT_SECONDS):
            raise RuntimeEnvironmentError(f"--window: display {display} does not answer; {NO_WINDOW_ADVICE}")
        if connection.recv() == NO_GUI:
            raise RuntimeEnvironmentError(
                "--window: this OpenCV was built without windows (opencv-python-headless?); install opencv-python, or "
                f"{NO_WINDOW_ADVICE}"
            )
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise RuntimeEnvironmentError(
            f"--window: no window can be opened on display {display}; {NO_WINDOW_ADVICE}"
        ) from None


class Screen:
    """The window of one `open_screen` block, as an onlooker of `monitor.watch`. It never waits for the window."""

    def __init__(self, updaters: Sequence[TileUpdater], connection: Connection) -> None:
        self._updaters = list(updaters)
        self._updater_by_camera = {one.camera.name: one for one in updaters}
        self._connection = connection
        self._last_tiles = [one.tile for one in updaters]
        self._due_tiles: dict[int, Tile] = {}
        self._changed = threading.Condition()
        self._is_closed = self._is_crashed = self._is_stopped = False
        self._sender = threading.Thread(target=self._send_tiles, daemon=True)
        self._sender.start()

    @property
    def is_closed(self) -> bool:
        """Whether somebody closed the window. One that crashed is told of, once, and watching goes on without it."""
        if not self._is_closed and not self._is_crashed and self._connection.poll():
            try:
                self._is_closed = self._connection.recv() == CLOSED
                log.info("the window was closed")
            except (EOFError, OSError):
                self._is_crashed = True
                log.warning("the window is gone; watching goes on without it")
        return self._is_closed

    def __call__(self, items: Sequence[LiveFrame | StatusChange] = ()) -> None:
        """After a look: what changed is on its way to the window, of each camera the newest."""
        for item in items:
            self._updater_by_camera[item.camera].receive(item)
        for one in self._updaters:
            one.update()
        sights = [one.tile for one in self._updaters]
        changed = {i: sight for i, sight in enumerate(sights) if sight is not self._last_tiles[i]}
        self._last_tiles = sights
        if changed:
            with self._changed:
                self._due_tiles |= changed
                self._changed.notify()

    def stop(self) -> None:
        """Nothing is sent any more. The window's process must be gone: something may be on its way to it."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        self._sender.join()

    def _send_tiles(self) -> None:
        """The life of a thread: a window that is slow, or hangs, holds up nothing but this."""
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
