"""The process of the desktop window: it draws the tiles that it receives, and reports when the user closes the window.

It is a process of its own for three reasons. Qt ends the whole process if it cannot reach the display. Drawing must
never delay the detection. And OpenCV's windows hang in a process that has imported PyAV, because both bring their own X
library (https://github.com/PyAV-Org/PyAV/issues/978). Nothing that is imported here may import PyAV.
"""

import os
import resource
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

import cv2

from hazard.monitor.display.mosaic import Canvas
from hazard.monitor.display.tile import Tile

WINDOW_TITLE = "hazard monitor"
INITIAL_SIZE = 1280, 720
MIN_SIZE, MAX_SIZE = (320, 180), (1920, 1200)
"""Smallest and largest image. For other window sizes the desktop scales it."""
KEY_WAIT_MILLISECONDS = 40
"""Longest delay of keys and clicks."""
READY, CLOSED = "ready", "closed"
NO_GUI = "no gui"
"""Messages of the process to its parent. A process that has crashed sends none."""
NICENESS = 5
_ESCAPE_KEY = 27


@dataclass(frozen=True)
class DisplayState:
    """What the user has chosen to see."""

    enlarged: int | None = None
    """Number of the tile that is shown large, from 0."""
    is_closed: bool = False


def handle_key(state: DisplayState, key: int, count: int) -> DisplayState:
    """Return the state after a key. q closes; a digit enlarges a camera or goes back; Escape goes back, then closes."""
    if key == ord("q") or (key == _ESCAPE_KEY and state.enlarged is None):
        return DisplayState(state.enlarged, is_closed=True)
    if key == _ESCAPE_KEY:
        return DisplayState()
    number = key - ord("1")
    return _toggle_enlarged(state, number) if 0 <= number < min(9, count) and count > 1 else state


def handle_click(state: DisplayState, number: int | None, count: int) -> DisplayState:
    """Return the state after a click on a tile, or outside all tiles (None)."""
    return state if number is None or count < 2 else _toggle_enlarged(state, number)


def _toggle_enlarged(state: DisplayState, number: int) -> DisplayState:
    return DisplayState(None if state.enlarged == number else number)


def serve_window(connection: Connection) -> None:
    """Run the window until the user closes it, or until the parent process kills this one or ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # Qt may abort the process; that needs no core dump
    with suppress(OSError):
        os.nice(NICENESS)  # the detection comes first
    cv2.setNumThreads(1)
    try:
        window = _TileWindow(connection.recv())
    except cv2.error:
        connection.send(NO_GUI)
        return
    threading.Thread(target=_receive_tiles, args=(connection, window.tiles), daemon=True).start()
    connection.send(READY)
    while not window.state.is_closed:
        window.update()
    connection.send(CLOSED)


def _receive_tiles(connection: Connection, tiles: list[Tile]) -> None:
    """Receive changed tiles by number, in a thread, until the parent closes the connection."""
    with suppress(EOFError, OSError):
        while True:
            for number, tile in connection.recv().items():
                tiles[number] = tile
    os._exit(0)  # even if the display hangs


class _TileWindow:
    """The window and its content."""

    def __init__(self, tiles: Sequence[Tile]) -> None:
        self.tiles, self.state, self._canvas = list(tiles), DisplayState(), Canvas()
        cv2.namedWindow(WINDOW_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_FREERATIO | cv2.WINDOW_GUI_NORMAL)
        cv2.resizeWindow(WINDOW_TITLE, *INITIAL_SIZE)
        cv2.setMouseCallback(WINDOW_TITLE, self._handle_mouse)
        self._draw(INITIAL_SIZE)
        cv2.waitKey(1)

    def update(self) -> None:
        """Draw what has changed, then handle keys, clicks and the window's own buttons."""
        self._draw(_fit_size(cv2.getWindowImageRect(WINDOW_TITLE)[2:]))
        key = cv2.waitKey(KEY_WAIT_MILLISECONDS)
        if key >= 0:
            self.state = handle_key(self.state, key & 0xFF, len(self.tiles))
        if not _is_window_open():
            self.state = DisplayState(is_closed=True)

    def _draw(self, size: tuple[int, int]) -> None:
        if self._canvas.draw_tiles(tuple(self.tiles), size, self.state.enlarged):
            cv2.imshow(WINDOW_TITLE, cv2.cvtColor(self._canvas.image, cv2.COLOR_RGB2BGR))

    def _handle_mouse(self, event: int, x: int, y: int, flags: int, more: object) -> None:
        if event == cv2.EVENT_LBUTTONDOWN:
            self.state = handle_click(self.state, self._canvas.find_tile(x, y), len(self.tiles))


def _is_window_open() -> bool:
    try:
        return cv2.getWindowProperty(WINDOW_TITLE, cv2.WND_PROP_VISIBLE) >= 1
    except cv2.error:  # Qt without any window
        return False


def _fit_size(size: Sequence[int]) -> tuple[int, int]:
    """Return the image size for a window: its size in pixels, so that text stays sharp, within the allowed limits."""
    width, height = size if min(size) > 0 else INITIAL_SIZE  # not every desktop reports it
    scale = min(1.0, MAX_SIZE[0] / width, MAX_SIZE[1] / height)
    return max(MIN_SIZE[0], round(scale * width)), max(MIN_SIZE[1], round(scale * height))
