"""What a run makes of its results: names of unknown clips, figures, the report, annotated videos, a reel."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from features.types import Clip
from features.utils.command_line import Stop
from features.utils.files import check_writable
from features.utils.text import counted, printable
from hazard.events.decision import Decision, decide
from hazard.events.ground_truth import Truth, check_truth, read_truth
from hazard.inference.recognizer import Judge
from hazard.inference.result_store import Results
from hazard.inference.settings import InferSettings
from hazard.report.facts import ReportInfo, Summary
from hazard.report.parquet import check_parquet
from hazard.report.writer import write_report
from hazard.types import ClipPrediction
from hazard.utils.safe_names import FOLDER

if TYPE_CHECKING:
    from hazard.inference.zero_shot import Namer


SHOWN_FAILURES = 20

Names = tuple[tuple[str, float], ...]

Echo = Callable[[str], None]


def check_outputs(output: Path, settings: InferSettings) -> None:
    """Raises EnvironmentStopped or SettingsError where what is asked for could not be written at the end."""
    check_writable(output / "report.html")
    if settings.cache:
        check_writable(settings.cache)
    if settings.parquet:
        check_parquet()


@dataclass(frozen=True)
class Decided:
    """The clips of the sources with labels, events and names, as often as they are asked for."""

    results: Results
    clips: Mapping[str, Clip]
    decision: Decision
    names: Mapping[str, Names]

    def __call__(self) -> Iterator[ClipPrediction]:
        """In order of path, one in memory at a time."""
        for found in self.results:
            if clip := self.clips.get(found.path):
                named = replace(found, truth=clip.label, zero_shot=self.names.get(found.path, ()))
                yield decide(named, self.decision)


def read_true_events(settings: InferSettings, clips: Mapping[str, Clip], decision: Decision) -> Truth:
    """The settings' true events; none without a file. Raises SettingsError where it names what is not there."""
    if settings.truth is None:
        return {}
    truth = read_truth(settings.truth)
    check_truth(settings.truth, truth, paths=clips.keys(), labels=[rule.label for rule in decision.rules])
    return truth


def finish(
    output: Path,
    settings: InferSettings,
    decided: Decided,
    judge: Judge,
    info: ReportInfo,
    *,
    stop: Stop,
    echo: Echo,
) -> Summary:
    """Writes all that was asked for and says what there is."""
    from hazard.inference.evaluation import evaluate_predictions

    truth = read_true_events(settings, decided.clips, judge.decision)
    if judge.namer:
        decided = replace(decided, names=_names(decided, judge.namer, settings, stop))
    tolerance = settings.tolerance_seconds
    evaluation = evaluate_predictions(decided(), judge.decision, truth=truth, tolerance_seconds=tolerance)
    summary = write_report(output, decided, info, parquet=settings.parquet, evaluation=evaluation)
    _say(summary, info, evaluation, echo)
    _say_failures(summary, decided, output, echo)
    if settings.annotate and not stop:
        _annotate(output, settings, decided, judge, summary, stop, echo)
    if settings.highlights and not stop:
        from hazard.rendering.highlights import write_highlights

        echo(write_highlights(decided(), output / "highlights.mp4", workers=settings.workers).said)
    echo(f"report: {output / 'report.html'}")
    return summary


def _names(decided: Decided, namer: "Namer", settings: InferSettings, stop: Stop) -> dict[str, Names]:
    unknown = [decided.clips[clip.path] for clip in decided() if clip.is_unknown]
    named = namer.name_all(
        unknown,
        workers=settings.workers or 1,
        deadline_seconds=settings.deadline_seconds,
        is_stopped=lambda: bool(stop),
    )
    return {clip.path: names for clip, names in named}


def _annotate(
    output: Path, settings: InferSettings, decided: Decided, judge: Judge, summary: Summary, stop: Stop, echo: Echo
) -> None:
    from hazard.rendering.annotate import annotate_all

    written = 0
    for path, outcome in annotate_all(
        decided(),
        output / FOLDER,
        decision=judge.decision,
        folder_fps=judge.predictor.info.spec.sampling.folder_fps,
        workers=settings.workers,
        total=summary.looked_at,
        is_stopped=lambda: bool(stop),
    ):
        if isinstance(outcome, Path):
            written += 1
        else:
            echo(f"  not annotated {printable(path)}: {outcome}")
    echo(f"{counted(written, 'annotated video')} in {output / FOLDER}")


def _say(summary: Summary, info: ReportInfo, evaluation: Mapping[str, object], echo: Echo) -> None:
    """The run in a few lines."""
    echo(f"{counted(summary.looked_at, 'clip')} looked at, {summary.failed} failed")
    if info.positive_label:
        echo(f"{summary.flagged} look like '{info.positive_label}'")
    echo(f"{counted(summary.events, 'event')} in {counted(summary.with_events, 'clip')}")
    if summary.unknown:
        echo(f"{counted(summary.unknown, 'clip')} unlike all that the model was trained on: their labels mean little")
    if summary.accuracy is not None:
        echo(f"accuracy against the folder's labels: {summary.accuracy:.3f} ({counted(summary.with_truth, 'clip')})")
    events = evaluation.get("events")
    if isinstance(events, Mapping) and events["truth"]:
        echo(
            f"{events['found']} of {counted(events['truth'], 'true event')} found, "
            f"{counted(events['false_alarms'], 'false alarm')} in {events['hours']:.2f} hours"
        )


def _say_failures(summary: Summary, decided: Decided, output: Path, echo: Echo) -> None:
    failures = (clip for clip in decided() if clip.status == "failed")
    for clip in islice(failures, SHOWN_FAILURES if summary.failed else 0):
        echo(f"  failed {clip.path!r}: {clip.reason}")
    if summary.failed > SHOWN_FAILURES:
        echo(f"  and {summary.failed - SHOWN_FAILURES} more; all are in {output / 'predictions.csv'}")
