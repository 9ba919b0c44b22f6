"""Monitor settings: the section `monitor` of a settings file."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hazard.utils.bind_address import parse_bind_address


class MonitorSettings(BaseModel):
    """Section `monitor` of a settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    silence_seconds: float = Field(default=20.0, ge=1)
    """Time without a frame after which a camera is offline."""
    before_seconds: float = Field(default=5.0, ge=0)
    """Time before an event that its clip shows."""
    after_seconds: float = Field(default=5.0, ge=0)
    """Time after an event that its clip shows."""
    longest_clip_seconds: float = Field(default=60.0, ge=0)
    """Longest clip. A longer event is cut after this time; 0: no clips."""
    alerts_per_minute: int = Field(default=6, ge=1)
    """Largest number of event alerts per minute of one camera. Further events are only logged."""
    resume_seconds: float = Field(default=60.0, ge=0)
    """Longest interruption of an event. If the camera or the monitor is back within this time and the event is still
    in progress, it is the same event."""
    keep_days: float = Field(default=30.0, gt=0)
    """Age from which snapshots and clips are deleted."""
    keep_gigabytes: float = Field(default=10.0, gt=0)
    """Total size of snapshots and clips. If it is exceeded, the oldest are deleted."""
    metrics: str = ""
    """Address `HOST:PORT` of `/metrics` for Prometheus; empty: no metrics. A port alone means this machine only."""
    log_format: Literal["text", "json"] = "text"
    """Format of messages: text for people, or one JSON object per line for programs."""

    @field_validator("metrics", mode="before")
    @classmethod
    def _check_metrics_address(cls, value: object) -> object:
        text = (
            str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        )  # a port alone is a number in YAML
        if isinstance(text, str) and text:
            parse_bind_address(text)
        return text
