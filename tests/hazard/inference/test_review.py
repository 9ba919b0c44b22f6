"""Review at the terminal: the most doubtful clips come first, and each answer is on disk before the next question."""

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from features.errors import RuntimeEnvironmentError
from hazard.data.corrections import Correction, read_corrections
from hazard.events.decision import Decision, decide_clip
from hazard.events.rule import EventRule
from hazard.inference.review import make_questions, review_clips
from hazard.types import ClipPrediction, WindowPredictions

LABELS = ("fight", "noFight")
DECISION = Decision(
    LABELS, "fight", 0.5, (EventRule("fight", 0, on_threshold=0.5, off_threshold=0.4),), unknown_from=3.0
)


def clip(path: str, *alarm: float, strange: float = 0.0) -> ClipPrediction:
    spans = np.array([[i, i + 2.0] for i in range(len(alarm))])
    found = WindowPredictions(spans, np.array([[p, 1 - p] for p in alarm]))
    raw = ClipPrediction(path, "ok", duration=len(alarm) + 1.0, windows=found, unknown_score=strange)
    return decide_clip(raw, DECISION)


CLIPS = [
    clip("calm.mp4", 0.02),
    clip("doubtful.mp4", 0.45),
    clip("sure.mp4", 0.97),
    clip("unsure.mp4", 0.55),
    clip("strange.mp4", 0.1, strange=5.0),
    clip("long.mp4", 0.1, 0.2, 0.7, 0.1),
    clip("quiet.mp4", 0.1, 0.3, 0.1),
    ClipPrediction("broken.mp4", "failed", reason="open: empty file"),
]


def sit(target: Path, typed: str, *, clips: list[ClipPrediction] = CLIPS, most: int = 200) -> Result:
    """Run a command that reviews `clips`, with `typed` as its input."""

    @click.command()
    def command() -> None:
        def stream() -> Iterator[ClipPrediction]:
            return iter(clips)

        def ask(text: str) -> str:
            return str(click.prompt(text, default="s", show_default=False))

        review_clips(stream, target, decision=DECISION, ask=ask, echo=click.echo, max_questions=most)

    return CliRunner().invoke(command, input=typed)


def test_events_come_first_then_the_unknown_then_what_is_near_the_threshold() -> None:
    order = [q.path for q in sorted(make_questions(CLIPS, DECISION), key=lambda q: q.priority)]
    assert order == ["unsure.mp4", "long.mp4", "sure.mp4", "strange.mp4", "doubtful.mp4", "quiet.mp4", "calm.mp4"]


def test_answers_become_corrections(tmp_path: Path) -> None:
    target = tmp_path / "report" / "corrections.csv"
    ran = sit(target, "n\ny\ns\nx\n1\nfight\nq\n")
    assert ran.exit_code == 0, ran.output
    assert "1/7  unsure.mp4: fight 0.55 (event)" in ran.output
    assert "2/7  long.mp4 from 2.5 to 3.5 s: fight 0.70 (event)" in ran.output
    assert "4/7  strange.mp4: noFight 0.90 (unlike all training clips)" in ran.output
    assert "5 marked" in ran.output
    assert read_corrections(target) == [
        Correction("unsure.mp4", "noFight"),
        Correction("long.mp4", "fight", 2.5, 3.5),
        Correction("strange.mp4", ""),
        Correction("doubtful.mp4", "fight"),
        Correction("quiet.mp4", "fight", 1.0, 3.0),
    ]


def test_it_goes_on_where_it_was_left_and_asks_nothing_twice(tmp_path: Path) -> None:
    target = tmp_path / "c.csv"
    assert "2 marked" in sit(target, "y\ny\nq\n").output
    second = sit(target, "y\n" * 4 + "q\n")
    assert "1/5  sure.mp4" in second.output, "the ones that are marked are not asked again"
    assert len(read_corrections(target)) == 6
    assert "calm.mp4" in sit(target, "y\n").output
    assert "nothing is left to review" in sit(target, "").output
    assert len(read_corrections(target)) == 7


def test_who_hangs_up_loses_nothing(tmp_path: Path) -> None:
    ran = sit(tmp_path / "c.csv", "n\n")
    assert ran.exit_code == 1
    assert read_corrections(tmp_path / "c.csv") == [Correction("unsure.mp4", "noFight")]


def test_a_mistyped_answer_is_asked_again(tmp_path: Path) -> None:
    ran = sit(tmp_path / "c.csv", "figth\nfight\nq\n")
    assert "unknown answer 'figth'; did you mean 'fight'" in ran.output
    assert read_corrections(tmp_path / "c.csv") == [Correction("unsure.mp4", "fight")]


def test_no_more_is_asked_than_was_wanted(tmp_path: Path) -> None:
    ran = sit(tmp_path / "c.csv", "s\ns\n", most=2)
    assert "2 to review" in ran.output
    assert "long.mp4" in ran.output
    assert "sure.mp4: " not in ran.output.replace("unsure.mp4: ", "")


def test_hostile_names_are_shown_escaped_and_read_back(tmp_path: Path) -> None:
    names = ["=cmd()\x1b[2J.mp4", 'a,"b\n.mp4']
    ran = sit(tmp_path / "c.csv", "y\ny\n", clips=[clip(name, 0.9) for name in names])
    assert "\x1b" not in ran.output
    assert {c.path for c in read_corrections(tmp_path / "c.csv")} == set(names)
    assert "nothing is left" in sit(tmp_path / "c.csv", "", clips=[clip(name, 0.9) for name in names]).output


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeEnvironmentError, match="cannot write"):
        review_clips(
            lambda: CLIPS, tmp_path / "file" / "c.csv", decision=DECISION, ask=lambda _: "y", echo=lambda _: None
        )
