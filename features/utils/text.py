"""Text for people: counts, durations, tables, suggestions, and names that are safe to print."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence


def format_count(count: int, noun: str, plural: str = "") -> str:
    """Return `1 clip` or `2 clips`. `plural` is for nouns that do not just add an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"


def truncate_list(names: Sequence[str], max_names: int = 3) -> str:
    """Return the first few names and the number of the others: `a, b, c and 7 more`."""
    rest = len(names) - max_names
    return ", ".join(names[:max_names]) + (f" and {rest} more" if rest > 0 else "")


def format_duration(seconds: float) -> str:
    """Return a duration with its two largest units, such as `1 min 05 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def make_printable(text: str) -> str:
    """Return text that fits on one line of a terminal: control characters become escapes such as `\\n`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def merge_similar_reasons(reasons: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return (reason, count) pairs, most frequent first.

    Reasons that differ only in their numbers are merged; each such number becomes `…`.
    """
    kinds: dict[str, list[tuple[str, int]]] = {}
    for reason, count in reasons.items():
        kinds.setdefault(re.sub(r"\d+", "…", reason), []).append((reason, count))
    merged = [
        (kind if len(members) > 1 else members[0][0], sum(n for _, n in members)) for kind, members in kinds.items()
    ]
    return sorted(merged, key=lambda pair: -pair[1])


def format_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, with the first column aligned left and the others right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(r, widths, strict=True))
        ).rstrip()
        for r in rows
    ]


MAX_SEARCHED_PATHS = 5000
"""Number of paths among which a similar one is searched."""


def suggest_name(name: str, choices: Sequence[str] | Mapping[str, object], *, cutoff: float = 0.5) -> str:
    """Return `did you mean 'x'?` if a choice is similar enough, else the list of choices.

    `cutoff` is the least similarity, from 0 to 1 as difflib measures it.
    """
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=cutoff)
    return f"did you mean '{close[0]}'?" if close else f"choose one of: {', '.join(choices)}"


def suggest_path(path: str, paths: Iterable[str]) -> str:
    """Return `did you mean 'x'?` if a path has the same file name or is similar, else an example of the paths.

    It is fast for a million paths too: similarity is searched only among the first `MAX_SEARCHED_PATHS`.
    """
    paths = list(paths)
    name = path.rpartition("/")[2]
    same = [other for other in paths if other.rpartition("/")[2] == name]
    hint = suggest_name(path, same or paths[:MAX_SEARCHED_PATHS], cutoff=0.0 if same else 0.6)
    return hint if hint.startswith("did you mean") else f"paths look like '{paths[0]}'"


def format_connection_error(error: Exception) -> str:
    """Return the system's text of an error, such as `connection refused`, else the error's own text or type."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
