"""Review at the terminal: ask a person about doubtful predictions and write each answer to corrections.csv."""

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
"""Questions in one review, at most."""
ANSWER_HELP = (
    "[y] right   [n] wrong (with two labels)   [label or its number] the true label   "
    "[x] leave the clip out   [s] skip   [q] quit"
)

QuestionKey = tuple[str, str, str]
"""Path, start and end as they are written in corrections.csv."""


@dataclass(frozen=True)
class ReviewQuestion:
    """A clip, or a part of one, that a person should check."""

    path: str
    label: str
    probability: float
    reason: str
    priority: tuple[int, float]
    """Lower values are asked first: the kind of question, then the distance from the threshold."""
    start: float | None = None
    end: float | None = None

    @property
    def key(self) -> QuestionKey:
        """Path, start and end as in corrections.csv."""
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
    """Ask about at most `max_questions` decided clips, the most doubtful first; return how many were marked.

    Events come first, the least certain ones before the others. Unknown clips follow, then the clips nearest to the
    threshold. Each answer is in `target` (path, label, start, end) before the next question. Entries of `target` are
    not asked again. Raises RuntimeEnvironmentError if `target` cannot be written.
    """
    answered = {
        (c.path, _format_seconds(c.start_seconds), _format_seconds(c.end_seconds)) for c in _read_marked_clips(target)
    }
    questions = heapq.nsmallest(
        max_questions,
        (q for q in make_questions(clips(), decision) if q.key not in answered),
        key=lambda q: (q.priority, q.key),
    )
    if not questions:
        echo("nothing is left to review")
        return 0
    echo(f"{len(questions)} to review; {ANSWER_HELP}")
    echo("labels: " + ", ".join(f"[{number}] {label}" for number, label in enumerate(decision.labels, start=1)))
    marked = 0
    for number, question in enumerate(questions, start=1):
        echo(f"{number}/{len(questions)}  {_format_question(question)}")
        answer = _read_answer(question, decision.labels, ask, echo)
        if answer is None:
            break
        if answer != SKIP_ANSWER:
            _append_correction(target, question, answer)
            marked += 1
    echo(f"{marked} marked in {target}; train with them: train-temporal CACHE --labels {target} -o runs/NAME")
    return marked


def make_questions(clips: Iterable[ClipPrediction], decision: Decision) -> Iterator[ReviewQuestion]:
    """Yield a question for each event of the analysed clips.

    A clip without events gets one question: about the clip, or about the peak window of a long video.
    """
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
"""The answer "skip"; no label has this name."""


def _make_clip_question(clip: ClipPrediction, decision: Decision, is_long: bool) -> ReviewQuestion:
    """Make the question about a clip without an event."""
    assert clip.windows is not None
    column = decision.labels.index(clip.label)
    span: tuple[float | None, float | None] = (None, None)
    if is_long and decision.positive_label:
        peak = int(clip.windows.probs[:, decision.labels.index(decision.positive_label)].argmax())
        start, end = clip.windows.spans[peak].tolist()
        span = (start, end)
    if decision.positive_label:
        margin = _decision_margin(clip.probs[decision.labels.index(decision.positive_label)], decision.threshold)
    else:
        second, first = np.sort(clip.probs)[-2:].tolist()
        margin = first - second
    reason = "unlike all training clips" if clip.is_unknown else "no event"
    return ReviewQuestion(
        clip.path, clip.label, clip.probs[column], reason, (1 if clip.is_unknown else 2, margin), *span
    )


def _decision_margin(probability: float, threshold: float) -> float:
    """Return the distance from the threshold, scaled to 0 … 1 on either side of it."""
    room = 1 - threshold if probability >= threshold else threshold
    return abs(probability - threshold) / room if room > 0 else 0.0


def _read_answer(
    question: ReviewQuestion, labels: tuple[str, ...], ask: Callable[[str], str], echo: Callable[[str], None]
) -> str | None:
    """Return the label that the person gives, "" to leave the clip out, SKIP_ANSWER, or None to quit."""
    answers = {"y": question.label, "x": "", "s": SKIP_ANSWER, "": SKIP_ANSWER}
    answers |= {str(number): label for number, label in enumerate(labels, start=1)} | {label: label for label in labels}
    while True:
        typed = ask(f"is it '{make_printable(question.label)}'?").strip()
        if typed == "q":
            return None
        if typed == "n" and len(labels) == 2:
            return labels[1 - labels.index(question.label)]
        if typed in answers:
            return answers[typed]
        echo(f"unknown answer '{make_printable(typed)}'; {suggest_name(typed, labels)}; {ANSWER_HELP}")


def _format_question(question: ReviewQuestion) -> str:
    when = f" from {question.start:.1f} to {question.end:.1f} s" if question.start is not None else ""
    return f"{make_printable(question.path)}{when}: {question.label} {question.probability:.2f} ({question.reason})"


def _read_marked_clips(target: Path) -> Iterator:
    return iter(read_corrections(target) if target.exists() and target.stat().st_size else ())


def _append_correction(target: Path, question: ReviewQuestion, label: str) -> None:
    """Append one line; it is on disk when this returns. Raises RuntimeEnvironmentError if it cannot be written."""
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
    """Format seconds rounded to a millisecond; empty for None and infinity."""
    return "" if seconds is None or math.isinf(seconds) else format_seconds(round(seconds, 3))
