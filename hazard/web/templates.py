"""Pages from templates: every text of others is escaped, hidden characters are written out."""

from functools import cache

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from hazard.utils.text import (
    escape_hidden,
    escape_hidden_html,
    format_clock,
    format_count,
    format_percent,
    format_timestamp,
)


def render(
    template: str, *, status: int = 200, nav_entry: str = "", signed_out: bool = False, **values: object
) -> HTMLResponse:
    """A page of `hazard/web/templates/`; `here` is the entry of the navigation that it belongs to."""
    text = _make_environment().get_template(template).render(here=nav_entry, signed_out=signed_out, **values)
    return HTMLResponse(text.encode(errors="backslashreplace"), status_code=status)


@cache
def _make_environment() -> Environment:
    loader = PackageLoader("hazard.web")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"clock": format_clock, "counted": format_count, "marked": escape_hidden_html, "moment": format_timestamp, "percent": format_percent,
                     "readable": escape_hidden}  # fmt: skip
    return made
