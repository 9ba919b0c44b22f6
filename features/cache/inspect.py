"""What is in a cache, for people and for scripts."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.cache.hdf5 import Header, read_header, read_width
from features.cache.parts import Part, parts_folder, scan_parts
from features.errors import SettingsError
from features.spec import PLAIN, describe_reduction, describe_spec
from features.utils.text import aligned, by_kind, counted, lasting, printable

_NO_SPLIT, _NO_LABEL = "no split", "no label"
_MOST_REASONS = 20


@dataclass(frozen=True)
class Waiting:
    """What lies in parts beside a cache until a run takes it in."""

    parts: int
    clips: int
    failures: int
    damaged: tuple[str, ...]  # names of files


@dataclass(frozen=True)
class Inspection:
    """The facts of one cache. The field names are the keys of `inspect --json`."""

    cache: str
    size_bytes: int
    spec: dict[str, Any]
    fingerprint: str
    content_digest: str
    reduction_fitted_on: str  # train | all | model | "" where there is no reduction
    weights_file: str
    created: str
    libraries: dict[str, str]
    clips: int
    tracks: int  # a clip has one a view
    views: dict[str, int]  # tracks by view, the plain one first
    rows: int
    width: int
    groups: int
    duration_seconds: float
    labels: dict[str, dict[str, int]]  # clips by label, then by split
    status: dict[str, int]  # clips that are ok, and that are partial
    failures: int
    failure_reasons: dict[str, int]
    waiting: Waiting


def inspect_cache(path: Path) -> tuple[Header, Inspection]:
    """Reads everything but the features. Raises as `read_header` does."""
    parts, damaged = scan_parts(path)
    if parts and not path.is_file():
        raise SettingsError(_unbuilt(path, parts))
    header = read_header(path)
    table, first = header.clips, np.unique(header.clips.path, return_index=True)[1]
    reasons = Counter(f"{s}: {r}" for s, r in zip(header.failures.stage, header.failures.reason, strict=True))
    return header, Inspection(
        cache=str(path),
        size_bytes=path.stat().st_size,
        spec=header.spec.model_dump(mode="json"),
        fingerprint=header.fingerprint,
        content_digest=header.content_digest,
        reduction_fitted_on=header.reduction_rows,
        weights_file=header.weights_file,
        created=header.created,
        libraries=header.libraries,
        clips=len(first),
        tracks=len(table),
        views=dict(sorted(Counter(table.view.tolist()).items(), key=lambda item: (item[0] != PLAIN, item[0]))),
        rows=int(table.length.sum()),
        width=read_width(path),
        groups=len(set(table.group.tolist()) - {""}),
        duration_seconds=float(table.duration[first].sum()),
        labels=count_labels((str(table.label[i]), str(table.split[i])) for i in first.tolist()),
        status={"ok": 0, "partial": 0} | Counter(table.status[first].tolist()),
        failures=len(header.failures),
        failure_reasons=dict(reasons.most_common()),
        waiting=waiting_in(parts, damaged),
    )


def waiting_in(parts: list[Part], damaged: list[Path]) -> Waiting:
    """Counts each clip once, however many parts hold it."""
    clips = {path for part in parts for path in part.header.clips.path.tolist()}
    failures = {path for part in parts for path in part.header.failures.path.tolist()} - clips
    return Waiting(len(parts), len(clips), len(failures), tuple(path.name for path in damaged))


def describe_waiting(waiting: Waiting) -> str:
    """One line on the parts beside a cache."""
    if not waiting.parts:
        return "no parts wait beside it"
    held = f"{counted(waiting.clips, 'clip')} and {counted(waiting.failures, 'failure')}"
    return f"{counted(waiting.parts, 'part')} beside it with {held}; running the extraction again takes them in"


def describe_inspection(header: Header, facts: Inspection) -> str:
    """Lines for people: a title, the spec, the clips by label and split, what failed, what waits."""
    size = f"{facts.rows} rows of {facts.width} features, {lasting(facts.duration_seconds)} of video"
    pairs = [
        *(pair for pair in describe_spec(header.spec) if pair[0] != "views"),
        *([("tracks", _tracks(facts.views))] if len(facts.views) > 1 else []),
        ("reduction", describe_reduction(header.spec.reduction, facts.reduction_fitted_on)),
        ("fingerprint", facts.fingerprint),
        ("content", f"sha256 {facts.content_digest[:16]}, {facts.size_bytes / 1e6:.1f} MB"),
        ("created", f"{facts.created[:19].replace('T', ' ')} UTC"),
        ("libraries", ", ".join(f"{name} {version}" for name, version in facts.libraries.items() if version)),
        ("groups", str(facts.groups) if facts.groups else "none known"),
        ("status", ", ".join(f"{count} {name}" for name, count in facts.status.items())),
        ("parts", describe_waiting(facts.waiting)),
    ]
    lines = [f"{printable(facts.cache)}: {counted(facts.clips, 'clip')}, {size}"]
    lines += [f"  {name:<12} {words}" for name, words in pairs]
    lines += [f"  damaged part {name}" for name in facts.waiting.damaged]
    lines += ["", *(f"  {line}" for line in aligned(label_rows(facts.labels)))] if facts.labels else []
    return "\n".join([*lines, "", *_failure_lines(facts)])


def _tracks(views: dict[str, int]) -> str:
    return ", ".join(f"{count} {view}" for view, count in views.items())


def count_labels(clips: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Clips by label, then by split, from the label and split of each."""
    counts: dict[str, dict[str, int]] = {}
    for label, split in sorted(clips):
        of_label = counts.setdefault(label, {})
        of_label[split] = of_label.get(split, 0) + 1
    return counts


def label_rows(labels: dict[str, dict[str, int]]) -> list[list[str]]:
    """Such counts as the rows of a table, the first its titles."""
    present = {split for counts in labels.values() for split in counts}
    splits = [split for split in ("train", "val", "test", "") if split in present]
    rows = [["label", *(split or _NO_SPLIT for split in splits), "all"]]
    for label, counts in labels.items():
        cells = [str(counts.get(split, 0)) for split in splits]
        rows.append([printable(label) or _NO_LABEL, *cells, str(sum(counts.values()))])
    totals = [sum(counts.get(split, 0) for counts in labels.values()) for split in splits]
    return [*rows, ["all", *map(str, totals), str(sum(totals))]]


def _failure_lines(facts: Inspection) -> list[str]:
    if not facts.failures:
        return ["  no failures"]
    kinds = by_kind(facts.failure_reasons)
    shown = kinds[:_MOST_REASONS]
    lines = [f"  {counted(facts.failures, 'failure')}:", *(f"    {n} x {printable(reason)}" for reason, n in shown)]
    hidden = len(kinds) - len(shown)
    return [*lines, f"    … and {counted(hidden, 'reason')} more (--json names them)"] if hidden else lines


def _unbuilt(path: Path, parts: list[Part]) -> str:
    waiting = waiting_in(parts, [])
    return (
        f"no cache at {path} yet: {parts_folder(path)} holds {counted(waiting.clips, 'clip')} and "
        f"{counted(waiting.failures, 'failure')} of an unfinished run; run the extraction again to build it"
    )
