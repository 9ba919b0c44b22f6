"""What a worker process of the server does: opens models, looks at videos, draws into them, makes them playable.

All that touches a video happens here, in a process that may hang or crash. What it makes lies in the job's folder.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from features.errors import ClipError, UserFacingError
from hazard.web.engine.model_facts import ModelFacts

AliveCallback = Callable[[], None]


@dataclass(frozen=True)
class OpenModelTask:
    """Opens a model."""

    model: str


@dataclass(frozen=True)
class AnalyseTask:
    """Says what happens in a job's video."""

    folder: Path
    id: str
    name: str
    model: str


@dataclass(frozen=True)
class AnnotateTask:
    """Writes a job's video with what was seen drawn in."""

    folder: Path
    name: str


@dataclass(frozen=True)
class PreviewTask:
    """Writes a job's video as browsers play it."""

    folder: Path


@dataclass(frozen=True)
class AnalysisResult:
    """What came of a video; more is in the job's folder."""

    seconds: float
    label: str
    confidence: float | None
    is_unknown: bool
    reason: str
    """Why it was read only in part; empty where all of it was."""
    media: str


TaskResult = ModelFacts | AnalysisResult | UserFacingError | ClipError | None
