"""Pages from templates: every text of others is escaped, hidden characters are written out."""

from functools import cache

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from hazard.utils.text import clock, counted, marked, moment, percent, readable


def render(
    template: str, *, status: int = 200, here: str = "", signed_out: bool = False, **values: object
) -> HTMLResponse:
    """A page of `hazard/web/templates/`; `here` is the entry of the navigation that it belongs to."""
    text = _templates().get_template(template).render(here=here, signed_out=signed_out, **values)
    return HTMLResponse(text.encode(errors="backslashreplace"), status_code=status)


@cache
def _templates() -> Environment:
    loader = PackageLoader("hazard.web")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"clock": clock, "counted": counted, "marked": marked, "moment": moment, "percent": percent,
                     "readable": readable}  # fmt: skip
    return made
