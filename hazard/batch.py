"""One inference run: clips → results → report. It can be stopped at any moment and gone on with."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from features.addresses import is_address
from features.commands import Stop
from features.files import check_writable
from features.progress import progress_bar
from features.stamp import size_and_time
from features.types import Clip
from features.windows import Windows
from features.words import counted
from hazard.cutting import windows_of
from hazard.decide import Decision, decide
from hazard.infer_config import InferSettings
from hazard.model_source import MODEL_JSON, ModelSource, read_source
from hazard.predict import predict_clips
from hazard.report import ReportInfo, Summary, summarise, write_report
from hazard.results import Results, Stamp, begin, open_results
from hazard.types import ClipPrediction

if TYPE_CHECKING:  # slow to import: workers decode meanwhile
    from hazard.model import Predictor

SHOWN_FAILURES = 20


@dataclass(frozen=True)
class BatchSummary:
    """What a run ended with; no report where it was stopped."""

    summary: Summary | None
    info: ReportInfo | None


@dataclass(frozen=True)
class Batch:
    """What a run looks at, and how."""

    clips: Sequence[Clip]
    model_folder: Path
    output: Path
    settings: InferSettings
    sources: Sequence[Path | str] = ()
    """As the user named them."""
    retry_failed: bool = False
    fresh: bool = False
    """Whether clips that are known already are looked at again."""


def run_batch(batch: Batch, stop: Stop, *, echo: Callable[[str], None] = print) -> BatchSummary:
    """Looks at each clip that is new or changed since the last run, then writes the report of all.

    What is found of a clip is on disk at once, so that a run that was stopped is gone on with by the same command.
    Workers begin to decode while the model is opened. Raises SettingsError, ArtefactRefused and EnvironmentStopped.
    """
    source = read_source(batch.model_folder)
    check_writable(batch.output / "report.html")
    if batch.settings.cache:
        check_writable(batch.settings.cache)
    windows = windows_of(source, batch.settings, with_whole=batch.settings.cache is not None)
    with open_results(batch.output) as results, ThreadPoolExecutor(1) as thread:
        opening = thread.submit(open_judge, batch, windows.stride_seconds)
        if begin(results, _identity(batch.model_folder, windows)):
            echo("the report's folder held results of another model or other windows; every clip is looked at again")
        _look(batch, source, opening, windows, results, stop, echo)
        if stop:
            return BatchSummary(None, None)
        return _report(batch, opening.result(), results, echo)


@dataclass(frozen=True)
class Judge:
    """A model that is open, and by what its probabilities become labels and events."""

    predictor: "Predictor"
    decision: Decision


def open_judge(batch: Batch, stride_seconds: float) -> Judge:
    """Opens the model; it takes seconds to import what that needs. Raises as `open_model` and `decision` do."""
    from hazard.model_files import open_model
    from hazard.thresholds import decision

    predictor = open_model(batch.model_folder)
    return Judge(predictor, decision(predictor, batch.model_folder, batch.settings, stride_seconds=stride_seconds))


def _report(batch: Batch, judge: Judge, results: Results, echo: Callable[[str], None]) -> BatchSummary:
    from hazard.report_info import report_info

    info = report_info(judge.predictor, batch.model_folder, batch.sources, created=datetime.now(UTC))
    decided = _Decided(results, {clip.path: clip for clip in batch.clips}, judge.decision)
    write_report(batch.output, list(decided()), info)
    summary = summarise(list(decided()), info)
    _say(summary, info, decided, batch.output, echo)
    return BatchSummary(summary, info)


@dataclass(frozen=True)
class _Decided:
    """The clips of the sources with labels and events, as often as they are asked for."""

    results: Results
    named: dict[str, Clip]
    decision: Decision

    def __call__(self) -> Iterator[ClipPrediction]:
        """In order of path, one in memory at a time."""
        for clip in self.results:
            if clip.path in self.named:
                yield decide(replace(clip, truth=self.named[clip.path].label), self.decision)


def _say(summary: Summary, info: ReportInfo, decided: _Decided, output: Path, echo: Callable[[str], None]) -> None:
    """The run in a few lines."""
    echo(f"{counted(summary.looked_at, 'clip')} looked at, {summary.failed} failed")
    if info.positive_label:
        echo(f"{summary.flagged} look like '{info.positive_label}'")
    if summary.accuracy is not None:
        echo(f"accuracy against the folder's labels: {summary.accuracy:.3f} ({counted(summary.with_truth, 'clip')})")
    failures = (clip for clip in decided() if clip.status == "failed")
    for clip in islice(failures, SHOWN_FAILURES if summary.failed else 0):
        echo(f"  failed {clip.path!r}: {clip.reason}")
    if summary.failed > SHOWN_FAILURES:
        echo(f"  and {summary.failed - SHOWN_FAILURES} more; all are in {output / 'predictions.csv'}")
    echo(f"report: {output / 'report.html'}")


def _look(
    batch: Batch,
    source: ModelSource,
    opening: "Future[Judge]",
    windows: Windows,
    results: Results,
    stop: Stop,
    echo: Callable[[str], None],
) -> None:
    """Fills the results with what is not known yet."""
    todo, failed_before = _todo(batch, results)
    kept = len(batch.clips) - len(todo) - failed_before
    if kept or failed_before:
        again = f", {failed_before} failed before (--retry-failed tries them again)" if failed_before else ""
        echo(f"{counted(len(batch.clips), 'clip')}: {len(todo)} to look at, {kept} looked at already{again}")
    if not todo:
        return
    failed = 0
    with progress_bar(len(todo), what="infer", unit="clip") as bar:
        for clip, found in predict_clips(
            todo,
            source,
            lambda: opening.result().predictor,
            batch.settings,
            windows=windows,
            weights=batch.settings.weights,
            cache=batch.settings.cache,
            retry_failed=batch.retry_failed,
            is_stopped=lambda: bool(stop),
        ):
            failed += found.status == "failed"
            results.add(found, Stamp(clip.size_bytes, clip.mtime_ns))
            bar.set_postfix_str(f"{failed} failed", refresh=False)
            bar.update()


def _todo(batch: Batch, results: Results) -> tuple[list[Clip], int]:
    """The clips that are new or changed, and how many failed before and are what they were."""
    if batch.fresh:
        return list(batch.clips), 0
    known = results.stamps()
    todo, failed = [], 0
    for clip in batch.clips:
        stamp, status = known.get(clip.path, (None, ""))
        if stamp is None or not _is_same(clip, stamp) or (status == "failed" and batch.retry_failed):
            todo.append(clip)
        else:
            failed += status == "failed"
    return todo, failed


def _is_same(clip: Clip, stamp: Stamp) -> bool:
    try:
        return Stamp(*size_and_time(clip.file)) == stamp
    except OSError:
        return is_address(clip.path)  # a download may be thrown away afterwards


def _identity(model_folder: Path, windows: Windows) -> dict[str, object]:
    """What decides the probabilities of a clip."""
    model = hashlib.sha256((model_folder / MODEL_JSON).read_bytes()).hexdigest()
    return {"model": model, "windows": {**asdict(windows), "with_whole": None}}
