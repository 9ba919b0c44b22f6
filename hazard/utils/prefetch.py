"""Items made by a thread, a little ahead of who takes them: decoding beside drawing and encoding."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def prefetch(items: Iterator[T], depth: int = 6) -> Iterator[Iterator[T]]:
    """The same items, made by a thread that is at most `depth` of them ahead."""
    ready: queue.Queue[tuple[str, object]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(kind: str, value: object) -> bool:
        while not stopped.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    def taken() -> Iterator[T]:
        while (got := ready.get())[0] == "item":
            yield got[1]  # type: ignore[misc]
        if isinstance(got[1], BaseException):
            raise got[1]

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        stopped.set()
        thread.join()
