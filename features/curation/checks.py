"""Facts about a manifest before extraction: a table by class and split, and warnings about what would hurt training."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from features.curation.manifest import Manifest
from features.curation.splitting import SplitShares
from features.curation.survey import ClipScan
from features.types import SPLITS, Clip
from features.utils.text import format_count, format_table, make_printable

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

MIN_CLASS_CLIPS = 10
"""Least number of clips from which a class can be learned."""
MAX_GROUP_SHARE = 0.5
"""Share of a class above which one group may be all that a model learns."""
_MAX_LISTED = 5
_NO_LABEL, _NO_SPLIT = "no label", "no split"


def describe_manifest(manifest: Manifest) -> str:
    """Return how groups and split were made, and a table of clips, groups and minutes by class and split."""
    scans = manifest.scans
    sides = [side for side in (*SPLITS, "") if any(scan.clip.split == side for scan in scans)]
    columns = [[scan for scan in scans if scan.clip.split == side] for side in sides]
    names = [side or _NO_SPLIT for side in sides]
    if len(sides) > 1:
        columns, names = [*columns, list(scans)], [*names, "all"]
    labels = sorted({scan.clip.label for scan in scans})
    rows = [
        ["", *(cell for name in names for cell in (name, "", ""))],
        ["class", *("clips", "groups", "minutes") * len(names)],
        *(
            [
                make_printable(label) or _NO_LABEL,
                *_format_cells([[scan for scan in column if scan.clip.label == label] for column in columns]),
            ]
            for label in labels
        ),
    ]
    if len(labels) > 1:
        rows.append(["all", *_format_cells(columns)])
    return "\n".join([f"groups: {manifest.how_grouped}", f"split: {manifest.how_split}", "", *format_table(rows)])


def find_warnings(manifest: Manifest) -> list[str]:
    """Return one line for each problem that would make training poor or its scores wrong."""
    clips = [scan.clip for scan in manifest.scans]
    return [
        *_find_class_problems(clips, manifest.shares),
        *_find_clips_without_split(clips),
        *_find_dominant_groups(clips),
        *_find_copies(clips),
        *_find_leaks(clips, manifest.scenes.tolist()),
    ]


def _format_cells(columns: Iterable[Sequence[ClipScan]]) -> list[str]:
    cells = []
    for scans in columns:
        minutes = sum(scan.duration for scan in scans) / 60
        cells += [str(len(scans)), str(len({scan.clip.group for scan in scans})), f"{minutes:.1f}"]
    return cells


def _find_class_problems(clips: Sequence[Clip], shares: SplitShares | None) -> list[str]:
    by_label = _group_by(clips, lambda clip: clip.label)
    found = []
    if list(by_label) == [""]:
        found.append("no clip has a label; fill in the column 'label' before training")
    elif "" in by_label:
        found.append(f"{format_count(len(by_label['']), 'clip')} without a label: {_format_names(by_label[''])}")
    if len(by_label) == 1 and "" not in by_label:
        found.append(
            f"all clips have one label, '{make_printable(clips[0].label)}'; training needs two or more classes"
        )
    sides = {clip.split for clip in clips} - {""} if shares is None else _list_open_sides(shares)
    for label, members in by_label.items():
        if not label:
            continue
        name, groups = f"class '{make_printable(label)}'", len({clip.group for clip in members})
        if len(members) < MIN_CLASS_CLIPS:
            found.append(
                f"{name} has {format_count(len(members), 'clip')}, fewer than {MIN_CLASS_CLIPS}: too few to learn from"
            )
        if groups < len(sides):
            found.append(
                f"{name} has {format_count(groups, 'group')} for {len(sides)} splits, so some splits cannot have it"
            )
        elif absent := [side for side in SPLITS if side in sides - {clip.split for clip in members}]:
            found.append(f"{name} has no clip in {' and '.join(absent)}")
    return found


def _list_open_sides(shares: SplitShares) -> set[str]:
    return {side for side, share in zip(SPLITS, shares, strict=True) if share}


def _find_clips_without_split(clips: Sequence[Clip]) -> list[str]:
    without = [clip for clip in clips if not clip.split]
    if not without or len(without) == len(clips):
        return []
    return [
        f"{format_count(len(without), 'clip')} without a split, used neither for training nor for evaluation: "
        f"{_format_names(without)}"
    ]


def _find_dominant_groups(clips: Sequence[Clip]) -> list[str]:
    found = []
    for label, members in _group_by(clips, lambda clip: clip.label).items():
        group, most = Counter(clip.group for clip in members).most_common(1)[0]
        if len(members) >= MIN_CLASS_CLIPS and most > MAX_GROUP_SHARE * len(members):
            name = f"class '{make_printable(label)}'" if label else "all clips without a label"
            found.append(
                f"group '{make_printable(group)}' holds {most} of the {format_count(len(members), 'clip')} of {name}: "
                "a model may learn that scene instead of the class; if it is not one scene, raise --alike or edit the "
                "column 'group'"
            )
    return found


def _find_copies(clips: Sequence[Clip]) -> list[str]:
    """Return warnings about clips with the same bytes. Different parts of one video are not copies."""
    found = []
    same = _group_by(clips, lambda clip: (clip.digest, clip.start_seconds, clip.end_seconds))
    repeated = [members for members in same.values() if len(members) > 1]
    if repeated:
        copies = sum(len(members) - 1 for members in repeated)
        named = _truncate_texts(" = ".join(map(_format_name, members[:3])) for members in repeated)
        found.append(f"{format_count(copies, 'clip')} identical to another, byte for byte: {named}; keep one of each")
    if conflicting := [members for members in repeated if len({clip.label for clip in members}) > 1]:
        named = _truncate_texts(
            " and ".join(f"{_format_name(c)} ({make_printable(c.label)})" for c in m[:3]) for m in conflicting
        )
        found.append(f"identical clips with different labels: {named}; at most one label is right")
    return found


def _find_leaks(clips: Sequence[Clip], scenes: Sequence[int]) -> list[str]:
    """Return warnings about groups in more than one split, and about scenes in more than one split beyond those."""
    found = []
    groups = {
        group: members
        for group, members in _group_by([c for c in clips if c.split], lambda clip: clip.group).items()
        if len({clip.split for clip in members}) > 1
    }
    if groups:
        named = _truncate_texts(
            (f"'{make_printable(group)}' ({_format_example(members)})" for group, members in groups.items()),
        )
        found.append(
            f"{format_count(len(groups), 'group')} in more than one split, which inflates the metrics: {named}; "
            "--split 70/15/15 makes a split that keeps groups together"
        )
    numbered = [(clip, scene) for clip, scene in zip(clips, scenes, strict=True) if clip.split]
    leaking = [
        [clip for clip, _ in pairs]
        for pairs in _group_by(numbered, lambda pair: pair[1]).values()
        if len({clip.split for clip, _ in pairs}) > 1 and not {clip.group for clip, _ in pairs} & groups.keys()
    ]
    if leaking:
        found.append(
            f"{format_count(len(leaking), 'scene')} in more than one split, in different groups: "
            f"{_truncate_texts(map(_format_example, leaking))}; --join-alike merges groups that share a scene"
        )
    return found


def _format_example(members: Sequence[Clip]) -> str:
    """Return one clip of each split."""
    first = {clip.split: clip for clip in reversed(members)}
    return ", ".join(f"{_format_name(first[side])} in {side}" for side in SPLITS if side in first)


def _format_name(clip: Clip) -> str:
    return make_printable(clip.path)


def _format_names(clips: Sequence[Clip]) -> str:
    return _truncate_texts(map(_format_name, clips))


def _truncate_texts(texts: Iterable[str]) -> str:
    all_texts = list(texts)
    more = f"; and {len(all_texts) - _MAX_LISTED} more" if len(all_texts) > _MAX_LISTED else ""
    return "; ".join(all_texts[:_MAX_LISTED]) + more


def _group_by(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    found: dict[K, list[T]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return dict(found)
