"""hazard.web.engine.worker_job."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hazard.inference.settings import InferSettings
from hazard.web.engine.messages import Alive, Outcome


@dataclass(frozen=True)
class WorkJob:
    """A worker's whole work."""

    models: Mapping[str, Path]
    infer: InferSettings
    scratch: Path
    """A folder for what is needed for seconds only."""

    def start(self) -> Callable[[Any, Alive], Outcome]:
        """Quiet libraries of one thread; a model is opened when it is needed."""
        from hazard.web.engine.worker import Worker

        return Worker(self.models, self.infer, self.scratch).do
