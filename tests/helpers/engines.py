"""An engine of the server for tests, with workers that misbehave on videos with certain names."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from features.errors import RuntimeEnvironmentError
from hazard.inference.settings import InferSettings
from hazard.web.engine.engine import Engine, open_engine
from hazard.web.engine.messages import AnalyseTask
from hazard.web.engine.worker_job import AnalysisWorkerJob
from hazard.web.jobs.progress import ProgressFile
from hazard.web.jobs.store import VideoJob
from hazard.web.settings import ServeSettings

WAIT_SECONDS = 120.0
"""Seconds that a test waits at most for something that takes a few seconds."""
WORKER_DEADLINE_SECONDS = 4.0
PID_FILE_NAME = "pid"
"""A file in the scratch folder with the process id of the worker that started last."""


class MisbehavingWorkerJob(AnalysisWorkerJob):
    """A worker that hangs, crashes, works endlessly or finds the disk full if a video's name contains that word."""

    def start(self) -> Callable[[Any, Callable[[], None]], Any]:
        work = super().start()
        (self.scratch / PID_FILE_NAME).write_text(str(os.getpid()))

        def work_or_misbehave(order: Any, alive: Callable[[], None]) -> Any:
            name = order.name if isinstance(order, AnalyseTask) else ""
            if name:
                ProgressFile(order.folder)(0.25)
            if "hang" in name:
                time.sleep(600)
            if "crash" in name:
                os.kill(os.getpid(), signal.SIGSEGV)
            if "full" in name:
                return RuntimeEnvironmentError("no space to write /somewhere/secret")
            while "drip" in name:
                alive()
                time.sleep(0.01)
            return work(order, alive)

        return work_or_misbehave


@contextmanager
def run_test_engine(
    model: Path, data: Path, *, clock: Callable[[], float] = time.time, **settings: Any
) -> Iterator[Engine]:
    """Run an engine with one model, `small`. Settings that `ServeSettings` does not have are passed to inference."""
    own = {key: value for key, value in settings.items() if key in ServeSettings.model_fields}
    infer = {"runtime": "torch", "deadline_seconds": WORKER_DEADLINE_SECONDS}
    infer |= {key: value for key, value in settings.items() if key in InferSettings.model_fields and key not in own}
    serve = ServeSettings(**{"models": {"small": model}, "data": data, **own})
    with open_engine(serve, InferSettings(**infer), clock=clock, make_worker_job=MisbehavingWorkerJob) as engine:  # type: ignore[arg-type]
        yield engine


def submit_copy(engine: Engine, file: Path, name: str = "", **options: str) -> VideoJob:
    """Submit a copy of a file and return its job."""
    copy = engine.incoming_folder / f"{time.monotonic_ns()}"
    copy.write_bytes(file.read_bytes())
    return engine.submit(copy, name=name or file.name, **options)


def wait_until_finished(engine: Engine, job: VideoJob) -> VideoJob:
    """Wait until a job is finished and return it."""
    found = engine.wait_for_job(job.id, WAIT_SECONDS)
    assert found is not None
    assert found.is_over, found
    return found


def wait_for_condition(engine: Engine, job: VideoJob, holds: Callable[[VideoJob], object]) -> VideoJob:
    """Wait until a condition holds for a job and return it."""
    end = time.monotonic() + WAIT_SECONDS
    while not (found := engine.get_job(job.id)) or not holds(found):
        assert time.monotonic() < end, found
        time.sleep(0.02)
    return found
