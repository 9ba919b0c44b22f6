"""What a report says about the model that made it."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from hazard.model import Predictor
from hazard.report import ReportInfo

_PARTS = {"crop": "the middle square", "squash": "all of it"}
HEADLINES = ("accuracy", "balanced_accuracy", "roc_auc", "recall", "precision")


def report_info(
    predictor: Predictor, model_folder: Path, sources: Sequence[Path | str], *, created: datetime
) -> ReportInfo:
    """The model's name, fingerprint and, from its own metrics.json, how well it did on clips that it had not seen."""
    info = predictor.info
    return ReportInfo(
        labels=info.labels,
        positive_label=info.positive_label or "",
        threshold=info.threshold,
        model={
            "name": info.name,
            "kind": info.kind,
            "fingerprint": info.fingerprint,
            "groups_known": info.groups_known,
            "part of the picture seen": _PARTS[predictor.feature_spec["preprocessing"]["fit"]],
            "evaluated on": info.split,
            **_figures(model_folder / "metrics.json"),
        },
        created=created.isoformat(timespec="seconds"),
        source=", ".join(str(source) for source in sources),
    )


def _figures(file: Path) -> dict[str, object]:
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
        return {name: metrics[name] for name in HEADLINES if isinstance(metrics.get(name), dict)}
    except (OSError, ValueError, AttributeError):
        return {}
