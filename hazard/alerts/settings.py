"""Alert settings: the section `alerts` of a monitor's settings file."""

import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from features.errors import SettingsError
from features.utils.text import suggest_name
from hazard.alerts.webhooks import decode_secret

SECTION = "alerts"
TOPIC_FIELDS = ("camera", "kind", "label")
_ENVIRONMENT_PREFIX = "env:"


def _resolve_environment(value: object) -> object:
    """Return the environment variable NAME for `env:NAME`, so that a settings file need not contain secrets."""
    if not isinstance(value, str) or not value.startswith(_ENVIRONMENT_PREFIX):
        return value
    name = value.removeprefix(_ENVIRONMENT_PREFIX)
    if not os.environ.get(name):
        raise ValueError(f"the environment variable {name} is not set")
    return os.environ[name]


Secret = Annotated[SecretStr, BeforeValidator(_resolve_environment)]
"""A text that is never shown. `env:NAME` reads it from the environment."""


class _BaseChannel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("", pattern=r"^[\w .-]{0,60}$")
    """Name in logs and in the outbox. It is unique; the default is the kind."""


class WebhookSettings(_BaseChannel):
    """A signed POST request to an http or https URL.

    Private addresses are allowed, because the operator who writes the settings file chooses the receiver.
    """

    kind: Literal["webhook"]
    url: Secret
    """URL of the receiver. It may contain a token, so it is never shown."""
    secret: Secret
    """Shared secret `whsec_…`, with which the receiver checks the signature."""
    headers: dict[str, Secret] = {}
    """Further request headers, such as `Authorization`."""
    ca_file: Path | None = None
    """CA certificates to trust instead of the system's."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(value.get_secret_value())
            is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_valid = False
        if not is_valid or not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("expected an http or https URL such as https://host/path, in plain ASCII (%C3%BC for ü)")
        if "@" in parts.netloc:
            raise ValueError("user and password must be given as a header, not in the URL")
        return value

    @field_validator("secret")
    @classmethod
    def _check_secret(cls, value: SecretStr) -> SecretStr:
        decode_secret(value.get_secret_value())
        return value

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, content in value.items():
            if not name.isascii() or not name.replace("-", "").isalnum() or name.lower() in _RESERVED_HEADERS:
                raise ValueError(f"a header cannot be called '{name}'; the name is reserved or not valid")
            if not content.get_secret_value().isascii() or not content.get_secret_value().isprintable():
                raise ValueError(f"header '{name}' must be one line of plain ASCII")
        return value


class AppriseSettings(_BaseChannel):
    """A service that Apprise supports: e-mail, Telegram, Slack, … One URL a channel: each is acknowledged by itself."""

    kind: Literal["apprise"]
    url: Secret
    """Apprise URL, such as `tgram://TOKEN/CHAT`."""


class MqttSettings(_BaseChannel):
    """A message to an MQTT broker, with QoS 1."""

    kind: Literal["mqtt"]
    host: str = Field(min_length=1)
    port: int | None = Field(None, ge=1, le=65535)
    """Port of the broker: by default 1883, with TLS 8883."""
    topic: str = "hazard/{camera}/{kind}"
    """Topic template. It may contain {camera}, {kind} and {label}."""
    retain: bool = False
    """Whether the broker keeps the last message for later subscribers."""
    client_id: str = ""
    """Client id; by default the broker assigns one."""
    user: str | None = None
    password: Secret | None = None
    tls: bool = False
    ca_file: Path | None = None
    """CA certificates to trust instead of the system's."""

    @model_validator(mode="after")
    def _check_dependent_settings(self) -> "MqttSettings":
        if self.password is not None and self.user is None:
            raise ValueError("a password needs a user")
        if self.ca_file is not None and not self.tls:
            raise ValueError("ca_file needs tls: true")
        return self

    @field_validator("topic")
    @classmethod
    def _check_topic(cls, value: str) -> str:
        try:
            fields = [name for _, name, _, _ in Formatter().parse(value) if name is not None]
        except ValueError:
            raise ValueError("expected matching braces") from None
        for name in fields:
            if name not in TOPIC_FIELDS:
                raise ValueError(f"unknown field '{{{name}}}'; choose from {', '.join(TOPIC_FIELDS)}")
        if not value or set(value) & {"+", "#", "\0"}:
            raise ValueError("expected a topic that is not empty and has no +, # or NUL")
        return value


