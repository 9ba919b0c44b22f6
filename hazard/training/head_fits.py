"""Heads of all folds fitted side by side in processes, ahead of the run that uses them.

A worker writes the finished fit to the checkpoints of the run. The run goes through its fits in its own order, finds
them there, and continues as after a resume. Its results, its progress and what a tracker receives are therefore those
of one process. Threads are no alternative: dropout draws from torch's global random numbers.
"""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from features.errors import RuntimeEnvironmentError, UserFacingError
from features.utils.command_line import StopFlag
from features.utils.worker_pool import LostTask, count_cores, run_tasks
from hazard.data.splits import Fold
from hazard.models.head_ensemble import pick_device
from hazard.models.settings import TrainSettings
from hazard.training.checkpoint import Checkpoints
from hazard.training.trainer import fit_head
from hazard.types import Sequences, SequenceView

log = logging.getLogger(__name__)

HeadFit = tuple[Fold, TrainSettings]

PAYING_SECONDS = 20.0
"""Estimated time of the remaining fits from which on processes pay: each takes seconds to import torch."""
DEADLINE_SECONDS = 3600.0
"""Longest time of one epoch, or of the pooled ridge."""
WORKER_BYTES = 400 * 2**20
"""Memory of a worker beside three times the features."""


class HeadFits:
    """The fits of heads that a run will ask for, in that order; use it in a `with` block, which ends the processes."""

    def __init__(
        self,
        sequences: Sequences,
        fits: Sequence[HeadFit],
        checkpoints: Checkpoints,
        *,
        jobs: int = -1,
    ) -> None:
        """`jobs` is the number of processes, -1: one per core; as many are started as the free memory allows."""
        self._sequences, self._checkpoints = sequences, checkpoints
        self._pending = {checkpoints.make_fit_checkpoint(*fit).digest: fit for fit in fits}
        self._processes = min(count_cores() if jobs == -1 else jobs, len(fits) - 1, _count_fitting_memory(sequences))
        self._began: float | None = None
        self._fitted_here = 0
        self._results: Iterator[tuple[Any, object]] | None = None
        self._sent: set[str] = set()
        self._done: set[str] = set()
        self._shared = _SharedSequences(checkpoints.folder)

    def __enter__(self) -> "HeadFits":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        while self._results is not None and self._checkpoints.stop and self._collect():
            pass  # what workers have finished is saved
        if self._results is not None:
            self._results.close()  # type: ignore[attr-defined]
        self._shared.remove()

    def wait_for(self, fold: Fold, settings: TrainSettings) -> None:
        """Return when the run may fit this head: at once in this process, or when a worker has saved it.

        The first fits are not waited for. They show how long the others will take, and whether processes pay. Raises
        TrainingStopped if the user asked to stop.
        """
        digest = self._checkpoints.make_fit_checkpoint(fold, settings).digest
        if self._pending.pop(digest, None) is None and digest not in self._sent:
            return  # a fit that nobody announced
        if self._results is None and not self._sent and self._is_worthwhile():
            self._pending[digest] = (fold, settings)
            self._start()
        while self._results is not None and (digest not in self._done or self._checkpoints.stop):
            if not self._collect():  # after a stop: when all workers have saved
                break
        self._checkpoints.check_stop()

    def _collect(self) -> bool:
        """Wait for the next fit of a worker; return False if there is none.

        A worker that dies, or cannot start, is no reason to end: the run fits that head itself.
        """
        assert self._results is not None
        try:
            task, result = next(self._results, (None, None))
        except RuntimeEnvironmentError as error:
            log.warning("%s; the heads are fitted in one process", error)
            task, result, self._processes = None, None, 0
        if task is None:
            self._results = None
            return False
        if isinstance(result, LostTask):
            log.warning("a process that fitted a head ended early; the head is fitted again")
        self._done.add(task[0])
        return True

    def _is_worthwhile(self) -> bool:
        now = time.monotonic()
        if self._began is None:
            self._began = now
            return False
        self._fitted_here += 1
        seconds = (now - self._began) / self._fitted_here * (len(self._pending) + 1)
        return self._processes > 1 and seconds >= PAYING_SECONDS

    def _start(self) -> None:
        _StopFile(self._checkpoints.folder).clear()  # of a run that was killed
        columns = self._shared.write(self._sequences)
        if columns is None:  # no space on the disk: the fits go on in this process
            self._processes = 0
            return
        job = _FitJob(columns, self._checkpoints.folder, self._checkpoints.cache_digest)
        self._results = run_tasks(
            job,
            self._iterate_pending(),
            workers=self._processes,
            deadline_seconds=DEADLINE_SECONDS,
            is_stopped=self._pass_stop_on,
            preload=("hazard.training.trainer",),
        )

    def _iterate_pending(self) -> Iterator[tuple[str, HeadFit]]:
        order = list(self._pending.items())
        self._sent = set(self._pending)
        for digest, fit in [order[-1], *order[:-1]]:  # first the one that the run waits for
            if self._checkpoints.stop:
                return
            yield digest, fit

    def _pass_stop_on(self) -> bool:
        """Tell the workers to save and stop, if the user asked to; they end by themselves."""
        if self._checkpoints.stop:
            _StopFile(self._checkpoints.folder).set()
        return False


