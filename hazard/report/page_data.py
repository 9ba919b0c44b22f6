"""The data of one clip for the page's script: a row for the list, a detail for the clip's page, and thumbnails.

Keys are short because there are thousands of rows; `report_data.js` says what they mean.
"""

import json
from base64 import b64encode
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from hazard.report.facts import ReportInfo, is_correct, ranking_score
from hazard.report.page_plan import select_thumbnails
from hazard.types import ClipPrediction
from hazard.utils.safe_names import ANNOTATED_FOLDER, annotated_video_path

MAX_PROBABILITY_BARS = 5
MAX_CURVES = 3
MAX_CLIP_EVENTS = 200
"""Events of one clip on the page, at most; events.csv has all."""
MAX_ATTENTION_STEPS = 96
"""Steps of attention on the page, at most; more are summed."""


def format_script_json(value: object) -> str:
    """Format JSON for a script element: no text in it can end the element or open a comment. NaN is an error."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def make_clip_row(number: int, clip: ClipPrediction, info: ReportInfo) -> dict[str, Any]:
    """Return what the list shows of a clip; empty values are left out."""
    correct = is_correct(clip, info)
    strongest = sorted(clip.events, key=lambda event: -event.peak)[:MAX_CLIP_EVENTS]
    row = {
        "i": number,
        "p": clip.path,
        "l": info.labels.index(clip.label),
        "s": _round_probability(ranking_score(clip, info)),
        "d": round(_finite_or_zero(clip.duration), 2),
        "e": [
            [
                info.labels.index(e.label),
                round(e.start, 2),
                round(e.end, 2),
                _round_probability(e.peak),
                _round_probability(e.mean),
            ]
            for e in sorted(strongest, key=lambda event: (event.start, event.end))
        ],
        "m": len(clip.events) if len(clip.events) > MAX_CLIP_EVENTS else 0,
        "h": int(clip.status == "partial"),
        "r": clip.reason,
        "t": clip.truth,
        "w": int(correct is False),
        "k": int(correct is not None),
        "u": int(clip.is_unknown),
        "z": clip.zero_shot[0][0] if clip.zero_shot else "",
    }
    return {key: value for key, value in row.items() if value or key in "ilsd"}


def make_clip_detail(
    clip: ClipPrediction, info: ReportInfo, *, thumbnail_count: int, max_points: int
) -> dict[str, Any]:
    """Return what the clip's page shows in addition to its row; empty values are left out."""
    detail = {
        "b": [[info.labels.index(label), _round_probability(p)] for label, p in top_classes(clip, info)],
        "k": [round(clip.thumbnail_times[i], 2) for i in select_thumbnails(clip, thumbnail_count)],
        "a": sum_attention_steps(clip),
        "z": [[name, _round_probability(p)] for name, p in clip.zero_shot[:MAX_PROBABILITY_BARS]],
        "u": None if clip.unknown_score is None else float(f"{_finite_or_zero(clip.unknown_score):.4g}"),
        "v": quote(f"{ANNOTATED_FOLDER}/{annotated_video_path(clip.path)}", errors="surrogatepass")
        if info.has_videos
        else None,
        **_make_curves(clip, info, max_points),
    }
    return {key: value for key, value in detail.items() if value not in ([], None)}


def encode_thumbnails(clip: ClipPrediction, thumbnail_count: int) -> str:
    """Return the selected JPEGs in base64, separated by commas."""
    return ",".join(b64encode(clip.thumbnails[i]).decode() for i in select_thumbnails(clip, thumbnail_count))


def top_classes(clip: ClipPrediction, info: ReportInfo) -> list[tuple[str, float]]:
    """Return the most probable classes; the positive one is always among them."""
    ranked = sorted(zip(info.labels, clip.probs, strict=True), key=lambda bar: bar[1], reverse=True)
    rest = [bar for bar in ranked[MAX_PROBABILITY_BARS:] if bar[0] == info.positive_label]
    return ranked[: MAX_PROBABILITY_BARS - len(rest)] + rest


def sum_attention_steps(clip: ClipPrediction) -> list[list[float]]:
    """Return seconds and weight of each step; more than MAX_ATTENTION_STEPS are summed in groups of neighbours."""
    if not clip.attention:
        return []
    parts = np.array_split(np.arange(len(clip.attention)), min(len(clip.attention), MAX_ATTENTION_STEPS))
    times, weights = np.asarray(clip.attention_times), np.asarray(clip.attention)
    return [[round(float(times[part].mean()), 2), round(float(weights[part].sum()), 4)] for part in parts]


def downsample_rows(probs: NDArray[np.float64], max_points: int) -> NDArray[np.int64]:
    """Return the rows of the curves (B, C) to draw, about `max_points` of them.

    Every peak is kept, and so are the lowest points of the first curve.
    """
    if len(probs) <= max_points:
        return np.arange(len(probs))
    segments = np.array_split(np.arange(len(probs)), max(1, (max_points - 2) // (probs.shape[1] + 1)))
    kept = {0, len(probs) - 1}
    for rows in segments:
        kept |= {int(rows[0] + i) for i in (*probs[rows].argmax(axis=0), probs[rows, 0].argmin())}
    return np.array(sorted(kept))


def choose_curve_labels(clip: ClipPrediction, info: ReportInfo) -> list[str]:
    """Return the labels of the curves: the positive one, those of events, the clip's own.

    Of two labels only the first is drawn, since the probabilities sum to 1.
    """
    of_events = [event.label for event in sorted(clip.events, key=lambda event: -event.peak)]
    names = list(dict.fromkeys(filter(None, (info.positive_label, *of_events, clip.label))))
    return names[: 1 if len(info.labels) == 2 else MAX_CURVES]


def _make_curves(clip: ClipPrediction, info: ReportInfo, max_points: int) -> dict[str, Any]:
    """Return the middles of windows in hundredths of a second, and probabilities per label in ten-thousandths."""
    if clip.windows is None or len(clip.windows) < 2:
        return {}
    columns = [info.labels.index(label) for label in choose_curve_labels(clip, info)]
    probs = clip.windows.probs[:, columns]  # (B, C)
    rows = downsample_rows(probs, max_points)
    times = (clip.windows.spans.mean(axis=1)[rows] * 100).round().astype(int)
    return {
        "t": times.tolist(),
        "c": [[column, _to_ten_thousandths(probs[rows, i])] for i, column in enumerate(columns)],
        "n": len(clip.windows),
        "w": round(float(np.median(np.diff(clip.windows.spans, axis=1))), 2),
        "q": len(rows) if len(rows) < len(clip.windows) else None,
    }


def _to_ten_thousandths(probs: NDArray[np.float64]) -> Sequence[int]:
    return [round(10_000 * _round_probability(p)) for p in probs]


def _round_probability(p: float) -> float:
    """Round to four digits, but never to 0 or 1 unless the value is exactly that."""
    return round(float(p), 4) if p in (0, 1) else min(max(round(float(p), 4), 0.0001), 0.9999)


def _finite_or_zero(value: float) -> float:
    return float(value) if np.isfinite(value) else 0.0
