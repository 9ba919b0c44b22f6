"""Names, numbers and times written for people, and values for JSON."""

import math
import unicodedata
from collections.abc import Mapping
from datetime import datetime

from markupsafe import Markup, escape

JOINERS = "\u200c\u200d"  # invisible, but part of how Persian, Hindi and emoji are written
_HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
"""Unicode categories of invisible characters (control, direction and others) and of lone surrogates. `report_text.js`
has the same list."""


def escape_hidden(text: str) -> str:
    """Return `text` with each hidden character written as an escape, such as `\\n` or `\\u202e`."""
    return "".join(c.encode("unicode_escape").decode() if _is_hidden(c) else c for c in text)


def escape_hidden_html(text: str) -> Markup:
    """Return `escape_hidden` as HTML, where escapes are marked to differ from a backslash in the name itself."""
    code = Markup('<span class="code">{}</span>')
    return Markup("").join(code.format(escape_hidden(c)) if _is_hidden(c) else escape(c) for c in text)


def format_percent(share: float) -> str:
    """Return a share (0 to 1) as a whole percentage; only an exact 0 or 1 is shown as 0 % or 100 %."""
    if 0 < share < 0.01 or 0.99 < share < 1:
        return "<1 %" if share < 0.5 else ">99 %"
    return f"{share:.0%}".replace("%", " %")


def format_clock(seconds: float) -> str:
    """Return a duration as `4.8 s`, from a minute on as `1:05`, from an hour on as `1:02:03`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def format_rounded_duration(seconds: float) -> str:
    """Return a long duration in words: `12 s`, `10 min`, `3 h 20 min`."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"{minutes} min" if not hours else f"{hours:,} h" + (f" {rest} min" if rest else "")


def format_fact(value: object) -> str:
    """Return a fact about a model as text: yes or no, a number, a list, or `not known` for None."""
    value = to_json_value(value)
    if value is None or isinstance(value, bool):
        return {None: "not known", True: "yes", False: "no"}[value]
    if isinstance(value, (int, float)):
        return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
    return ", ".join(map(format_fact, value)) if isinstance(value, list) else str(value)


def format_timestamp(created: str) -> str:
    """Return an ISO 8601 time as `2 January 2026, 03:04 UTC`; any other text is returned unchanged."""
    try:
        time = datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{time.day} {time:%B %Y, %H:%M} {time.tzname() or ''}".rstrip()


def format_page_count(number: int, word: str, words: str = "") -> str:
    """Return a number with its noun: `1 clip`, `2 clips`, `no clips`, `12,000 clips`."""
    return f"{number:,} {word}" if number == 1 else f"{f'{number:,}' if number else 'no'} {words or word + 's'}"


def to_json_value(value: object) -> object:
    """Return `value` in JSON's types: NumPy numbers unpacked, NaN and infinity as null, other types as text."""
    if isinstance(value, Mapping):
        return {str(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_value(item) for item in value]
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [to_json_value(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN_CATEGORIES and character not in JOINERS
