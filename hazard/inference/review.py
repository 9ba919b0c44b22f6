"""Doubtful predictions, one after the other, to a person, whose word becomes a line of corrections.csv at once."""

import csv
import heapq
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.errors import RuntimeEnvironmentError
from features.types import format_seconds
from features.utils.text import make_printable, suggest_name
from hazard.data.corrections import CSV_COLUMNS, FORMULA_STARTS, read_corrections
from hazard.events.decision import Decision
from hazard.types import ClipPrediction

MAX_QUESTIONS = 200
"""Questions of one sitting."""
ANSWER_HELP = "[y] right   [n]/name another label   [x] leave the clip out   [s] skip   [q] quit"

QuestionKey = tuple[str, str, str]
"""Path, start and end as they stand in the file."""


@dataclass(frozen=True)
class ReviewQuestion:
    """A clip, or a stretch of one, that somebody should look at."""

    path: str
    label: str
    probability: float
    reason: str
    priority: tuple[int, float]
    """The least is asked first: its kind, then how far from undecided it is."""
    start: float | None = None
    end: float | None = None

    @property
    def key(self) -> QuestionKey:
        """What it is known by in corrections.csv."""
        return self.path, _format_seconds(self.start), _format_seconds(self.end)


def review_clips(
    clips: Callable[[], Iterable[ClipPrediction]],
    target: Path,
    *,
    decision: Decision,
    ask: Callable[[str], str],
    echo: Callable[[str], None] = print,
    max_questions: int = MAX_QUESTIONS,
) -> int:
    """Asks about at most so many decided clips, most doubtful first; returns how many were marked.

    Events come first, the least sure of them at the head, then unknown clips, then what lies nearest to the threshold.
    Each answer is in `target` (path, label, start, end) before the next question; what is there is not asked again.
    Raises EnvironmentStopped where it cannot be written.
    """
    done = {
        (c.path, _format_seconds(c.start_seconds), _format_seconds(c.end_seconds)) for c in _read_marked_clips(target)
    }
    asked = heapq.nsmallest(
        max_questions,
        (q for q in make_questions(clips(), decision) if q.key not in done),
        key=lambda q: (q.priority, q.key),
    )
    if not asked:
        echo("nothing is left to review")
        return 0
    echo(f"{len(asked)} to review; {ANSWER_HELP}")
    echo("labels: " + ", ".join(f"[{number}] {label}" for number, label in enumerate(decision.labels, start=1)))
    marked = 0
    for number, question in enumerate(asked, start=1):
        echo(f"{number}/{len(asked)}  {_format_question(question)}")
        answer = _read_answer(question, decision.labels, ask, echo)
        if answer is None:
            break
        if answer != SKIP_ANSWER:
            _append_correction(target, question, answer)
            marked += 1
    echo(f"{marked} marked in {target}; train with them: train-temporal CACHE --labels {target} -o runs/NAME")
    return marked


def make_questions(clips: Iterable[ClipPrediction], decision: Decision) -> Iterator[ReviewQuestion]:
    """What could be asked of clips that were looked at: an event each, else the clip or its most telling window."""
    for clip in clips:
        if clip.status == "failed" or clip.windows is None or not len(clip.windows):
            continue
        is_long = len(clip.windows) > 1
        for event in clip.events:
            span = (event.start, event.end) if is_long else (None, None)
            yield ReviewQuestion(
                clip.path,
                event.label,
                event.peak,
                "event",
                (0, _decision_margin(event.peak, decision.threshold)),
                *span,
            )
        if not clip.events:
            yield _make_clip_question(clip, decision, is_long)


SKIP_ANSWER = "\0"
"""No label is called so."""


def _make_clip_question(clip: ClipPrediction, decision: Decision, is_long: bool) -> ReviewQuestion:
    """About a clip without an event."""
    assert clip.windows is not None
    place = decision.labels.index(clip.label)
    span: tuple[float | None, float | None] = (None, None)
    if is_long and decision.positive_label:
        telling = int(clip.windows.probs[:, decision.labels.index(decision.positive_label)].argmax())
        start, end = clip.windows.spans[telling].tolist()
        span = (start, end)
    if decision.positive_label:
        margin = _decision_margin(clip.probs[decision.labels.index(decision.positive_label)], decision.threshold)
    else:
        second, first = np.sort(clip.probs)[-2:].tolist()
        margin = first - second
    why = "unlike all clips of training" if clip.is_unknown else "no event"
    return ReviewQuestion(clip.path, clip.label, clip.probs[place], why, (1 if clip.is_unknown else 2, margin), *span)


def _decision_margin(probability: float, threshold: float) -> float:
    """How far from undecided, 0 to 1 on either side of the threshold."""
    room = 1 - threshold if probability >= threshold else threshold
    return abs(probability - threshold) / room if room > 0 else 0.0


def _read_answer(
    question: ReviewQuestion, labels: tuple[str, ...], ask: Callable[[str], str], echo: Callable[[str], None]
) -> str | None:
    """A label, an empty one to leave the clip out, SKIPPED, or None to quit."""
    words = {"y": question.label, "x": "", "s": SKIP_ANSWER, "": SKIP_ANSWER}
    words |= {str(number): label for number, label in enumerate(labels, start=1)} | {label: label for label in labels}
    while True:
        said = ask(f"is it '{make_printable(question.label)}'?").strip()
        if said == "q":
            return None
        if said == "n" and len(labels) == 2:
            return labels[1 - labels.index(question.label)]
        if said in words:
            return words[said]
        echo(f"'{make_printable(said)}' is no answer; {suggest_name(said, labels)}; {ANSWER_HELP}")


def _format_question(question: ReviewQuestion) -> str:
    when = f" from {question.start:.1f} to {question.end:.1f} s" if question.start is not None else ""
    return f"{make_printable(question.path)}{when}: {question.label} {question.probability:.2f} ({question.reason})"


def _read_marked_clips(target: Path) -> Iterator:
    return iter(read_corrections(target) if target.exists() and target.stat().st_size else ())


def _append_correction(target: Path, question: ReviewQuestion, label: str) -> None:
    """One line more, on disk when this returns."""
    row = (question.path, label, *question.key[1:])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "a", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
            if not file.tell():
                writer.writerow(CSV_COLUMNS)
            writer.writerow(["'" + cell if cell.startswith(FORMULA_STARTS) else cell for cell in row])
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RuntimeEnvironmentError(f"cannot write {target}: {error.strerror or error}") from error


def _format_seconds(seconds: float | None) -> str:
    """To the millisecond: nobody means less."""
    return "" if seconds is None or math.isinf(seconds) else format_seconds(round(seconds, 3))
