"""hazard.web.engine.worker_job."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hazard.inference.settings import InferSettings
from hazard.web.engine.messages import AliveCallback, TaskResult


@dataclass(frozen=True)
class AnalysisWorkerJob:
    """A worker's whole work."""

    models: Mapping[str, Path]
    infer: InferSettings
    scratch: Path
    """A folder for what is needed for seconds only."""

    def start(self) -> Callable[[Any, AliveCallback], TaskResult]:
        """Quiet libraries of one thread; a model is opened when it is needed."""
        from hazard.web.engine.worker import AnalysisWorker

        return AnalysisWorker(self.models, self.infer, self.scratch).run_task
