"""One inference run: clips → results → report. It can be stopped at any moment and gone on with."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from features.errors import SettingsError
from features.sources.urls import is_address
from features.types import Clip
from features.utils.command_line import Stop
from features.utils.file_identity import size_and_time
from features.utils.progress import progress_bar
from features.utils.text import counted
from features.video.windows import Windows
from hazard.events.decision import decide, decision_of
from hazard.inference.outputs import Decided, check_outputs, finish, read_true_events
from hazard.inference.predict import predict_clips
from hazard.inference.recognizer import Judge, open_judge
from hazard.inference.result_store import FILE, Results, Stamp, begin, open_results
from hazard.inference.settings import InferSettings
from hazard.inference.windowing import windows_of
from hazard.models.input_spec import MODEL_JSON, ModelSource, read_source
from hazard.report.facts import ReportInfo, Summary


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
    source, settings = read_source(batch.model_folder), batch.settings
    check_outputs(batch.output, settings)
    windows = windows_of(source, settings, with_whole=settings.cache is not None)
    with open_results(batch.output) as results, ThreadPoolExecutor(1) as thread:
        opening = thread.submit(open_judge, batch.model_folder, settings, stride_seconds=windows.stride_seconds)
        if begin(results, _identity(batch.model_folder, windows)):
            echo("the report's folder held results of another model or other windows; every clip is looked at again")
        if source.spec.weights == "random":  # drawn from torch's one generator: nothing else may draw meanwhile
            opening.result()
        if settings.truth:
            read_true_events(settings, _named(batch), opening.result().decision)
        _look(batch, source, opening, windows, results, stop, echo)
        if stop:
            return BatchSummary(None, None)
        return _report(batch, opening.result(), windows, results, stop, echo)


def _report(
    batch: Batch, judge: Judge, windows: Windows, results: Results, stop: Stop, echo: Callable[[str], None]
) -> BatchSummary:
    from hazard.report.model_info import report_info

    info = report_info(
        judge.predictor,
        batch.model_folder,
        batch.sources,
        created=datetime.now(UTC),
        decision=judge.decision,
        window_seconds=windows.window_seconds,
        stride_seconds=windows.stride_seconds,
    )
    info = replace(info, has_videos=batch.settings.annotate)
    results.note("decision", asdict(judge.decision))
    decided = Decided(results, _named(batch), judge.decision, {})
    summary = finish(batch.output, batch.settings, decided, judge, info, stop=stop, echo=echo)
    return BatchSummary(summary, info)


def review_batch(output: Path, *, ask: Callable[[str], str], echo: Callable[[str], None]) -> int:
    """Asks a person about the most doubtful predictions of a report; how many were marked in its corrections.csv.

    Raises SettingsError where there is no report.
    """
    from hazard.inference.review import review

    if not (output / FILE).is_file():
        raise SettingsError(
            f"no report at {output} (no {FILE} there); make one with: infer.py SOURCE --model M -o {output}"
        )
    with open_results(output) as results:
        noted = results.noted("decision")
        if noted is None:
            raise SettingsError(f"the report at {output} was never finished; run the command that began it again")
        judged_by = decision_of(noted)
        return review(
            lambda: (decide(clip, judged_by) for clip in results),
            output / "corrections.csv",
            decision=judged_by,
            ask=ask,
            echo=echo,
        )


def _named(batch: Batch) -> dict[str, Clip]:
    return {clip.path: clip for clip in batch.clips}


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
            is_stopped=lambda: bool(stop) or (opening.done() and opening.exception() is not None),
        ):
            failed += found.status == "failed"
            results.add(found, Stamp(clip.size_bytes, clip.mtime_ns))
            bar.set_postfix_str(f"{failed} failed", refresh=False)
            bar.update()
    opening.result()  # a model that is refused ended the run early


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
