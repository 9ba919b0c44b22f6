"""The facts about a model that the page and the API show."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hazard.web.jobs.store import format_utc


@dataclass(frozen=True)
class ModelFacts:
    """One model of the server's settings."""

    name: str
    """The name that users choose."""
    labels: tuple[str, ...]
    positive_label: str
    """The positive label; empty if there is none."""
    threshold: float
    window_seconds: float
    backbone: str
    created: datetime

    def as_json(self) -> dict[str, Any]:
        """Return the model as the API answers it."""
        return {
            "name": self.name,
            "labels": list(self.labels),
            "positive_label": self.positive_label or None,
            "threshold": self.threshold,
            "window_seconds": self.window_seconds,
            "backbone": self.backbone,
            "created": format_utc(self.created),
        }
