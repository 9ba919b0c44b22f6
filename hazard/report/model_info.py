"""The part of a report about its model."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hazard.events.decision import Decision
from hazard.models.predictor import Predictor
from hazard.report.facts import ReportInfo

_FIT_DESCRIPTIONS = {"crop": "the middle square", "squash": "all of it"}
SHOWN_METRICS = ("accuracy", "balanced_accuracy", "roc_auc", "recall", "precision")


def make_report_info(
    predictor: Predictor,
    model_folder: Path,
    sources: Sequence[Path | str],
    *,
    created: datetime,
    decision: Decision | None = None,
    window_seconds: float | None = None,
    stride_seconds: float | None = None,
) -> ReportInfo:
    """Make the information of a report: the model's name, fingerprint and, from its metrics.json, its evaluation.

    `decision` is the rule that decided the clips. Without one, the report has the model's own threshold and no events.
    """
    info = predictor.info
    return ReportInfo(
        labels=info.labels,
        positive_label=(decision.positive_label if decision else info.positive_label) or "",
        threshold=decision.threshold if decision else info.threshold,
        model={
            "name": info.name,
            "kind": info.kind,
            "fingerprint": info.fingerprint,
            "groups_known": info.groups_known,
            "part of the picture seen": _FIT_DESCRIPTIONS[predictor.feature_spec["preprocessing"]["fit"]],
            "evaluated by": info.split,
            **_select_evaluation_facts(_read_metrics(model_folder)),
        },
        created=created.isoformat(timespec="seconds"),
        source=", ".join(str(source) for source in sources),
        rules=decision.rules if decision else (),
        unknown_from=decision.unknown_from if decision else None,
        window_seconds=window_seconds,
        stride_seconds=stride_seconds,
    )


def _read_metrics(model_folder: Path) -> Mapping[str, Any]:
    try:
        metrics = json.loads((model_folder / "metrics.json").read_text(encoding="utf-8"))
        return metrics if isinstance(metrics, dict) else {}
    except (OSError, ValueError):
        return {}


def _select_evaluation_facts(metrics: Mapping[str, Any]) -> dict[str, object]:
    """Return headline metrics, the number of clips, operating points, and near-duplicates across the split."""
    facts: dict[str, object] = {name: metrics[name] for name in SHOWN_METRICS if isinstance(metrics.get(name), dict)}
    if isinstance(metrics.get("clips"), int):
        facts["clips evaluated"] = metrics["clips"]
    points = metrics.get("false_alarms_per_hour")
    if isinstance(points, list) and points and all(_is_operating_point(point) for point in points):
        facts["operating_points"] = points
    leakage = metrics.get("leakage")
    if isinstance(leakage, dict) and isinstance(leakage.get("duplicate_pairs"), int):
        facts["duplicate_pairs"] = leakage["duplicate_pairs"]
    return facts


def _is_operating_point(point: object) -> bool:
    names = ("threshold", "recall", "achieved")
    return isinstance(point, dict) and all(isinstance(point.get(name), (int, float)) for name in names)
