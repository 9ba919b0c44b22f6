"""Facts in words: counts, durations, specs, tables, and names that are safe to print."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence


def format_count(count: int, noun: str, plural: str = "") -> str:
    """`1 clip`, `2 clips`; `plural` is for nouns that want more than an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"


def truncate_list(names: Sequence[str], max_names: int = 3) -> str:
    """The first few of many names: `a, b, c and 7 more`."""
    rest = len(names) - max_names
    return ", ".join(names[:max_names]) + (f" and {rest} more" if rest > 0 else "")


def format_duration(seconds: float) -> str:
    """A duration with its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def make_printable(text: str) -> str:
    """Text on one line of a terminal: control characters become escapes such as `\\n`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def merge_similar_reasons(reasons: Mapping[str, int]) -> list[tuple[str, int]]:
    """Reasons and how often each is met, most first; those that differ in their numbers alone become one, with `…`."""
    kinds: dict[str, list[tuple[str, int]]] = {}
    for reason, count in reasons.items():
        kinds.setdefault(re.sub(r"\d+", "…", reason), []).append((reason, count))
    merged = [(kind if len(met) > 1 else met[0][0], sum(n for _, n in met)) for kind, met in kinds.items()]
    return sorted(merged, key=lambda pair: -pair[1])


def format_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(r, widths, strict=True))
        ).rstrip()
        for r in rows
    ]


MAX_SEARCHED_PATHS = 5000
"""Paths among which a similar one is looked for."""


def suggest_name(name: str, choices: Sequence[str] | Mapping[str, object], *, cutoff: float = 0.5) -> str:
    """`did you mean 'x'?` where something is close (0 to 1, as difflib measures it), else the list of choices."""
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=cutoff)
    return f"did you mean '{close[0]}'?" if close else f"choose one of: {', '.join(choices)}"


def suggest_path(path: str, paths: Iterable[str]) -> str:
    """`did you mean 'x'?` for a path of the same file name or much alike, else an example; of a million in no time."""
    paths = list(paths)
    name = path.rpartition("/")[2]
    same = [other for other in paths if other.rpartition("/")[2] == name]
    hint = suggest_name(path, same or paths[:MAX_SEARCHED_PATHS], cutoff=0.0 if same else 0.6)
    return hint if hint.startswith("did you mean") else f"paths are such as '{paths[0]}'"
