"""What a model says of a video → what the API answers with, and a table for spreadsheets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hazard.events.decision import Decision, window_cores
from hazard.report.tables import format_csv_line
from hazard.types import ClipPrediction
from hazard.web.jobs.store import VideoJob

TOP_LABELS = 5
DECIMALS = 6
"""Of probabilities and seconds."""


def make_answer(job_id: str, name: str, model: str, clip: ClipPrediction, decision: Decision) -> dict[str, Any]:
    """The answer for a clip that was decided."""
    segments = _make_segments(clip, decision)
    return {
        "id": job_id,
        "name": name,
        "model": model,
        "label": clip.label,
        "confidence": label_confidence(clip, decision),
        "duration": _round(clip.duration),
        "status": clip.status,
        "reason": clip.reason,
        "is_unknown": clip.is_unknown,
        "zero_shot": [{"label": label, "confidence": _round(p)} for label, p in clip.zero_shot],
        "labels": list(decision.labels),
        "positive_label": decision.positive_label or None,
        "threshold": decision.threshold,
        "segment_predictions": segments,
        "events": [
            {"label": event.label} | {key: _round(getattr(event, key)) for key in ("start", "end", "peak", "mean")}
            for event in clip.events
        ],
        "video_url": f"/jobs/{job_id}/video",
    }


def make_failed_answer(job: VideoJob) -> dict[str, Any]:
    """The answer for a video of which nothing can be said."""
    nothing = ClipPrediction(job.name, "failed", job.reason, duration=job.seconds or 0.0)
    answer = make_answer(job.id, job.name, job.model, nothing, Decision((), "", 0.0, ()))
    return answer | {"confidence": None, "threshold": None}


def label_confidence(clip: ClipPrediction, decision: Decision) -> float | None:
    """The probability of the clip's label."""
    return _round(clip.probs[decision.labels.index(clip.label)]) if clip.label else None


def read_answer(file: Path) -> dict[str, Any] | None:
    """An answer that was written; None where there is none."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None


def format_segments_csv(clip: ClipPrediction, decision: Decision) -> str:
    """A row for each stretch of the video: start, end, label, confidence and the probability of every label."""
    lines = [format_csv_line(("start", "end", "label", "confidence", *decision.labels))]
    if clip.windows is not None:
        for core, k, row in zip(
            _segment_spans(clip), _decide_labels(clip.windows.probs, decision), clip.windows.probs, strict=True
        ):
            numbers = (f"{number:.{DECIMALS}f}" for number in (row[k], *row))
            lines.append(format_csv_line((f"{core[0]:.3f}", f"{core[1]:.3f}", decision.labels[k], *numbers)))
    return "".join(lines)


def _make_segments(clip: ClipPrediction, decision: Decision) -> list[dict[str, Any]]:
    """One a window: the stretch that it speaks for."""
    if clip.windows is None or not len(clip.windows):
        return []
    probs = clip.windows.probs  # (B, K)
    return [
        {
            "start": _round(core[0]),
            "end": _round(core[1]),
            "label": decision.labels[k],
            "confidence": _round(row[k]),
            "top5": [
                {"label": decision.labels[i], "confidence": _round(row[i])} for i in (-row).argsort()[:TOP_LABELS]
            ],
        }
        for core, k, row in zip(_segment_spans(clip), _decide_labels(probs, decision), probs, strict=True)
    ]


def _segment_spans(clip: ClipPrediction) -> NDArray[np.float64]:
    assert clip.windows is not None
    return window_cores(clip.windows.spans, clip.duration)


def _decide_labels(probs: NDArray[np.float64], decision: Decision) -> list[int]:
    """The column of each window's label (B, K): as a clip of one window is decided."""
    best = probs.argmax(axis=1)
    if decision.positive_label:
        positive = decision.labels.index(decision.positive_label)
        other = np.full_like(best, 1 - positive) if len(decision.labels) == 2 else best
        best = np.where(probs[:, positive] >= decision.threshold, positive, other)
    return [int(k) for k in best]


def _round(number: float) -> float:
    return round(float(number), DECIMALS)
