"""Camera settings: name, source, zone, schedule and threshold, from a YAML file or the command line.

    cameras:
      - name: yard
        source: rtsp://${CAMERA_LOGIN}@10.0.0.5/stream1   # read from the environment, so that no file contains it
        zone: [[0.1, 0.2], [0.9, 0.2], [0.9, 1], [0.1, 1]]
        schedule: mon-fri 08:00-18:00; sat 10:00-14:00
        timezone: Europe/Berlin
        threshold: 0.7

A zone hides part of the frame, but the model was trained on whole frames. For a small zone, a model that was trained on
frames cropped in the same way does better.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from features.errors import SettingsError
from features.live.source import Camera, mask_credentials, source_kind
from features.utils.settings import SECTION_NAMES
from features.utils.text import suggest_name

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS_PATTERN = re.compile(r"(?:([a-z,-]+)\s+)?(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d)")
_VARIABLE_PATTERN = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class WeeklyHours:
    """Hours on some days of the week, in minutes since midnight. An end before the start is on the next day."""

    days: frozenset[int]  # 0: Monday
    start: int
    end: int


Schedule = tuple[WeeklyHours, ...]


class CameraSettings(BaseModel):
    """Settings of one camera."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(min_length=1, max_length=80)
    """Name in alerts."""
    source: str = Field(min_length=1, repr=False)
    """A URL (rtsp, rtsps, http, https), the number of a device, or a video file that is played as if live. `${NAME}` is
    read from the environment. Private addresses are allowed, because the operator chooses the cameras."""
    zone: tuple[tuple[float, float], ...] = ()
    """Corners of a polygon, as shares of the frame's width and height. The rest is hidden from the model."""
    schedule: str = ""
    """Hours with alerts, such as `mon-fri 08:00-18:00; sat,sun 22:00-06:00`; empty: always."""
    timezone: str = ""
    """Time zone of the schedule, such as `Europe/Berlin`."""
    threshold: float | None = Field(None, ge=0, le=1)
    """Probability from which an event begins on this camera; None: the threshold of all cameras."""

    @field_validator("source", mode="before")
    @classmethod
    def _resolve_source(cls, value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return _expand_environment(value) if isinstance(value, str) else value

    @field_validator("source")
    @classmethod
    def _check_source(cls, value: str) -> str:
        try:
            source_kind(value)
        except SettingsError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("zone")
    @classmethod
    def _check_zone(cls, value: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        if value and (len(value) < 3 or _polygon_area(value) == 0):
            raise ValueError("expected three corners or more that enclose an area")
        if not all(0 <= share <= 1 for corner in value for share in corner):
            raise ValueError("expected shares of the frame's width and height, from 0 to 1")
        return value

    @model_validator(mode="after")
    def _check_schedule(self) -> "CameraSettings":
        parse_schedule(self.schedule)
        if self.schedule and not self.timezone:
            raise ValueError("a schedule needs a timezone, such as Europe/Berlin")
        if self.timezone:
            _load_timezone(self.timezone)
        return self

    @property
    def camera(self) -> Camera:
        """The camera as the readers need it."""
        return Camera(self.name, self.source, self.zone)

    def is_watched(self, time: datetime) -> bool:
        """Check whether the schedule covers a time, which must have a time zone."""
        return not self.schedule or is_scheduled(
            parse_schedule(self.schedule), time.astimezone(_load_timezone(self.timezone))
        )


def load_cameras(file: Path) -> tuple[CameraSettings, ...]:
    """Read section `cameras` of a YAML file. Raises SettingsError, whose message shows no password."""
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cameras file {file} cannot be read: {getattr(error, 'strerror', error)}") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        at = f" at line {where.line + 1}" if where else ""
        raise SettingsError(f"cameras file {file} is not YAML{at}: {getattr(error, 'problem', '')}") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("cameras"), list) or not tree["cameras"]:
        raise SettingsError(
            f"cameras file {file}: expected `cameras:` and a list of cameras, each with a name and a source"
        )
    for key in tree:
        if key not in SECTION_NAMES:
            raise SettingsError(f"cameras file {file}: unknown key '{key}'; {suggest_name(str(key), SECTION_NAMES)}")
    return _check_unique_names(
        [_parse_camera(entry, f"{file}, camera {i}") for i, entry in enumerate(tree["cameras"], 1)]
    )


def parse_camera_sources(sources: Sequence[str]) -> tuple[CameraSettings, ...]:
    """Return the cameras of the command line, SOURCE or NAME=SOURCE. Those without a name are called camera-1, …."""
    named = [_split_name(source, f"camera-{i}") for i, source in enumerate(sources, 1)]
    return _check_unique_names(
        [_parse_camera({"name": name, "source": source}, f"source {i}") for i, (name, source) in enumerate(named, 1)]
    )


def parse_schedule(text: str) -> Schedule:
    """Parse a schedule such as `mon-fri 08:00-18:00; sat 10:00-14:00`. Raises ValueError that names the wrong part."""
    return tuple(_parse_hours(part.strip().lower()) for part in text.split(";") if part.strip())


def is_scheduled(schedule: Schedule, time: datetime) -> bool:
    """Check whether a time in the schedule's time zone is in one of its hours. An empty schedule covers all times.

    Hours are those of local clocks: one that daylight saving time skips never comes, one that it repeats comes twice.
    """
    minutes, today = 60 * time.hour + time.minute, time.weekday()
    return not schedule or any(
        (today in hours.days and hours.start <= minutes < hours.end)
        if hours.start < hours.end
        else (today in hours.days and minutes >= hours.start) or ((today - 1) % 7 in hours.days and minutes < hours.end)
        for hours in schedule
    )


def _parse_hours(text: str) -> WeeklyHours:
    match = _HOURS_PATTERN.fullmatch(text)
    if not match:
        raise ValueError(f"schedule '{text}': expected a form such as `mon-fri 08:00-18:00`")
    start, end = (60 * int(hour) + int(minute) for hour, minute in (match.groups()[1:3], match.groups()[3:5]))
    if start >= 24 * 60 or end > 24 * 60 or int(match[3]) > 59 or int(match[5]) > 59 or start == end:
        raise ValueError(f"schedule '{text}': expected two different times from 00:00 to 24:00")
    return WeeklyHours(_parse_days(match[1] or "daily"), start, end)


def _parse_days(text: str) -> frozenset[int]:
    if text == "daily":
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        for name in (first, last or first):
            if name not in DAYS:
                raise ValueError(f"schedule: unknown day '{name}'; {suggest_name(name, (*DAYS, 'daily'))}")
        start, end = DAYS.index(first), DAYS.index(last or first)
        days |= {day % 7 for day in range(start, (end if end >= start else end + 7) + 1)}
    return frozenset(days)


def _load_timezone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"unknown timezone '{name}'; expected such as Europe/Berlin (if all are unknown: `pip install tzdata`)"
        ) from None


