"""Describes the content of a cache, as text and as JSON."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.cache.hdf5 import CacheHeader, read_header, read_width
from features.cache.parts import CachePart, parts_folder, scan_parts
from features.errors import SettingsError
from features.spec import ORIGINAL_VIEW, describe_reduction, describe_spec
from features.utils.text import format_count, format_duration, format_table, make_printable, merge_similar_reasons

_NO_SPLIT, _NO_LABEL = "no split", "no label"
_MAX_REASONS = 20


@dataclass(frozen=True)
class PendingParts:
    """What the parts beside a cache hold until a run adds it to the cache."""

    parts: int
    clips: int
    failures: int
    damaged: tuple[str, ...]  # file names


@dataclass(frozen=True)
class Inspection:
    """The facts of one cache. The field names are the keys of `inspect --json`."""

    cache: str
    size_bytes: int
    spec: dict[str, Any]
    fingerprint: str
    content_digest: str
    reduction_fitted_on: str  # train | all | model | "" if there is no reduction
    weights_file: str
    created: str
    libraries: dict[str, str]
    clips: int
    tracks: int  # one for each view of a clip
    views: dict[str, int]  # tracks by view, the original one first
    rows: int
    width: int
    groups: int
    duration_seconds: float
    labels: dict[str, dict[str, int]]  # clips by label, then by split
    status: dict[str, int]  # number of clips that are ok and that are partial
    failures: int
    failure_reasons: dict[str, int]
    waiting: PendingParts


def inspect_cache(path: Path) -> tuple[CacheHeader, Inspection]:
    """Read everything but the features.

    Raises SettingsError if there is no cache, or only parts of an unfinished run, and ArtifactError if it is damaged.
    """
    parts, damaged = scan_parts(path)
    if parts and not path.is_file():
        raise SettingsError(_format_unbuilt(path, parts))
    header = read_header(path)
    table, first = header.clips, np.unique(header.clips.path, return_index=True)[1]
    reasons = Counter(f"{s}: {r}" for s, r in zip(header.failures.stage, header.failures.reason, strict=True))
    return header, Inspection(
        cache=str(path),
        size_bytes=path.stat().st_size,
        spec=header.spec.model_dump(mode="json"),
        fingerprint=header.fingerprint,
        content_digest=header.content_digest,
        reduction_fitted_on=header.reduction_fitted_on,
        weights_file=header.weights_file,
        created=header.created,
        libraries=header.libraries,
        clips=len(first),
        tracks=len(table),
        views=dict(sorted(Counter(table.view.tolist()).items(), key=lambda item: (item[0] != ORIGINAL_VIEW, item[0]))),
        rows=int(table.length.sum()),
        width=read_width(path),
        groups=len(set(table.group.tolist()) - {""}),
        duration_seconds=float(table.duration[first].sum()),
        labels=count_labels((str(table.label[i]), str(table.split[i])) for i in first.tolist()),
        status={"ok": 0, "partial": 0} | Counter(table.status[first].tolist()),
        failures=len(header.failures),
        failure_reasons=dict(reasons.most_common()),
        waiting=count_pending(parts, damaged),
    )


def count_pending(parts: list[CachePart], damaged: list[Path]) -> PendingParts:
    """Count the clips and failures in parts, each clip once even if several parts hold it."""
    clips = {path for part in parts for path in part.header.clips.path.tolist()}
    failures = {path for part in parts for path in part.header.failures.path.tolist()} - clips
    return PendingParts(len(parts), len(clips), len(failures), tuple(path.name for path in damaged))


def describe_pending_parts(pending: PendingParts) -> str:
    """Return one line about the parts beside a cache."""
    if not pending.parts:
        return "no pending parts"
    content = f"{format_count(pending.clips, 'clip')} and {format_count(pending.failures, 'failure')}"
    parts = format_count(pending.parts, "pending part")
    return f"{parts} with {content}; run the extraction again to add them to the cache"


def describe_inspection(header: CacheHeader, inspection: Inspection) -> str:
    """Return the text of `inspect`: title, settings, clips by label and split, failures and pending parts."""
    duration = format_duration(inspection.duration_seconds)
    size = f"{inspection.rows} rows of {inspection.width} features, {duration} of video"
    pairs = [
        *(pair for pair in describe_spec(header.spec) if pair[0] != "views"),
        *([("tracks", _format_views(inspection.views))] if len(inspection.views) > 1 else []),
        ("reduction", describe_reduction(header.spec.reduction, inspection.reduction_fitted_on)),
        ("fingerprint", inspection.fingerprint),
        ("content", f"sha256 {inspection.content_digest[:16]}, {inspection.size_bytes / 1e6:.1f} MB"),
        ("created", f"{inspection.created[:19].replace('T', ' ')} UTC"),
        ("libraries", ", ".join(f"{name} {version}" for name, version in inspection.libraries.items() if version)),
        ("groups", str(inspection.groups) if inspection.groups else "none known"),
        ("status", ", ".join(f"{count} {name}" for name, count in inspection.status.items())),
        ("parts", describe_pending_parts(inspection.waiting)),
    ]
    lines = [f"{make_printable(inspection.cache)}: {format_count(inspection.clips, 'clip')}, {size}"]
    lines += [f"  {name:<12} {text}" for name, text in pairs]
    lines += [f"  damaged part {name}" for name in inspection.waiting.damaged]
    lines += (
        ["", *(f"  {line}" for line in format_table(make_label_table(inspection.labels)))] if inspection.labels else []
    )
    return "\n".join([*lines, "", *_format_failures(inspection)])


def _format_views(views: dict[str, int]) -> str:
    return ", ".join(f"{count} {view}" for view, count in views.items())


def count_labels(clips: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Count clips by label, then by split, given the label and split of each."""
    counts: dict[str, dict[str, int]] = {}
    for label, split in sorted(clips):
        of_label = counts.setdefault(label, {})
        of_label[split] = of_label.get(split, 0) + 1
    return counts


def make_label_table(labels: dict[str, dict[str, int]]) -> list[list[str]]:
    """Turn the counts into the rows of a table, its header first."""
    present = {split for counts in labels.values() for split in counts}
    splits = [split for split in ("train", "val", "test", "") if split in present]
    rows = [["label", *(split or _NO_SPLIT for split in splits), "all"]]
    for label, counts in labels.items():
        cells = [str(counts.get(split, 0)) for split in splits]
        rows.append([make_printable(label) or _NO_LABEL, *cells, str(sum(counts.values()))])
    totals = [sum(counts.get(split, 0) for counts in labels.values()) for split in splits]
    return [*rows, ["all", *map(str, totals), str(sum(totals))]]


def _format_failures(inspection: Inspection) -> list[str]:
    if not inspection.failures:
        return ["  no failures"]
    kinds = merge_similar_reasons(inspection.failure_reasons)
    shown = kinds[:_MAX_REASONS]
    lines = [
        f"  {format_count(inspection.failures, 'failure')}:",
        *(f"    {n} x {make_printable(reason)}" for reason, n in shown),
    ]
    hidden = len(kinds) - len(shown)
    return [*lines, f"    … and {format_count(hidden, 'reason')} more (--json lists them)"] if hidden else lines


def _format_unbuilt(path: Path, parts: list[CachePart]) -> str:
    waiting = count_pending(parts, [])
    return (
        f"no cache at {path} yet: {parts_folder(path)} holds {format_count(waiting.clips, 'clip')} and "
        f"{format_count(waiting.failures, 'failure')} of an unfinished run; run the extraction again to build it"
    )
