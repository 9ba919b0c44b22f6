"""A headless Chromium that is driven by its DevTools protocol over two pipes and needs no further package."""

import json
import os
import shutil
import subprocess
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome") if os.name == "posix" else ()
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)
MISSING = "needs Chromium on Linux (Debian: the package chromium)"
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--disable-extensions", "--mute-audio", "--hide-scrollbars",
)  # fmt: skip
PATIENCE = 60.0


class Tab:
    """One page. `complaints` holds everything that its script throws or writes to the console."""

    def __init__(self, send: Any, receive: Any) -> None:
        self._send, self._receive, self._number, self._session, self._loads = send, receive, 0, "", 0
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send one command of the protocol and return its result. Raises RuntimeError if the command fails."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._send(message | ({"sessionId": self._session} if self._session else {}))
        while True:
            got = self._receive()
            self._note(got)
            if got.get("id") == self._number:
                if "error" in got:
                    raise RuntimeError(f"{method}: {got['error']}")
                return got["result"]

    def open(self, url: str) -> None:
        """Load a page and wait until it is complete. A URL that differs only in its hash loads nothing."""
        self._loads = 0
        self.call("Page.navigate", url=url)
        while not self._loads:
            self._note(self._receive())

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, after awaiting it if it is a promise."""
        result = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"].get("exception", {}).get("description", "exception"))
        return result["result"].get("value")

    def set_size(self, width: int, height: int) -> None:
        """Set the window size in pixels. A width below 600 emulates a phone."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def screenshot(self, file: Path, *, whole: bool = True) -> None:
        """Write the page as a PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(b64decode(shot["data"]))

    def _note(self, got: dict[str, Any]) -> None:
        self._loads += got.get("method") == "Page.loadEventFired"
        if got.get("method") == "Runtime.exceptionThrown":
            details = got["params"]["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        if got.get("method") in ("Runtime.consoleAPICalled", "Log.entryAdded"):
            self.complaints.append(json.dumps(got["params"]))


@contextmanager
def browser() -> Iterator[Tab]:
    """Start a new browser, yield a tab of it, and end the browser when the block ends."""
    assert CHROMIUM
    to_browser, from_us = os.pipe()
    to_us, from_browser = os.pipe()

    def connect() -> None:  # the protocol's pipes are file descriptors 3 and 4
        a, b = os.dup(to_browser), os.dup(from_browser)
        os.dup2(a, 3)
        os.dup2(b, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, *QUIET, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False, preexec_fn=connect,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        with os.fdopen(from_us, "wb", buffering=0) as out, os.fdopen(to_us, "rb") as incoming:
            try:
                yield Tab(lambda message: out.write(json.dumps(message).encode() + b"\0"), _reader(incoming))
            finally:
                process.terminate()
                process.wait(PATIENCE)


def _reader(stream: Any) -> Any:
    """Return a function that waits for the next message of the browser and returns it."""
    buffer = bytearray()

    def receive() -> dict[str, Any]:
        while b"\0" not in buffer:
            got = stream.read1(1 << 20)
            if not got:
                raise RuntimeError("the browser ended")
            buffer.extend(got)
        message, _, rest = bytes(buffer).partition(b"\0")
        buffer[:] = rest
        return json.loads(message)

    return receive
