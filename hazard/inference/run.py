"""One inference run: clips → results → report. It can be stopped at any time and continued later."""

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
from hazard.events.decision import Decision, decide_clip
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
    """Summary and information of the report; both are None if the run was stopped."""

    summary: ReportSummary | None
    info: ReportInfo | None


@dataclass(frozen=True)
class InferenceRun:
    """The clips, the model, the output folder and the settings of a run."""

    clips: Sequence[Clip]
    model_folder: Path
    output: Path
    settings: InferSettings
    sources: Sequence[Path | str] = ()
    """The sources as the user gave them."""
    retry_failed: bool = False
    reprocess_all: bool = False
    """Whether clips with stored results are analysed again."""


def run_inference(run: InferenceRun, stop: StopFlag, *, echo: Callable[[str], None] = print) -> InferenceResult:
    """Analyse each clip that is new or changed since the last run, then write the report of all clips.

    Results are stored as they come, so the same command continues a stopped run. Workers begin to decode while the
    model is being opened. Raises SettingsError, ArtifactError and RuntimeEnvironmentError.
    """
    input_spec, settings = read_input_spec(run.model_folder), run.settings
    check_outputs(run.output, settings)
    windows = choose_windows(input_spec, settings, with_whole=settings.cache is not None)
    with open_result_store(run.output) as store, ThreadPoolExecutor(1) as thread:
        future = thread.submit(open_recognizer, run.model_folder, settings, stride_seconds=windows.stride_seconds)
        if reset_if_outdated(store, _make_run_identity(run.model_folder, windows)):
            echo("the report folder held results of another model or other windows; every clip is analysed again")
        if input_spec.spec.weights == "random":  # drawn from torch's global generator: nothing else may draw meanwhile
            future.result()
        if settings.truth:  # errors of this file should stop the run before it starts
            read_true_events(settings, _clips_by_path(run), future.result().decision)
        _predict_new_clips(run, input_spec, future, windows, store, stop, echo)
        if stop:
            return InferenceResult(None, None)
        return _write_report(run, future.result(), windows, store, stop, echo)


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
    store.write_fact("decision", recognizer.decision.to_json())
    decided = DecidedClips(store, _clips_by_path(run), recognizer.decision, {})
    summary = write_report_outputs(run.output, run.settings, decided, recognizer, info, stop=stop, echo=echo)
    return InferenceResult(summary, info)


def review_report(output: Path, *, ask: Callable[[str], str], echo: Callable[[str], None]) -> int:
    """Ask a person about the most doubtful predictions of a report; return how many were marked in corrections.csv.

    Raises SettingsError if the folder holds no finished report.
    """
    from hazard.inference.review import review_clips

    if not (output / DATABASE_NAME).is_file():
        raise SettingsError(
            f"no report at {output}: {DATABASE_NAME} does not exist; "
            f"make a report with: infer.py SOURCE --model M -o {output}"
        )
    with open_result_store(output) as store:
        stored = store.read_fact("decision")
        if stored is None:
            raise SettingsError(f"the report at {output} is not finished; run its command again")
        decision = Decision.from_json(stored)
        return review_clips(
            lambda: (decide_clip(clip, decision) for clip in store),
            output / "corrections.csv",
            decision=decision,
            ask=ask,
            echo=echo,
        )


def _clips_by_path(run: InferenceRun) -> dict[str, Clip]:
    return {clip.path: clip for clip in run.clips}


def _predict_new_clips(
    run: InferenceRun,
    input_spec: ModelInputSpec,
    future: "Future[Recognizer]",
    windows: Windowing,
    store: ResultStore,
    stop: StopFlag,
    echo: Callable[[str], None],
) -> None:
    """Predict the clips that are not in the store yet, and store the results."""
    todo, failed_before = _find_new_clips(run, store)
    known = len(run.clips) - len(todo) - failed_before
    if known or failed_before:
        hint = f", {failed_before} failed before (use --retry-failed to try them again)" if failed_before else ""
        echo(f"{format_count(len(run.clips), 'clip')}: {len(todo)} to analyse, {known} already analysed{hint}")
    if not todo:
        return
    failed = 0
    with make_progress_bar(len(todo), description="infer", unit="clip") as bar:
        for clip, prediction in predict_clips(
            todo,
            input_spec,
            lambda: future.result().predictor,
            run.settings,
            windows=windows,
            weights=run.settings.weights,
            cache=run.settings.cache,
            retry_failed=run.retry_failed,
            is_stopped=lambda: bool(stop) or (future.done() and future.exception() is not None),
        ):
            failed += prediction.status == "failed"
            store.add(prediction, FileStat(clip.size_bytes, clip.mtime_ns))
            bar.set_postfix_str(f"{failed} failed", refresh=False)
            bar.update()
    future.result()  # raises the error of a model that could not be opened and so stopped the loop


def _find_new_clips(run: InferenceRun, store: ResultStore) -> tuple[list[Clip], int]:
    """Return the clips that are new or changed, and the number of unchanged clips that failed before."""
    if run.reprocess_all:
        return list(run.clips), 0
    known = store.read_file_stats()
    todo, failed = [], 0
    for clip in run.clips:
        file_stat, status = known.get(clip.path, (None, ""))
        if file_stat is None or not _is_unchanged(clip, file_stat) or (status == "failed" and run.retry_failed):
            todo.append(clip)
        else:
            failed += status == "failed"
    return todo, failed


def _is_unchanged(clip: Clip, file_stat: FileStat) -> bool:
    try:
        return FileStat(*read_size_and_mtime(clip.file)) == file_stat
    except OSError:
        return is_url(clip.path)  # a downloaded file may have been deleted since


def _make_run_identity(model_folder: Path, windows: Windowing) -> dict[str, object]:
    """Return what the probabilities of a clip depend on, besides its video: the model and the windows."""
    model = hashlib.sha256((model_folder / MODEL_JSON).read_bytes()).hexdigest()
    return {"model": model, "windows": {**asdict(windows), "with_whole": None}}
