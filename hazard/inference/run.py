"""One inference run: clips → results → report. It can be stopped at any moment and gone on with."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from features.errors import SettingsError
from features.sources.urls import is_url
from features.types import Clip
from features.utils.command_line import StopFlag
from features.utils.file_identity import read_size_and_mtime
from features.utils.progress import make_progress_bar
from features.utils.text import format_count
from features.video.windows import Windowing
from hazard.events.decision import decide_clip, parse_decision
from hazard.inference.outputs import DecidedClips, check_outputs, read_true_events, write_report_outputs
from hazard.inference.predict import predict_clips
from hazard.inference.recognizer import Recognizer, open_recognizer
from hazard.inference.result_store import DATABASE_NAME, FileStat, ResultStore, open_result_store, reset_if_outdated
from hazard.inference.settings import InferSettings
from hazard.inference.windowing import choose_windows
from hazard.models.input_spec import MODEL_JSON, ModelInputSpec, read_input_spec
from hazard.report.facts import ReportInfo, ReportSummary


@dataclass(frozen=True)
class InferenceResult:
    """What a run ended with; no report where it was stopped."""

    summary: ReportSummary | None
    info: ReportInfo | None


@dataclass(frozen=True)
class InferenceRun:
    """What a run looks at, and how."""

    clips: Sequence[Clip]
    model_folder: Path
    output: Path
    settings: InferSettings
    sources: Sequence[Path | str] = ()
    """As the user named them."""
    retry_failed: bool = False
    reprocess_all: bool = False
    """Whether clips that are known already are looked at again."""


def run_inference(run: InferenceRun, stop: StopFlag, *, echo: Callable[[str], None] = print) -> InferenceResult:
    """Looks at each clip that is new or changed since the last run, then writes the report of all.

    What is found of a clip is on disk at once, so that a run that was stopped is gone on with by the same command.
    Workers begin to decode while the model is opened. Raises SettingsError, ArtefactRefused and EnvironmentStopped.
    """
    source, settings = read_input_spec(run.model_folder), run.settings
    check_outputs(run.output, settings)
    windows = choose_windows(source, settings, with_whole=settings.cache is not None)
    with open_result_store(run.output) as results, ThreadPoolExecutor(1) as thread:
        opening = thread.submit(open_recognizer, run.model_folder, settings, stride_seconds=windows.stride_seconds)
        if reset_if_outdated(results, _make_run_identity(run.model_folder, windows)):
            echo("the report's folder held results of another model or other windows; every clip is looked at again")
        if source.spec.weights == "random":  # drawn from torch's one generator: nothing else may draw meanwhile
            opening.result()
        if settings.truth:
            read_true_events(settings, _clips_by_path(run), opening.result().decision)
        _predict_new_clips(run, source, opening, windows, results, stop, echo)
        if stop:
            return InferenceResult(None, None)
        return _write_report(run, opening.result(), windows, results, stop, echo)


def _write_report(
    run: InferenceRun,
    recognizer: Recognizer,
    windows: Windowing,
    store: ResultStore,
    stop: StopFlag,
    echo: Callable[[str], None],
) -> InferenceResult:
    from hazard.report.model_info import make_report_info

    info = make_report_info(
        recognizer.predictor,
        run.model_folder,
        run.sources,
        created=datetime.now(UTC),
        decision=recognizer.decision,
        window_seconds=windows.window_seconds,
        stride_seconds=windows.stride_seconds,
    )
    info = replace(info, has_videos=run.settings.annotate)
    store.write_fact("decision", asdict(recognizer.decision))
    decided = DecidedClips(store, _clips_by_path(run), recognizer.decision, {})
    summary = write_report_outputs(run.output, run.settings, decided, recognizer, info, stop=stop, echo=echo)
    return InferenceResult(summary, info)


def review_report(output: Path, *, ask: Callable[[str], str], echo: Callable[[str], None]) -> int:
    """Asks a person about the most doubtful predictions of a report; how many were marked in its corrections.csv.

    Raises SettingsError where there is no report.
    """
    from hazard.inference.review import review_clips

    if not (output / DATABASE_NAME).is_file():
        raise SettingsError(
            f"no report at {output} (no {DATABASE_NAME} there); make one with: infer.py SOURCE --model M -o {output}"
        )
    with open_result_store(output) as results:
        noted = results.read_fact("decision")
        if noted is None:
            raise SettingsError(f"the report at {output} was never finished; run the command that began it again")
        judged_by = parse_decision(noted)
        return review_clips(
            lambda: (decide_clip(clip, judged_by) for clip in results),
            output / "corrections.csv",
            decision=judged_by,
            ask=ask,
            echo=echo,
        )


def _clips_by_path(run: InferenceRun) -> dict[str, Clip]:
    return {clip.path: clip for clip in run.clips}


def _predict_new_clips(
    run: InferenceRun,
    source: ModelInputSpec,
    opening: "Future[Recognizer]",
    windows: Windowing,
    store: ResultStore,
    stop: StopFlag,
    echo: Callable[[str], None],
) -> None:
    """Fills the results with what is not known yet."""
    todo, failed_before = _find_new_clips(run, store)
    kept = len(run.clips) - len(todo) - failed_before
    if kept or failed_before:
        again = f", {failed_before} failed before (--retry-failed tries them again)" if failed_before else ""
        echo(f"{format_count(len(run.clips), 'clip')}: {len(todo)} to look at, {kept} looked at already{again}")
    if not todo:
        return
    failed = 0
    with make_progress_bar(len(todo), description="infer", unit="clip") as bar:
        for clip, found in predict_clips(
            todo,
            source,
            lambda: opening.result().predictor,
            run.settings,
            windows=windows,
            weights=run.settings.weights,
            cache=run.settings.cache,
            retry_failed=run.retry_failed,
            is_stopped=lambda: bool(stop) or (opening.done() and opening.exception() is not None),
        ):
            failed += found.status == "failed"
            store.add(found, FileStat(clip.size_bytes, clip.mtime_ns))
            bar.set_postfix_str(f"{failed} failed", refresh=False)
            bar.update()
    opening.result()  # a model that is refused ended the run early


def _find_new_clips(run: InferenceRun, store: ResultStore) -> tuple[list[Clip], int]:
    """The clips that are new or changed, and how many failed before and are what they were."""
    if run.reprocess_all:
        return list(run.clips), 0
    known = store.read_file_stats()
    todo, failed = [], 0
    for clip in run.clips:
        stamp, status = known.get(clip.path, (None, ""))
        if stamp is None or not _is_unchanged(clip, stamp) or (status == "failed" and run.retry_failed):
            todo.append(clip)
        else:
            failed += status == "failed"
    return todo, failed


def _is_unchanged(clip: Clip, file_stat: FileStat) -> bool:
    try:
        return FileStat(*read_size_and_mtime(clip.file)) == file_stat
    except OSError:
        return is_url(clip.path)  # a download may be thrown away afterwards


def _make_run_identity(model_folder: Path, windows: Windowing) -> dict[str, object]:
    """What decides the probabilities of a clip."""
    model = hashlib.sha256((model_folder / MODEL_JSON).read_bytes()).hexdigest()
    return {"model": model, "windows": {**asdict(windows), "with_whole": None}}