class _SharedSequences:
    """Features in files that all processes map into memory; the other columns are small and sent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, sequences: Sequences) -> dict[str, Any] | None:
        """Write the features; return the columns with file names in their place, None if they cannot be written."""
        columns: dict[str, Any] = {name: getattr(sequences, name) for name in sequences.__dataclass_fields__}
        try:
            columns["x"] = self._save(0, sequences.x)
            views = [(view.name, self._save(i, view.x), view.mask) for i, view in enumerate(sequences.views, 1)]
        except OSError:
            self.remove()
            return None
        return columns | {"views": views}

    def _save(self, number: int, x: np.ndarray) -> Path:
        file = self._folder / f"features{number}.npy"
        np.save(file, x, allow_pickle=False)
        return file

    def remove(self) -> None:
        """Remove the files and the request to stop."""
        for file in self._folder.glob("features*.npy"):
            file.unlink(missing_ok=True)
        _StopFile(self._folder).clear()


class _StopFile(StopFlag):
    """A request to stop that other processes see: a file in the folder of the checkpoints."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._file = folder / "stop"

    def __bool__(self) -> bool:
        return self._file.exists()

    def set(self) -> None:
        """Ask to stop."""
        self._file.touch()

    def clear(self) -> None:
        """Take the request back."""
        self._file.unlink(missing_ok=True)


@dataclass(frozen=True)
class _FitJob:
    """The work of one process."""

    columns: dict[str, Any]
    folder: Path
    cache_digest: str

    def start(self) -> Callable[[Any, Callable[[], None]], object]:
        """Map the features, and return the function that does one fit."""
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing writes to the features
        torch.set_num_threads(1)
        views = tuple(SequenceView(name, np.load(x, mmap_mode="r"), mask) for name, x, mask in self.columns["views"])
        sequences = Sequences(**self.columns | {"x": np.load(self.columns["x"], mmap_mode="r"), "views": views})
        checkpoints = Checkpoints(self.folder, self.cache_digest, _StopFile(self.folder))

        def work(task: tuple[str, HeadFit], report_alive: Callable[[], None]) -> None:
            fold, settings = task[1]
            try:
                fit_head(sequences, fold, settings, progress=lambda *_: report_alive(), checkpoints=checkpoints)
            except UserFacingError:  # the run meets it again and says it
                return

        return work


def is_suited(settings: TrainSettings) -> bool:
    """Return whether heads may be fitted in processes: on a CPU, with more than one job, without a search.

    Workers use one thread each, so the run must too: sums of several threads round differently.
    """
    is_plain = settings.tune is None and settings.threads == 1
    return is_plain and settings.jobs != 1 and pick_device(settings.device).type == "cpu"


def _count_fitting_memory(sequences: Sequences) -> int:
    """Return how many workers the memory that is available holds; Linux alone tells."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return count_cores()
    return available // (WORKER_BYTES + 3 * sequences.x.nbytes * (1 + len(sequences.views)))
