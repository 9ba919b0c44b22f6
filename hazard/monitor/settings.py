"""Settings of watching: section `monitor` of a settings file."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hazard.utils.bind_address import parse_bind_address


class MonitorSettings(BaseModel):
    """Section `monitor` of a settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    silence_seconds: float = Field(default=20.0, ge=1)
    """A camera from which nothing comes for so long is offline."""
    before_seconds: float = Field(default=5.0, ge=0)
    """What an event's clip shows of the time before the event."""
    after_seconds: float = Field(default=5.0, ge=0)
    """What it shows of the time after."""
    longest_clip_seconds: float = Field(default=60.0, ge=0)
    """Of an event that lasts longer, the clip shows the beginning; 0: no clips."""
    alerts_per_minute: int = Field(default=6, ge=1)
    """Alerts of one camera at most; more are in the log alone."""
    resume_seconds: float = Field(default=60.0, ge=0)
    """What is seen at once when a camera, or the monitor, is back within so long is the event that was told of."""
    keep_days: float = Field(default=30.0, gt=0)
    """Snapshots and clips that are older are removed."""
    keep_gigabytes: float = Field(default=10.0, gt=0)
    """Of more snapshots and clips the oldest are removed."""
    metrics: str = ""
    """`HOST:PORT` where Prometheus finds `/metrics`; empty: nowhere. A port alone is of this machine only."""
    log_format: Literal["text", "json"] = "text"
    """Lines for people or one JSON object a line, for programs."""

    @field_validator("metrics", mode="before")
    @classmethod
    def _check_metrics_address(cls, value: object) -> object:
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value  # YAML: a port alone
        if isinstance(text, str) and text:
            parse_bind_address(text)
        return text
