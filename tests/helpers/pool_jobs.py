"""A job for worker pools whose tasks hang or crash."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

DEADLINE = 3.0


@dataclass(frozen=True)
class ScriptedJob:
    """A job that does what its task says: hang, crash, be slow, or else return the task in capitals."""

    broken: bool = False

    def start(self) -> Callable[[str, Callable[[], None]], str]:
        if self.broken:
            raise RuntimeError("no model here")
        return self._do

    def _do(self, task: str, report_alive: Callable[[], None]) -> str:
        if task == "hang":
            time.sleep(600)
        if task == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if task == "slow but alive":
            for _ in range(6):
                time.sleep(DEADLINE / 4)
                report_alive()
        return task.upper()
