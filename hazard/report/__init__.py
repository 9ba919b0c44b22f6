"""The report of an inference run: report.html, report.json, CSV and Parquet."""

from typing import Any

_PUBLIC = {"report_schema": "json_report", "unescape_formula": "tables"}


def __getattr__(name: str) -> Any:
    """Import a documented name when it is first used. Raises AttributeError for other names."""
    if name not in _PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
