"""The answers of the API and the CSV of segments, made from a decided clip."""

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
"""Decimals of probabilities and seconds in an answer."""


def make_answer(job_id: str, name: str, model: str, clip: ClipPrediction, decision: Decision) -> dict[str, Any]:
    """Return the API's answer for a decided clip."""
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
    """Return the API's answer for a failed job: no label and no segments, but the reason."""
    clip = ClipPrediction(job.name, "failed", job.reason, duration=job.seconds or 0.0)
    answer = make_answer(job.id, job.name, job.model, clip, Decision((), "", 0.0, ()))
    return answer | {"confidence": None, "threshold": None}


def label_confidence(clip: ClipPrediction, decision: Decision) -> float | None:
    """Return the probability of the clip's label, or None if it has no label."""
    return _round(clip.probs[decision.labels.index(clip.label)]) if clip.label else None


def read_answer(file: Path) -> dict[str, Any] | None:
    """Return a stored answer, or None if it does not exist or cannot be read."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None


def format_segments_csv(clip: ClipPrediction, decision: Decision) -> str:
    """Return a CSV with one row per segment: start, end, label, confidence and the probability of every label."""
    lines = [format_csv_line(("start", "end", "label", "confidence", *decision.labels))]
    if clip.windows is not None:
        for core, k, row in zip(
            _segment_spans(clip), _decide_labels(clip.windows.probs, decision), clip.windows.probs, strict=True
        ):
            numbers = (f"{number:.{DECIMALS}f}" for number in (row[k], *row))
            lines.append(format_csv_line((f"{core[0]:.3f}", f"{core[1]:.3f}", decision.labels[k], *numbers)))
    return "".join(lines)


def _make_segments(clip: ClipPrediction, decision: Decision) -> list[dict[str, Any]]:
    """Return one segment per window: the window's core, for which it decides the label."""
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
    """Return the label index of each window from `probs` (B, K), decided like a clip of a single window."""
    best = probs.argmax(axis=1)
    if decision.positive_label:
        positive = decision.labels.index(decision.positive_label)
        other = np.full_like(best, 1 - positive) if len(decision.labels) == 2 else best
        best = np.where(probs[:, positive] >= decision.threshold, positive, other)
    return [int(k) for k in best]


def _round(number: float) -> float:
    return round(float(number), DECIMALS)
