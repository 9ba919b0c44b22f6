"""The pages' templates: all inserted text is escaped, and hidden characters are made visible."""

from functools import cache

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from hazard.utils.text import (
    escape_hidden,
    escape_hidden_html,
    format_clock,
    format_page_count,
    format_percent,
    format_timestamp,
)


def render(
    template: str, *, status: int = 200, nav_entry: str = "", signed_out: bool = False, **values: object
) -> HTMLResponse:
    """Return a page of `hazard/web/templates/`. `nav_entry` is the entry of the navigation to highlight."""
    text = _make_environment().get_template(template).render(nav_entry=nav_entry, signed_out=signed_out, **values)
    return HTMLResponse(text.encode(errors="backslashreplace"), status_code=status)


@cache
def _make_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hazard.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "clock": format_clock,
        "counted": format_page_count,
        "marked": escape_hidden_html,
        "moment": format_timestamp,
        "percent": format_percent,
        "readable": escape_hidden,
    }
    return environment
