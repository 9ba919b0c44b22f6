"""A server's engine for tests: a small model, workers that misbehave when a video's name says so."""

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

PATIENCE = 120.0
"""Seconds that a test waits for what takes a few."""
SILENCE = 4.0
PID = "pid"
"""A file in the scratch folder, with the number of the worker that began last."""


class Moody(AnalysisWorkerJob):
    """A worker that hangs, crashes, drips or finds the disk full where a video is called so."""

    def start(self) -> Callable[[Any, Callable[[], None]], Any]:
        work = super().start()
        (self.scratch / PID).write_text(str(os.getpid()))

        def do(order: Any, alive: Callable[[], None]) -> Any:
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

        return do


@contextmanager
def engine_of(model: Path, data: Path, *, clock: Callable[[], float] = time.time, **settings: Any) -> Iterator[Engine]:
    """Settings that are not the server's are those of inference."""
    own = {key: value for key, value in settings.items() if key in ServeSettings.model_fields}
    infer = {"runtime": "torch", "deadline_seconds": SILENCE}
    infer |= {key: value for key, value in settings.items() if key in InferSettings.model_fields and key not in own}
    serve = ServeSettings(**{"models": {"small": model}, "data": data, **own})
    with open_engine(serve, InferSettings(**infer), clock=clock, make_worker_job=Moody) as engine:  # type: ignore[arg-type]
        yield engine


def given(engine: Engine, file: Path, name: str = "", **options: str) -> VideoJob:
    """A copy of a file, submitted."""
    copy = engine.incoming_folder / f"{time.monotonic_ns()}"
    copy.write_bytes(file.read_bytes())
    return engine.submit(copy, name=name or file.name, **options)


def over(engine: Engine, job: VideoJob) -> VideoJob:
    """The job when it is over."""
    found = engine.wait_for_job(job.id, PATIENCE)
    assert found is not None
    assert found.is_over, found
    return found


def until(engine: Engine, job: VideoJob, holds: Callable[[VideoJob], object]) -> VideoJob:
    """The job as soon as something holds of it."""
    end = time.monotonic() + PATIENCE
    while not (found := engine.job(job.id)) or not holds(found):
        assert time.monotonic() < end, found
        time.sleep(0.02)
    return found
