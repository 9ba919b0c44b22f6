"""A virtual desktop (Xvfb) with screenshots, and with keys and clicks sent by the X protocol (core and XTEST)."""

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import ImageGrab

MISSING = "needs Xvfb (Debian: the package xvfb)"
_KEY, _BUTTON, _MOTION = 2, 4, 6  # pressed; one more: released


def has_desktop() -> bool:
    return shutil.which("Xvfb") is not None


class Desktop:
    """A display of one screen."""

    def __init__(self, display: str) -> None:
        self.display = display
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(f"/tmp/.X11-unix/X{display[1:]}")
        self._socket.sendall(struct.pack("<BxHHHHxx", ord("l"), 11, 0, 0, 0))
        head = self._receive(8)
        assert head[0] == 1, "the display rejected the connection"
        setup = head + self._receive(4 * int.from_bytes(head[6:8], "little"))
        self._keycodes = range(setup[34], setup[35] + 1)
        vendor, formats = int.from_bytes(setup[24:26], "little"), setup[29]
        self._root = int.from_bytes(setup[40 + -(-vendor // 4) * 4 + 8 * formats :][:4], "little")
        self._xtest = self._send_named_request(98, "XTEST")[9]

    def screenshot(self) -> np.ndarray:
        """Return the screen as RGB (H, W, 3)."""
        return np.asarray(ImageGrab.grab(xdisplay=self.display).convert("RGB"))

    def press(self, character: str) -> None:
        """Press and release the key of a character."""
        count = len(self._keycodes)
        table = self._request(struct.pack("<BxHBBxx", 101, 2, self._keycodes[0], count))  # GetKeyboardMapping
        symbols = np.frombuffer(table[32:], "<u4").reshape(count, table[1])
        code = self._keycodes[int(np.argwhere(symbols == ord(character))[0, 0])]
        self._send_input(_KEY, code)
        self._send_input(_KEY + 1, code)

    def click(self, x: int, y: int) -> None:
        """Click with the left button at a point of the screen."""
        self._send_input(_MOTION, 0, x, y)
        self._send_input(_BUTTON, 1)
        self._send_input(_BUTTON + 1, 1)

    def close_windows(self) -> None:
        """Close each window, as a click on its close button does."""
        protocols, delete = self._atom("WM_PROTOCOLS"), self._atom("WM_DELETE_WINDOW")
        tree = self._request(struct.pack("<BxHI", 15, 2, self._root))  # QueryTree
        for window in np.frombuffer(tree[32:], "<u4").tolist():
            message = struct.pack("<BBHIIII12x", 33, 32, 0, window, protocols, delete, 0)
            self._socket.sendall(struct.pack("<BBHII", 25, 0, 11, window, 0) + message)

    def close(self) -> None:
        self._socket.close()

    def _atom(self, name: str) -> int:
        return int.from_bytes(self._send_named_request(16, name)[8:12], "little")

    def _send_named_request(self, request: int, name: str) -> bytes:
        data = name.encode().ljust(-(-len(name) // 4) * 4, b"\0")
        return self._request(struct.pack("<BxHHxx", request, 2 + len(data) // 4, len(name)) + data)

    def _send_input(self, kind: int, detail: int, x: int = 0, y: int = 0) -> None:
        self._socket.sendall(struct.pack("<BBHBBxxIIxxxxxxxxhhxxxxxxxx", self._xtest, 2, 9, kind, detail, 0, 0, x, y))
        self._request(struct.pack("<BxH", 43, 1))  # any reply shows that the input was processed

    def _request(self, data: bytes) -> bytes:
        """Send a request and return the reply. Other events of the display are skipped."""
        self._socket.sendall(data)
        while (answer := self._socket.recv(32, socket.MSG_WAITALL))[0] != 1:
            assert answer[0] > 1, answer
        return answer + self._receive(4 * int.from_bytes(answer[4:8], "little"))

    def _receive(self, count: int) -> bytes:
        return self._socket.recv(count, socket.MSG_WAITALL) if count else b""


@contextmanager
def desktop(size: tuple[int, int] = (1280, 720)) -> Iterator[Desktop]:
    """Start a display and end it when the block ends."""
    read_end, write_end = os.pipe()
    screen = f"{size[0]}x{size[1]}x24"
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write_end), "-screen", "0", screen, "-nolisten", "tcp"],
        pass_fds=[write_end], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write_end)
    try:
        with os.fdopen(read_end) as number:
            shown = Desktop(f":{number.readline().strip()}")
        try:
            yield shown
        finally:
            shown.close()
    finally:
        server.terminate()
        server.wait(30)
