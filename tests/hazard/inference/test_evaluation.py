"""The evaluation in a report: predictions against true labels and true events."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from hazard.events.decision import Decision, decide_clip
from hazard.events.ground_truth import TrueEvent
from hazard.events.rule import EventRule
from hazard.inference.evaluation import MAX_RESAMPLED_VIDEOS, evaluate_predictions
from hazard.metrics import classification as metrics
from hazard.types import ClipPrediction, WindowPredictions

LABELS = ("fight", "noFight")
DECISION = Decision(LABELS, "fight", 0.5, (EventRule("fight", 0, on_threshold=0.5, off_threshold=0.4),))


def clip(path: str, truth: str, *alarm: float) -> ClipPrediction:
    """Make a decided clip with windows of two seconds, one second apart."""
    spans = np.array([[i, i + 2.0] for i in range(len(alarm))])
    probs = np.array([[p, 1 - p] for p in alarm])
    raw = ClipPrediction(path, "ok", truth=truth, duration=len(alarm) + 1.0, windows=WindowPredictions(spans, probs))
    return decide_clip(raw, DECISION)


def labelled(count: int = 40, seed: int = 0) -> list[ClipPrediction]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(2, size=count)
    score = np.clip(0.5 + 0.2 * (1 - 2 * truth) + 0.2 * rng.normal(size=count), 0.01, 0.99)
    return [clip(f"{i}.mp4", LABELS[k], float(p)) for i, (k, p) in enumerate(zip(truth, score, strict=True))]


def test_figures_are_those_of_training() -> None:
    clips = labelled()
    found = evaluate_predictions(iter(clips), DECISION)
    y = np.array([LABELS.index(c.truth) for c in clips])
    expected = metrics.headline_metrics(y, np.array([c.probs for c in clips]), positive=0, threshold=0.5)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "precision", "recall", "roc_auc", "pr_auc"):
        assert found[name]["value"] == pytest.approx(expected[name], abs=1e-6)
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]
    predicted = np.array([LABELS.index(c.label) for c in clips])
    assert found["confusion"] == {"labels": list(LABELS), "counts": metrics.confusion_matrix(y, predicted, 2).tolist()}
    assert found["per_class"] == metrics.per_class_metrics(y, predicted, LABELS)
    assert json.loads(json.dumps(found)) == found


def test_the_worst_mistakes_are_the_surest_wrong_ones() -> None:
    clips = [clip(f"{i}.mp4", "noFight" if i % 2 else "fight", i / 100) for i in range(1, 100)]
    worst = evaluate_predictions(clips, DECISION)["worst"]
    assert len(worst) == 12
    assert [(w["path"], w["truth"], w["label"]) for w in worst[:2]] == [
        ("99.mp4", "noFight", "fight"),
        ("2.mp4", "fight", "noFight"),
    ]
    assert worst[0]["probability"] == pytest.approx(0.99)


def test_a_long_video_is_right_where_its_events_are() -> None:
    """The label of a long video follows from its events, not from the threshold alone."""
    rule = EventRule("fight", 0, on_threshold=0.5, off_threshold=0.4, min_seconds=3)
    strict = Decision(LABELS, "fight", 0.5, (rule,))
    long = decide_clip(clip("a.mp4", "noFight", 0.1, 0.9, 0.1, 0.1), strict)
    assert evaluate_predictions([long], strict)["accuracy"]["value"] == 1.0


def test_clips_without_truth_failed_clips_and_other_labels_are_counted_apart() -> None:
    failed = ClipPrediction("f.mp4", "failed", reason="open: empty file", truth="fight")
    others = [clip("b.mp4", "", 0.9), clip("c.mp4", "dance", 0.9), failed]
    found = evaluate_predictions([clip("a.mp4", "fight", 0.9), *others], DECISION)
    assert (found["clips"], found["failed"], found["other_labels"]) == (1, 1, 1)
    assert found["accuracy"] == {"value": 1.0, "low": None, "high": None, "reason": "only 1 video"}
    assert found["roc_auc"]["value"] is None
    assert evaluate_predictions([clip("b.mp4", "", 0.9)], DECISION) == {}
    assert evaluate_predictions([], DECISION) == {}


def test_parts_of_one_video_are_drawn_together() -> None:
    """Ten videos split into twenty parts each have the wide intervals of ten videos."""
    rng = np.random.default_rng(0)
    wrong = rng.permutation(10) < 4
    parts = [clip(f"{v}.mp4#t={i},{i + 1}", "fight", 0.1 if wrong[v] else 0.9) for v in range(10) for i in range(20)]
    figure = evaluate_predictions(parts, DECISION)["accuracy"]
    assert figure["high"] - figure["low"] > 0.4


def test_labels_of_clips_are_events_as_long_as_the_clips() -> None:
    clips = [
        clip("a.mp4", "fight", 0.1, 0.1, 0.9, 0.9),
        clip("b.mp4", "fight", 0.1),
        clip("c.mp4", "noFight", *[0.1] * 10, 0.9, *[0.1] * 10),
        clip("d.mp4", "", 0.9),
    ]
    events = evaluate_predictions(clips, DECISION)["events"]
    assert (events["videos"], events["truth"], events["found"], events["false_alarms"]) == (3, 2, 1, 1)
    assert events["hours"] * 3600 == pytest.approx(22)
    assert events["delay_seconds"]["median"] == 2.5, "from the start of a clip that is long enough to tell"


def test_true_events_outrank_labels_of_clips() -> None:
    video = clip("a.mp4", "fight", 0.1, 0.1, 0.9, 0.9, 0.1, 0.1, 0.1, 0.9)
    truth = {"a.mp4": [TrueEvent("fight", 2, 4)], "quiet.mp4": []}
    events = evaluate_predictions([video, clip("quiet.mp4", "", 0.2)], DECISION, truth=truth)["events"]
    assert (events["truth"], events["found"], events["false_alarms"]) == (1, 1, 1)
    assert events["delay_seconds"]["median"] == 0.5
    assert events["hours"] * 3600 == pytest.approx(9 + 2 - 2)


def test_a_million_clips_are_streamed() -> None:
    """Clips are read one at a time, and above MAX_RESAMPLED_VIDEOS no intervals are computed."""
    one = clip("x", "fight", 0.9)
    alive: list[str] = []

    def stream() -> Iterator[ClipPrediction]:
        for i in range(MAX_RESAMPLED_VIDEOS + 1):
            alive.append(f"{i}")
            yield ClipPrediction(f"{i}.mp4", "ok", label="fight", probs=one.probs, truth=LABELS[i % 2], duration=2.0)

    found = evaluate_predictions(stream(), DECISION)
    assert found["accuracy"]["value"] == pytest.approx(0.5, abs=0.01)
    assert found["accuracy"]["low"] is None and found["accuracy"]["reason"] == "more than 10,000 videos"
    assert len(alive) == found["clips"] == MAX_RESAMPLED_VIDEOS + 1
