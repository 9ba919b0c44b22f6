"""Settings of alerts: section `alerts` of a monitor's file."""

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
    """`env:NAME` stands for what the environment says, so that a file of settings can be shown to anybody."""
    if not isinstance(value, str) or not value.startswith(_ENVIRONMENT_PREFIX):
        return value
    name = value.removeprefix(_ENVIRONMENT_PREFIX)
    if not os.environ.get(name):
        raise ValueError(f"the environment variable {name} is not set")
    return os.environ[name]


Secret = Annotated[SecretStr, BeforeValidator(_resolve_environment)]
"""Never shown; `env:NAME` is taken from the environment."""


class _BaseChannel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("", pattern=r"^[\w .-]{0,60}$")
    """What it is called in logs and in the outbox: one of a kind; the kind by default."""


class WebhookSettings(_BaseChannel):
    """A signed POST; any http or https address, private ones too: whoever writes this file chooses the receiver."""

    kind: Literal["webhook"]
    url: Secret
    """May hold a token, so it is never shown."""
    secret: Secret
    """`whsec_…`, which the receiver checks signatures with."""
    headers: dict[str, Secret] = {}
    """Sent along, such as `Authorization`."""
    ca_file: Path | None = None
    """Certificates to trust instead of the system's."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(value.get_secret_value())
            is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_good = False
        if not is_good or not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("expected an address such as https://host/path, http or https, plain ASCII (%C3%BC for ü)")
        if "@" in parts.netloc:
            raise ValueError("give user and password as a header, not in the address")
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
                raise ValueError(f"no header of yours can be called '{name}'")
            if not content.get_secret_value().isascii() or not content.get_secret_value().isprintable():
                raise ValueError(f"header '{name}' must be plain ASCII in one line")
        return value


class AppriseSettings(_BaseChannel):
    """Whatever Apprise knows: e-mail, Telegram, Slack, … One address, since each is acknowledged by itself."""

    kind: Literal["apprise"]
    url: Secret
    """An address of Apprise, such as `tgram://TOKEN/CHAT`."""


class MqttSettings(_BaseChannel):
    """A message to a broker, QoS 1."""

    kind: Literal["mqtt"]
    host: str = Field(min_length=1)
    port: int | None = Field(None, ge=1, le=65535)
    """1883 by default, 8883 with TLS."""
    topic: str = "hazard/{camera}/{kind}"
    """May hold {camera}, {kind} and {label}."""
    retain: bool = False
    """Whether the broker keeps the last message for whoever subscribes later."""
    client_id: str = ""
    """Given by the broker by default."""
    user: str | None = None
    password: Secret | None = None
    tls: bool = False
    ca_file: Path | None = None
    """Certificates to trust instead of the system's."""

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
            raise ValueError("expected braces in pairs") from None
        for name in fields:
            if name not in TOPIC_FIELDS:
                raise ValueError(f"unknown field '{{{name}}}'; choose of {', '.join(TOPIC_FIELDS)}")
        if not value or set(value) & {"+", "#", "\0"}:
            raise ValueError("a topic is not empty and holds no +, # or NUL")
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
    """Section `alerts`: who is told, and how long it is tried."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[Annotated[ChannelSettings, Field(discriminator="kind")], ...] = ()
    """Each has an order and retries of its own."""
    deadline_seconds: float = Field(default=10.0, gt=0, le=600)
    """What one attempt may take, from the look-up to the answer; then its process is ended."""
    first_retry_seconds: float = Field(default=1.0, gt=0)
    """An attempt after k failures waits for a random time up to this, doubled k - 1 times."""
    longest_retry_seconds: float = Field(default=60.0, gt=0)
    """No wait is longer."""
    attempts: int = Field(default=100, ge=1)
    """An alert that failed so often is a dead letter, and the next one has its turn."""
    max_age_hours: float = Field(default=24.0, gt=0)
    """An alert that fails when it is older is a dead letter."""
    keep_days: float = Field(default=7.0, gt=0)
    """How long alerts that reached all channels are remembered: until then, put again, they are not sent again."""
    keep_dead_days: float = Field(default=30.0, gt=0)
    """How long dead letters are kept."""

    @field_validator("channels", mode="after")
    @classmethod
    def _fill_channel_names(cls, value: tuple[ChannelSettings, ...]) -> tuple[ChannelSettings, ...]:
        named = tuple(one if one.name else one.model_copy(update={"name": one.kind}) for one in value)
        for name, count in Counter(one.name for one in named).items():
            if count > 1:
                raise ValueError(f"{count} channels are called '{name}'; give each a name of its own")
        return named


def parse_alert_settings(values: object, *, where: str = SECTION) -> AlertSettings:
    """The settings of a section. Raises SettingsError; no message shows a secret."""
    if not isinstance(values, Mapping):
        raise SettingsError(f"section '{where}' must hold key: value lines")
    try:
        return AlertSettings(**{str(key): value for key, value in values.items()})
    except ValidationError as error:
        raise SettingsError("; ".join(_format_validation_error(where, item) for item in error.errors())) from None


def load_alert_settings(file: Path) -> AlertSettings:
    """The section `alerts` of a monitor's file; what else is in it is left to the monitor. Raises SettingsError."""
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {file} cannot be read: {getattr(error, 'strerror', error)}") from None
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)  # the text of the error may quote a secret
        raise SettingsError(f"settings file {file} is not YAML{f' (line {place.line + 1})' if place else ''}") from None
    if not isinstance(tree, dict) or SECTION not in tree:
        found = ", ".join(map(str, tree)) if isinstance(tree, dict) else "none"
        raise SettingsError(f"settings file {file} has no section '{SECTION}', found: {found}; see docs/alerts.md")
    return parse_alert_settings(tree[SECTION] or {})


def _format_validation_error(where: str, item: Any) -> str:
    """One line for one error of pydantic's, with the nearest valid name and without what is secret."""
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
    shown = f", got {item['input']!r}" if is_plain and item["type"] != "missing" else ""
    return f"setting '{setting}': {item['msg'].removeprefix('Value error, ')}{shown}"
