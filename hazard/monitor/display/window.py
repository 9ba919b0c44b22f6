"""The process that has a window on the desktop: it draws what it is sent, and says when somebody closed it.

A process of its own: Qt ends the whole process where it cannot reach the display, drawing must never keep frames from
being judged, and where PyAV is imported OpenCV's windows hang (both bring an X library of their own:
https://github.com/PyAV-Org/PyAV/issues/978). Nothing that is imported here may import PyAV.
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
from hazard.monitor.display.tile import Sight

TITLE = "hazard monitor"
FIRST_SIZE = 1280, 720
LEAST_SIZE, MOST_SIZE = (320, 180), (1920, 1200)
"""Of the picture; the desktop scales it for windows beyond."""
TURN_MILLISECONDS = 40
"""How long keys and clicks may wait."""
READY, CLOSED = "ready", "closed"
NO_GUI = "no gui"
"""What the process says, besides nothing when it died."""
NICE = 5
_ESCAPE = 27


@dataclass(frozen=True)
class Wish:
    """What whoever sits in front of the window wants to see."""

    enlarged: int | None = None
    """The number of the camera that is shown large, from 0."""
    is_closed: bool = False


def pressed(wish: Wish, key: int, count: int) -> Wish:
    """After a key: q closes; a digit enlarges a camera, or leads back; Escape leads back, then closes."""
    if key == ord("q") or (key == _ESCAPE and wish.enlarged is None):
        return Wish(wish.enlarged, is_closed=True)
    if key == _ESCAPE:
        return Wish()
    number = key - ord("1")
    return _toggled(wish, number) if 0 <= number < min(9, count) and count > 1 else wish


def clicked(wish: Wish, number: int | None, count: int) -> Wish:
    """After a click on a camera, or beside all."""
    return wish if number is None or count < 2 else _toggled(wish, number)


def _toggled(wish: Wish, number: int) -> Wish:
    return Wish(None if wish.enlarged == number else number)


def serve_window(connection: Connection) -> None:
    """The process's whole life: it ends when its window is closed, or when its parent ends it or is gone."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # where Qt ends the process, that is expected
    with suppress(OSError):
        os.nice(NICE)  # frames are judged first
    cv2.setNumThreads(1)
    try:
        window = _Window(connection.recv())
    except cv2.error:
        connection.send(NO_GUI)
        return
    threading.Thread(target=_receive, args=(connection, window.sights), daemon=True).start()
    connection.send(READY)
    while not window.wish.is_closed:
        window.turn()
    connection.send(CLOSED)


def _receive(connection: Connection, sights: list[Sight]) -> None:
    """The life of a thread: cameras that changed, by their number, until nobody is there any more to send them."""
    with suppress(EOFError, OSError):
        while True:
            for number, sight in connection.recv().items():
                sights[number] = sight
    os._exit(0)  # even where the display hangs


class _Window:
    """The window, and what is shown in it."""

    def __init__(self, sights: Sequence[Sight]) -> None:
        self.sights, self.wish, self._canvas = list(sights), Wish(), Canvas()
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_FREERATIO | cv2.WINDOW_GUI_NORMAL)
        cv2.resizeWindow(TITLE, *FIRST_SIZE)
        cv2.setMouseCallback(TITLE, self._mouse)
        self._draw(FIRST_SIZE)
        cv2.waitKey(1)

    def turn(self) -> None:
        """Draws what changed; then keys, clicks and the window's own buttons."""
        self._draw(_fitting(cv2.getWindowImageRect(TITLE)[2:]))
        key = cv2.waitKey(TURN_MILLISECONDS)
        if key >= 0:
            self.wish = pressed(self.wish, key & 0xFF, len(self.sights))
        if not _is_there():
            self.wish = Wish(is_closed=True)

    def _draw(self, size: tuple[int, int]) -> None:
        if self._canvas.show(tuple(self.sights), size, self.wish.enlarged):
            cv2.imshow(TITLE, cv2.cvtColor(self._canvas.image, cv2.COLOR_RGB2BGR))

    def _mouse(self, event: int, x: int, y: int, flags: int, more: object) -> None:
        if event == cv2.EVENT_LBUTTONDOWN:
            self.wish = clicked(self.wish, self._canvas.at(x, y), len(self.sights))


def _is_there() -> bool:
    try:
        return cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) >= 1
    except cv2.error:  # Qt without any window
        return False


def _fitting(size: Sequence[int]) -> tuple[int, int]:
    """The window's own size in pixels, so that letters stay sharp; within bounds, at the window's shape."""
    width, height = size if min(size) > 0 else FIRST_SIZE  # not every desktop tells
    scale = min(1.0, MOST_SIZE[0] / width, MOST_SIZE[1] / height)
    return max(LEAST_SIZE[0], round(scale * width)), max(LEAST_SIZE[1], round(scale * height))