def _polygon_area(corners: Sequence[tuple[float, float]]) -> float:
    following = [*corners[1:], corners[0]]
    return abs(sum(a * d - b * c for (a, b), (c, d) in zip(corners, following, strict=True))) / 2


def _expand_environment(text: str) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ValueError(f"the environment variable {match[1]} is not set")
        return os.environ[match[1]]

    return _VARIABLE_PATTERN.sub(value, text)


def _split_name(text: str, default_name: str) -> tuple[str, str]:
    name, equals, source = text.partition("=")
    is_named = equals and re.fullmatch(r"[\w .-]+", name) and not Path(text).exists()
    return (name, source) if is_named else (default_name, text)


def _parse_camera(entry: object, where: str) -> CameraSettings:
    if not isinstance(entry, Mapping):
        raise SettingsError(f"{where}: expected `name:` and `source:` lines")
    for key in entry:
        if key not in CameraSettings.model_fields:
            raise SettingsError(f"{where}: unknown key '{key}'; {suggest_name(str(key), CameraSettings.model_fields)}")
    try:
        return CameraSettings(**entry)
    except ValidationError as error:
        raise SettingsError("; ".join(_format_validation_error(where, item) for item in error.errors())) from None


def _format_validation_error(where: str, item: Any) -> str:
    field = ".".join(str(part) for part in item["loc"])
    got = "" if field in ("", "source") or item["type"] in ("missing", "value_error") else f", got {item['input']!r}"
    return mask_credentials(f"{where}: {field + ': ' if field else ''}{item['msg'].removeprefix('Value error, ')}{got}")


def _check_unique_names(cameras: Sequence[CameraSettings]) -> tuple[CameraSettings, ...]:
    names = [camera.name for camera in cameras]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"two cameras are called '{name}'; give each a different name")
    return tuple(cameras)
