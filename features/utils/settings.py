"""Settings from a YAML file, `key=value` overrides and flags, checked and frozen."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from features.errors import SettingsError
from features.utils.text import suggest_name

SECTION_NAMES = ("extract", "train", "infer", "monitor", "cameras", "alerts", "serve")
"""The sections that a settings file may have."""

Settings = TypeVar("Settings", bound=BaseModel)


def load_settings(
    settings_class: type[Settings],
    section: str,
    *,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, object] | None = None,
) -> Settings:
    """Return the settings of a section: from the file, then `key=value` overrides, then the flags that are not None.

    Later ones override earlier ones. Raises SettingsError if the file cannot be read, a key is unknown (the error names
    the nearest valid key) or a value is wrong.
    """
    values: dict[str, Any] = _read_section(file, section) if file else {}
    values |= dict(_parse_override(text, section) for text in overrides)
    values |= {key: value for key, value in (flags or {}).items() if value is not None}
    for key in values:
        if key not in settings_class.model_fields:
            raise SettingsError(
                f"unknown setting '{key}' in section '{section}'; {suggest_name(key, settings_class.model_fields)}"
            )
    try:
        return settings_class(**values)
    except ValidationError as error:
        raise SettingsError("; ".join(_format_validation_error(item) for item in error.errors())) from None


def read_settings_file(file: Path) -> dict[str, Any]:
    """Return a settings file as a dict. Raises SettingsError if it cannot be read or has an unknown section."""
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {file} cannot be read: {getattr(error, 'strerror', error)}") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"settings file {file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise SettingsError(
            f"settings file {file} must hold sections ({', '.join(SECTION_NAMES)}), not a {type(tree).__name__}"
        )
    for name in tree:
        if name not in SECTION_NAMES:
            raise SettingsError(f"unknown section '{name}' in {file}; {suggest_name(str(name), SECTION_NAMES)}")
    return tree


def _read_section(file: Path, section: str) -> dict[str, Any]:
    values = read_settings_file(file).get(section) or {}
    if not isinstance(values, dict):
        raise SettingsError(f"section '{section}' of {file} must hold key: value lines")
    return values


def _parse_override(text: str, section: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise SettingsError(f"--set expects KEY=VALUE, got '{text}'")
    try:
        return key.strip().removeprefix(f"{section}."), yaml.safe_load(value)
    except yaml.YAMLError:
        raise SettingsError(f"--set {key}: '{value}' is not a YAML value") from None


def _format_validation_error(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "settings"
    return f"setting '{where}': {item['msg']}, got {item['input']!r}"
