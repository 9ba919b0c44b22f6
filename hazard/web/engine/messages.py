"""The tasks and results that threads and worker processes exchange.

Only worker processes open videos, because they may hang or crash. Their output files lie in the job's folder.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from features.errors import ClipError, UserFacingError
from hazard.web.engine.model_facts import ModelFacts

AliveCallback = Callable[[], None]


@dataclass(frozen=True)
class OpenModelTask:
    """The task to open a model."""

    model: str


@dataclass(frozen=True)
class AnalyseTask:
    """The task to analyse a job's video."""

    folder: Path
    id: str
    name: str
    model: str


@dataclass(frozen=True)
class AnnotateTask:
    """The task to write a job's video with the predictions drawn in."""

    folder: Path
    name: str


@dataclass(frozen=True)
class PreviewTask:
    """The task to write a copy of a job's video that browsers can play."""

    folder: Path


@dataclass(frozen=True)
class AnalysisResult:
    """The summary of an analysed video. The full answer is in the job's folder."""

    seconds: float
    label: str
    confidence: float | None
    is_unknown: bool
    reason: str
    """The reason why the video was read only in part; empty if all of it was read."""
    media: str


TaskResult = ModelFacts | AnalysisResult | UserFacingError | ClipError | None
