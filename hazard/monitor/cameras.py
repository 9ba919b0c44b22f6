"""Which cameras to watch, where each looks, when, and how easily it alarms: a YAML file, or sources as they are named.

    cameras:
      - name: yard
        source: rtsp://${CAMERA_LOGIN}@10.0.0.5/stream1   # taken from the environment, so that no file holds it
        zone: [[0.1, 0.2], [0.9, 0.2], [0.9, 1], [0.1, 1]]
        schedule: mon-fri 08:00-18:00; sat 10:00-14:00
        timezone: Europe/Berlin
        threshold: 0.7

A zone changes what the model sees: in training it saw whole pictures. Where a zone is small, a model that was trained
on pictures cut alike will do better.
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
    """Some days of the week and the hours of each, in minutes since midnight; an end before the start is tomorrow's."""

    days: frozenset[int]  # 0: Monday
    start: int
    end: int


Schedule = tuple[WeeklyHours, ...]


class CameraSettings(BaseModel):
    """One camera."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(min_length=1, max_length=80)
    """What alerts call it."""
    source: str = Field(min_length=1, repr=False)
    """An address (rtsp, rtsps, http, https), the number of a device, or a file as if live; `${NAME}` is taken from the
    environment. Private addresses are allowed: whoever writes the settings decides what is watched."""
    zone: tuple[tuple[float, float], ...] = ()
    """Corners of a polygon, across and down, as shares of the picture; the rest is hidden from the model."""
    schedule: str = ""
    """Such as `mon-fri 08:00-18:00; sat,sun 22:00-06:00`; empty: always."""
    timezone: str = ""
    """Of the schedule, such as `Europe/Berlin`."""
    threshold: float | None = Field(None, ge=0, le=1)
    """Probability from which an event begins here; none: as everywhere."""

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
            raise ValueError("expected three corners or more that enclose something")
        if not all(0 <= share <= 1 for corner in value for share in corner):
            raise ValueError("expected shares of the picture's width and height, from 0 to 1")
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
        """What is watched."""
        return Camera(self.name, self.source, self.zone)

    def is_watched(self, moment: datetime) -> bool:
        """Whether the schedule has it watched at a moment, which must know its time zone."""
        return not self.schedule or is_scheduled(
            parse_schedule(self.schedule), moment.astimezone(_load_timezone(self.timezone))
        )


def load_cameras(file: Path) -> tuple[CameraSettings, ...]:
    """Section `cameras` of a YAML file. Raises SettingsError; no message shows a password."""
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
            f"cameras file {file}: expected `cameras:` and a list of them, each with a name and a source"
        )
    for key in tree:
        if key not in SECTION_NAMES:
            raise SettingsError(f"cameras file {file}: unknown key '{key}'; {suggest_name(str(key), SECTION_NAMES)}")
    return _check_unique_names(
        [_parse_camera(entry, f"{file}, camera {i}") for i, entry in enumerate(tree["cameras"], 1)]
    )


def parse_camera_sources(sources: Sequence[str]) -> tuple[CameraSettings, ...]:
    """Cameras as the command line names them, SOURCE or NAME=SOURCE; the others are called camera-1, camera-2, …."""
    named = [_split_name(source, f"camera-{i}") for i, source in enumerate(sources, 1)]
    return _check_unique_names(
        [_parse_camera({"name": name, "source": source}, f"source {i}") for i, (name, source) in enumerate(named, 1)]
    )


def parse_schedule(text: str) -> Schedule:
    """`mon-fri 08:00-18:00; sat 10:00-14:00` as hours. Raises ValueError that names the part that is none."""
    return tuple(_parse_hours(part.strip().lower()) for part in text.split(";") if part.strip())


def is_scheduled(schedule: Schedule, moment: datetime) -> bool:
    """Whether a moment, in the schedule's own time zone, lies in one of its hours; an empty schedule is always.

    What counts is what clocks on the wall show: an hour that summer time skips is never, one that it repeats is twice.
    """
    minutes, today = 60 * moment.hour + moment.minute, moment.weekday()
    return not schedule or any(
        (today in hours.days and hours.start <= minutes < hours.end)
        if hours.start < hours.end
        else (today in hours.days and minutes >= hours.start) or ((today - 1) % 7 in hours.days and minutes < hours.end)
        for hours in schedule
    )


def _parse_hours(text: str) -> WeeklyHours:
    match = _HOURS_PATTERN.fullmatch(text)
    if not match:
        raise ValueError(f"schedule '{text}': expected such as `mon-fri 08:00-18:00`")
    start, end = (60 * int(hour) + int(minute) for hour, minute in (match.groups()[1:3], match.groups()[3:5]))
    if start >= 24 * 60 or end > 24 * 60 or int(match[3]) > 59 or int(match[5]) > 59 or start == end:
        raise ValueError(f"schedule '{text}': expected times from 00:00 to 24:00 that differ")
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
            f"unknown timezone '{name}'; expected such as Europe/Berlin (`pip install tzdata` where none is known)"
        ) from None


def _polygon_area(corners: Sequence[tuple[float, float]]) -> float:
    following = [*corners[1:], corners[0]]
    return abs(sum(a * d - b * c for (a, b), (c, d) in zip(corners, following, strict=True))) / 2


def _expand_environment(text: str) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ValueError(f"the environment has no variable {match[1]}")
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
            raise SettingsError(f"two cameras are called '{name}'; give each a name of its own")
    return tuple(cameras)
