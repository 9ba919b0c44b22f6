"""The job of a worker process: what it needs to start, and how it starts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hazard.inference.settings import InferSettings
from hazard.web.engine.messages import AliveCallback, TaskResult


@dataclass(frozen=True)
class AnalysisWorkerJob:
    """Everything that a worker process is given at its start."""

    models: Mapping[str, Path]
    infer: InferSettings
    scratch: Path
    """A folder for short-lived files."""

    def start(self) -> Callable[[Any, AliveCallback], TaskResult]:
        """Return the function that runs one task. It is called in the worker process; models are opened when needed."""
        from hazard.web.engine.worker import AnalysisWorker

        return AnalysisWorker(self.models, self.infer, self.scratch).run_task
