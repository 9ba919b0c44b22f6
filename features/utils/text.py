"""Facts in words: counts, durations, specs, tables, and names that are safe to print."""

import re
from collections.abc import Mapping, Sequence

from features.spec import FeatureSpec, Sampling

FITTED_ON = {"train": "the training split", "all": "all rows (no split is known)", "model": "a model's training clips"}
"""What a reduction may have been fitted on."""


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 clip`, `2 clips`; `plural` is for nouns that want more than an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few of many names: `a, b, c and 7 more`."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def lasting(seconds: float) -> str:
    """A duration with its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def printable(text: str) -> str:
    """Text on one line of a terminal: control characters become escapes such as `\\n`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def by_kind(reasons: Mapping[str, int]) -> list[tuple[str, int]]:
    """Reasons and how often each is met, most first; those that differ in their numbers alone become one, with `…`."""
    kinds: dict[str, list[tuple[str, int]]] = {}
    for reason, count in reasons.items():
        kinds.setdefault(re.sub(r"\d+", "…", reason), []).append((reason, count))
    merged = [(kind if len(met) > 1 else met[0][0], sum(n for _, n in met)) for kind, met in kinds.items()]
    return sorted(merged, key=lambda pair: -pair[1])


def describe_reduction(reduction: str, fitted_on: str) -> str:
    """`select:512, fitted on the training split`."""
    return f"{reduction}, fitted on {FITTED_ON[fitted_on]}" if fitted_on else reduction


def describe_spec(spec: FeatureSpec) -> list[tuple[str, str]]:
    """What decides the features before any reduction: a name and a few words each."""
    if spec.is_imported:
        each = f"{spec.sampling.fps:g} a second, unless a file says when"
        return [("features", f"{spec.backbone} ({spec.weights_digest})"), ("rows", each)]
    picture = spec.preprocessing
    side = f"{picture.size} x {picture.size}"
    fits = {
        "crop": f"short side to {picture.resize}, then the middle {side} (fit crop)",
        "squash": f"the whole frame squashed to {side} (fit squash)",
    }
    return [
        ("frames", _frames(spec.sampling)),
        ("picture", fits[picture.fit]),
        ("backbone", f"{spec.backbone}, {_weights(spec)}"),
        ("pooling", spec.pooling),
        ("precision", spec.precision),
        *([("views", ",".join(spec.views))] if len(spec.views) > 1 else []),
    ]


def _frames(sampling: Sampling) -> str:
    stride = f"one every {sampling.stride_seconds:g} s" if sampling.stride_seconds else "back to back"
    match sampling.kind:
        case "rate":
            return f"{sampling.fps:g} a second"
        case "every":
            return f"one in {sampling.every}"
        case "all":
            return "all"
        case "windows":
            return f"{sampling.frames} evenly spaced in each window of {sampling.window_seconds:g} s, {stride}"
        case "snippets":
            return f"snippets of {sampling.frames} at {sampling.fps:g} a second, {stride}"
    return f"{sampling.frames} evenly spaced a clip"


def _weights(spec: FeatureSpec) -> str:
    return "random weights" if spec.weights == "random" else f"pretrained weights, sha256 {spec.weights_digest[:12]}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(r, widths, strict=True))
        ).rstrip()
        for r in rows
    ]
