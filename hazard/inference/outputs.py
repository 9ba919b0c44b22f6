"""The outputs of an inference run: names of unknown clips, metrics, the report, annotated videos, highlights."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from features.types import Clip
from features.utils.command_line import StopFlag
from features.utils.files import check_writable
from features.utils.text import format_count, make_printable
from hazard.events.decision import Decision, decide_clip
from hazard.events.ground_truth import GroundTruth, check_truth, read_truth
from hazard.inference.recognizer import Recognizer
from hazard.inference.result_store import ResultStore
from hazard.inference.settings import InferSettings
from hazard.report.facts import ReportInfo, ReportSummary
from hazard.report.parquet import check_parquet
from hazard.report.writer import write_report
from hazard.types import ClipPrediction
from hazard.utils.safe_names import ANNOTATED_FOLDER
from hazard.utils.text import format_rounded_duration

if TYPE_CHECKING:
    from hazard.inference.zero_shot import ZeroShotNamer


MAX_LISTED_FAILURES = 20

NameProbabilities = tuple[tuple[str, float], ...]

EchoFunction = Callable[[str], None]


def check_outputs(output: Path, settings: InferSettings) -> None:
    """Check before the run that all requested outputs can be written at its end.

    Raises RuntimeEnvironmentError for a folder or cache that is not writable, SettingsError if pyarrow is missing.
    """
    check_writable(output / "report.html")
    if settings.cache:
        check_writable(settings.cache)
    if settings.parquet:
        check_parquet()


@dataclass(frozen=True)
class DecidedClips:
    """The clips of the sources with label, events and names. Each call decides all clips anew."""

    store: ResultStore
    clips: Mapping[str, Clip]
    decision: Decision
    names: Mapping[str, NameProbabilities]

    def __call__(self) -> Iterator[ClipPrediction]:
        """Yield the clips in order of path. One clip is in memory at a time."""
        for raw in self.store:
            if clip := self.clips.get(raw.path):
                named = replace(raw, truth=clip.label, zero_shot=self.names.get(raw.path, ()))
                yield decide_clip(named, self.decision)


def read_true_events(settings: InferSettings, clips: Mapping[str, Clip], decision: Decision) -> GroundTruth:
    """Read the true events of the setting `truth`; return none without it.

    Raises SettingsError if the file names a clip or a label that does not exist.
    """
    if settings.truth is None:
        return {}
    truth = read_truth(settings.truth)
    check_truth(settings.truth, truth, paths=clips.keys(), labels=[rule.label for rule in decision.rules])
    return truth


def write_report_outputs(
    output: Path,
    settings: InferSettings,
    decided: DecidedClips,
    recognizer: Recognizer,
    info: ReportInfo,
    *,
    stop: StopFlag,
    echo: EchoFunction,
) -> ReportSummary:
    """Write the report and all other requested outputs, and print a summary."""
    from hazard.inference.evaluation import evaluate_predictions

    truth = read_true_events(settings, decided.clips, recognizer.decision)
    if recognizer.namer:
        decided = replace(decided, names=_name_unknown_clips(decided, recognizer.namer, settings, stop))
    tolerance = settings.tolerance_seconds
    evaluation = evaluate_predictions(decided(), recognizer.decision, truth=truth, tolerance_seconds=tolerance)
    summary = write_report(output, decided, info, parquet=settings.parquet, evaluation=evaluation)
    _echo_summary(summary, info, evaluation, echo)
    _echo_failures(summary, decided, output, echo)
    if settings.annotate and not stop:
        _write_annotated_videos(output, settings, decided, recognizer, summary, stop, echo)
    if settings.highlights and not stop:
        from hazard.rendering.highlights import write_highlights

        echo(write_highlights(decided(), output / "highlights.mp4", workers=settings.workers).summary_text)
    echo(f"report: {output / 'report.html'}")
    return summary


def _name_unknown_clips(
    decided: DecidedClips, namer: "ZeroShotNamer", settings: InferSettings, stop: StopFlag
) -> dict[str, NameProbabilities]:
    unknown = [decided.clips[clip.path] for clip in decided() if clip.is_unknown]
    named = namer.name_clips(
        unknown,
        workers=settings.workers or 1,
        deadline_seconds=settings.deadline_seconds,
        is_stopped=lambda: bool(stop),
    )
    return {clip.path: names for clip, names in named}


def _write_annotated_videos(
    output: Path,
    settings: InferSettings,
    decided: DecidedClips,
    recognizer: Recognizer,
    summary: ReportSummary,
    stop: StopFlag,
    echo: EchoFunction,
) -> None:
    from hazard.rendering.annotate import annotate_all

    written = 0
    for path, outcome in annotate_all(
        decided(),
        output / ANNOTATED_FOLDER,
        decision=recognizer.decision,
        folder_fps=recognizer.predictor.info.spec.sampling.folder_fps,
        workers=settings.workers,
        total=summary.looked_at,
        is_stopped=lambda: bool(stop),
    ):
        if isinstance(outcome, Path):
            written += 1
        else:
            echo(f"  could not annotate {make_printable(path)}: {outcome}")
    echo(f"{format_count(written, 'annotated video')} in {output / ANNOTATED_FOLDER}")


def _echo_summary(
    summary: ReportSummary, info: ReportInfo, evaluation: Mapping[str, object], echo: EchoFunction
) -> None:
    """Print the results of the run in a few lines."""
    echo(f"{format_count(summary.looked_at, 'clip')} analysed, {summary.failed} failed")
    if info.positive_label:
        echo(f"{format_count(summary.flagged, 'clip')} flagged as '{info.positive_label}'")
    echo(f"{format_count(summary.events, 'event')} in {format_count(summary.with_events, 'clip')}")
    if summary.unknown:
        echo(
            f"{format_count(summary.unknown, 'clip')} unknown: unlike all training clips, so the label is not reliable"
        )
    if summary.accuracy is not None:
        echo(f"accuracy against the given labels: {summary.accuracy:.3f} ({format_count(summary.with_truth, 'clip')})")
    events = evaluation.get("events")
    if isinstance(events, Mapping) and events["truth"]:
        echo(
            f"{events['found']} of {format_count(events['truth'], 'true event')} found, "
            f"{format_count(events['false_alarms'], 'false alarm')} "
            f"in {format_rounded_duration(events['hours'] * 3600)} of video without events"
        )


def _echo_failures(summary: ReportSummary, decided: DecidedClips, output: Path, echo: EchoFunction) -> None:
    failures = (clip for clip in decided() if clip.status == "failed")
    for clip in islice(failures, MAX_LISTED_FAILURES if summary.failed else 0):
        echo(f"  failed {clip.path!r}: {clip.reason}")
    if summary.failed > MAX_LISTED_FAILURES:
        echo(f"  and {summary.failed - MAX_LISTED_FAILURES} more; all of them are in {output / 'predictions.csv'}")
