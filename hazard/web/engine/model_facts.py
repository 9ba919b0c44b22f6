"""What people are told of a model that they may choose."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hazard.web.jobs.store import format_utc


@dataclass(frozen=True)
class ModelFacts:
    """Of one model of the server's settings."""

    name: str
    """As people choose it."""
    labels: tuple[str, ...]
    positive_label: str
    """The label of two that an alarm is for; empty where there is none."""
    threshold: float
    window_seconds: float
    backbone: str
    created: datetime

    def as_json(self) -> dict[str, Any]:
        """What the API says of it."""
        return {
            "name": self.name,
            "labels": list(self.labels),
            "positive_label": self.positive_label or None,
            "threshold": self.threshold,
            "window_seconds": self.window_seconds,
            "backbone": self.backbone,
            "created": format_utc(self.created),
        }