ChannelSettings = WebhookSettings | AppriseSettings | MqttSettings
CHANNEL_TYPES: dict[str, type[_BaseChannel]] = {
    "webhook": WebhookSettings,
    "apprise": AppriseSettings,
    "mqtt": MqttSettings,
}
_RESERVED_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature", "host", "content-length", "content-type")
_SECRET_FIELDS = ("url", "secret", "password", "headers")


class AlertSettings(BaseModel):
    """Section `alerts`: the channels, and how long a delivery is retried."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[Annotated[ChannelSettings, Field(discriminator="kind")], ...] = ()
    """Channels of the alerts. Each keeps its own order and its own retries."""
    deadline_seconds: float = Field(default=10.0, gt=0, le=600)
    """Time limit of one attempt, from the name look-up to the answer. Its process is then killed."""
    first_retry_seconds: float = Field(default=1.0, gt=0)
    """Wait after the first failure. After k failures the wait is random, from 0 to this × 2^(k-1)."""
    longest_retry_seconds: float = Field(default=60.0, gt=0)
    """Upper limit of every wait."""
    attempts: int = Field(default=100, ge=1)
    """Number of failed attempts after which an alert becomes a dead letter and the next one is sent."""
    max_age_hours: float = Field(default=24.0, gt=0)
    """Age after which an alert becomes a dead letter at its next failure."""
    keep_days: float = Field(default=7.0, gt=0)
    """Time for which delivered alerts are remembered. If one is put again in that time, it is not sent again."""
    keep_dead_days: float = Field(default=30.0, gt=0)
    """Time for which dead letters are kept."""

    @field_validator("channels", mode="after")
    @classmethod
    def _fill_channel_names(cls, value: tuple[ChannelSettings, ...]) -> tuple[ChannelSettings, ...]:
        named = tuple(item if item.name else item.model_copy(update={"name": item.kind}) for item in value)
        for name, count in Counter(channel.name for channel in named).items():
            if count > 1:
                raise ValueError(f"{count} channels are called '{name}'; give each a different name")
        return named


def parse_alert_settings(values: object, *, where: str = SECTION) -> AlertSettings:
    """Return the settings of a section. Raises SettingsError without any secret if they are not valid."""
    if not isinstance(values, Mapping):
        raise SettingsError(f"section '{where}' must hold key: value lines")
    try:
        return AlertSettings(**{str(key): value for key, value in values.items()})
    except ValidationError as error:
        raise SettingsError("; ".join(_format_validation_error(where, item) for item in error.errors())) from None


def load_alert_settings(file: Path) -> AlertSettings:
    """Read the section `alerts` of a monitor's file and ignore its other sections. Raises SettingsError."""
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {file} cannot be read: {getattr(error, 'strerror', error)}") from None
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)  # the text of the error itself may quote a secret
        raise SettingsError(f"settings file {file} is not YAML{f' (line {place.line + 1})' if place else ''}") from None
    if not isinstance(tree, dict) or SECTION not in tree:
        found = ", ".join(map(str, tree)) if isinstance(tree, dict) else "none"
        raise SettingsError(f"settings file {file} has no section '{SECTION}', found: {found}; see docs/alerts.md")
    return parse_alert_settings(tree[SECTION] or {})


def _format_validation_error(where: str, item: Any) -> str:
    """Return a pydantic error as one line with the nearest valid name. Secret values are left out."""
    place = [part for part in item["loc"] if part not in CHANNEL_TYPES or part == item["loc"][-1]]
    kind = next((CHANNEL_TYPES[part] for part in item["loc"][:-1] if part in CHANNEL_TYPES), None)
    setting = ".".join([where, *map(str, place)])
    if item["type"] == "extra_forbidden":
        valid = list((kind or AlertSettings).model_fields)
        return f"unknown setting '{setting}'; {suggest_name(str(place[-1]), valid)}"
    if item["type"] == "union_tag_invalid":
        tag = str(item["ctx"]["tag"])
        return f"setting '{setting}.kind': unknown kind '{tag}'; {suggest_name(tag, list(CHANNEL_TYPES))}"
    if item["type"] == "union_tag_not_found":
        return f"setting '{setting}.kind' is missing; choose one of: {', '.join(CHANNEL_TYPES)}"
    is_plain = isinstance(item["input"], str | int | float) and not set(_SECRET_FIELDS) & set(map(str, place))
    got = f", got {item['input']!r}" if is_plain and item["type"] != "missing" else ""
    return f"setting '{setting}': {item['msg'].removeprefix('Value error, ')}{got}"
