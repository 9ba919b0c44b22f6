"""The cameras on the desktop, for whoever watches along: an onlooker that keeps a window's process up to date."""

import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from features.errors import EnvironmentStopped
from features.live import LiveFrame, Notice
from features.pool import exit_name, worker_context
from hazard.cameras import CameraSettings
from hazard.monitor import Brain
from hazard.sights import Following, Sight
from hazard.window import CLOSED, NO_GUI, serve_window

REDRAW_SECONDS = 1 / 15
"""From one picture to the next, at least."""
START_SECONDS = 60.0
"""A display that has not taken a window by then never will."""
INSTEAD = "leave --window out: what happens is in the output folder either way"

log = logging.getLogger(__name__)


@contextmanager
def open_screen(brain: Brain, cameras: Sequence[CameraSettings]) -> Iterator["Screen"]:
    """A window with all cameras, until the block ends. Raises EnvironmentStopped where there can be none."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise EnvironmentStopped(f"--window needs a desktop, and neither DISPLAY nor WAYLAND_DISPLAY is set; {INSTEAD}")
    followed = [Following(camera, brain.watchers[camera.name]) for camera in cameras]
    context = worker_context(("features.live_reader",))
    ours, theirs = context.Pipe()
    process = context.Process(target=serve_window, args=([one.sight for one in followed], theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        _wait_until_ready(process, ours)
        screen = Screen(followed, process, ours)
        try:
            yield screen
        finally:
            screen.stop()
    finally:
        process.kill()
        process.join()
        ours.close()


def _wait_until_ready(process: BaseProcess, connection: Connection) -> None:
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY", "here")
    if not connection.poll(START_SECONDS):
        raise EnvironmentStopped(f"--window: display {display} does not answer; {INSTEAD}")
    try:
        if connection.recv() == NO_GUI:
            raise EnvironmentStopped(
                "--window: this OpenCV was built without windows (opencv-python-headless?); install opencv-python, or "
                f"{INSTEAD}"
            )
    except (EOFError, ConnectionResetError):
        process.join(5)
        raise EnvironmentStopped(
            f"--window: no window can be opened on display {display} ({exit_name(process.exitcode)}); {INSTEAD}"
        ) from None


class Screen:
    """The window of one `open_screen` block, as an onlooker of `monitor.watch`. It never waits for the window."""

    def __init__(self, followed: Sequence[Following], process: BaseProcess, connection: Connection) -> None:
        self._followed = list(followed)
        self._by_name = {one.camera.name: one for one in followed}
        self._process, self._connection = process, connection
        self._seen = [one.sight for one in followed]
        self._due: dict[int, Sight] = {}
        self._news = threading.Condition()
        self._is_closed = self._is_gone = self._is_stopped = False
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._sender.start()

    @property
    def is_closed(self) -> bool:
        """Whether somebody closed the window. One that crashed is told of, once, and watching goes on without it."""
        if not self._is_closed and not self._is_gone and self._connection.poll():
            try:
                self._is_closed = self._connection.recv() == CLOSED
            except (EOFError, OSError):
                self._is_gone = True
                self._process.join(5)
                log.warning("the window is gone (%s); watching goes on", exit_name(self._process.exitcode))
        return self._is_closed

    def __call__(self, items: Sequence[LiveFrame | Notice] = ()) -> None:
        """After a look: what changed is on its way to the window, of each camera the newest."""
        for item in items:
            self._by_name[item.camera].take(item)
        for one in self._followed:
            one.judge()
        sights = [one.sight for one in self._followed]
        changed = {i: sight for i, sight in enumerate(sights) if sight is not self._seen[i]}
        self._seen = sights
        if changed:
            with self._news:
                self._due |= changed
                self._news.notify()

    def stop(self) -> None:
        """Nothing is sent any more; something that is being sent ends with the window's process."""
        with self._news:
            self._is_stopped = True
            self._news.notify()

    def _send(self) -> None:
        """The life of a thread: a window that is slow, or hangs, holds up nothing but this."""
        with suppress(OSError):
            while True:
                with self._news:
                    self._news.wait_for(lambda: self._due or self._is_stopped)
                    due, self._due = self._due, {}
                    if self._is_stopped:
                        return
                self._connection.send(due)
                with self._news:
                    self._news.wait_for(lambda: self._is_stopped, timeout=REDRAW_SECONDS)
