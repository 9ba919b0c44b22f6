"""The engine behind the page and the API: videos in, answers out. It knows nothing of HTTP."""

import contextlib
import fcntl
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from features.addresses import AddressRefused, Rules, is_address, parse_address
from features.config import nearest
from features.errors import EnvironmentStopped, SettingsError
from features.files import check_writable, is_full, stopped
from features.pool import worker_context
from features.words import printable
from hazard.infer_config import InferSettings
from hazard.web.answers import failed_answer, read_answer
from hazard.web.crew import PRELOAD, STOP_SECONDS, Hand
from hazard.web.errands import Fetching, Looking
from hazard.web.jobs import FILES, VIDEO, Job, Jobs
from hazard.web.models import ModelFacts
from hazard.web.reached import read_reached
from hazard.web.settings import ServeSettings
from hazard.web.waiting import Task, Waiting

TIDY_SECONDS = 60.0
FETCHERS = 2
"""Videos that are fetched side by side."""
MOST_NAME = 200
"""Characters of a name that are kept."""

log = logging.getLogger(__name__)


class Refused(Exception):
    """What is not taken on, and the HTTP status that says so."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Engine:
    """All jobs and who works on them; see `open_engine`. Its functions may be called from any thread."""

    def __init__(
        self, settings: ServeSettings, jobs: Jobs, models: Mapping[str, ModelFacts], looking: Looking, incoming: Path
    ) -> None: ...

    @property
    def models(self) -> Mapping[str, ModelFacts]:
        """By name."""
        ...

    @property
    def default(self) -> str:
        """The model where none is chosen."""
        ...

    @property
    def incoming(self) -> Path:
        """A folder for uploads that are under way, on the same disk; it is emptied when the server starts."""
        ...

    @property
    def workers(self) -> int:
        """Workers that work; 0 means that nothing goes on."""
        ...

    @property
    def queued(self) -> int:
        """Videos that wait."""
        ...

    def admit(self, size_bytes: int = 0) -> None:
        """Makes room for a video of so many bytes. Raises Refused: 429 where too many wait, 507 without room."""

    def submit(self, file: Path, *, name: str, model: str = "") -> Job:
        """Takes a video on; the file is moved away. Raises Refused: 400 for an unknown model, 429, 507."""

    def submit_address(self, url: str, *, model: str = "") -> Job:
        """The same for an address. Raises Refused: 400 for what is no address that is ever opened."""

    def job(self, identity: str) -> Job | None:
        """With its progress and place in the queue."""

    def jobs(self) -> list[Job]:
        """Newest first."""

    def answer(self, identity: str) -> dict[str, Any] | None:
        """What came of a job that is over; of a failed one an answer without segments, with its reason."""

    def delete(self, identity: str) -> bool:
        """Whether there was such a job; nothing of it is left, and nobody works on it any longer."""

    def wait(self, identity: str, seconds: float) -> Job | None:
        """The job as soon as it is over, or as it is after so many seconds; None where there is none."""

    def annotate(self, identity: str) -> Job | None:
        """Has the annotated video made, unless it is there. Raises Refused 409 where the job is not done, 429."""

    def file(self, identity: str, kind: str) -> Path | None:
        """`video` (what a browser plays, else the upload), `upload`, `annotated`, `csv`, `picture`; None if absent."""

    def media_type(self, identity: str) -> str:
        """Of `file(identity, "video")`."""

    def tidy(self) -> None:
        """Removes what is past its time, and the oldest of what is too much."""


@contextmanager
def open_engine(
    settings: ServeSettings, infer: InferSettings | None = None, *, clock: Callable[[], float] = time.time
) -> Iterator[Engine]:
    """Workers that work while the block runs; what is unfinished then is gone on with the next time.

    All models are opened once before it begins. `infer` says how they judge, as section `infer` does for reports.
    Raises SettingsError, ArtefactRefused or EnvironmentStopped.
    """
    yield  # type: ignore[misc]
