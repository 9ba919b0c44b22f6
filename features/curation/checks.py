"""What to know of a manifest before any time is spent on it: counts by class and split, and what will hurt."""

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
"""A class of fewer is too small to learn from."""
MAX_GROUP_SHARE = 0.5
"""The share of a class above which one group may be all that is learned."""
_MAX_LISTED = 5
_NO_LABEL, _NO_SPLIT = "no label", "no split"


def describe_manifest(manifest: Manifest) -> str:
    """How it was made, and clips, groups and minutes by class and split."""
    looks = manifest.scans
    sides = [side for side in (*SPLITS, "") if any(look.clip.split == side for look in looks)]
    columns = [[look for look in looks if look.clip.split == side] for side in sides]
    names = [side or _NO_SPLIT for side in sides]
    if len(sides) > 1:
        columns, names = [*columns, list(looks)], [*names, "all"]
    labels = sorted({look.clip.label for look in looks})
    rows = [
        ["", *(cell for name in names for cell in (name, "", ""))],
        ["class", *("clips", "groups", "minutes") * len(names)],
        *(
            [
                make_printable(label) or _NO_LABEL,
                *_format_cells([[look for look in c if look.clip.label == label] for c in columns]),
            ]
            for label in labels
        ),
    ]
    if len(labels) > 1:
        rows.append(["all", *_format_cells(columns)])
    return "\n".join([f"groups: {manifest.how_grouped}", f"split: {manifest.how_split}", "", *format_table(rows)])


def find_warnings(manifest: Manifest) -> list[str]:
    """One line for each thing that would make training poor or its figures wrong."""
    looks = manifest.scans
    clips = [look.clip for look in looks]
    return [
        *_find_poor_classes(clips, manifest.shares),
        *_find_clips_without_split(clips),
        *_find_dominant_groups(clips),
        *_find_repeats(looks),
        *_find_leaks(clips, manifest.scenes.tolist()),
    ]


def _format_cells(columns: Iterable[Sequence[ClipScan]]) -> list[str]:
    cells = []
    for looks in columns:
        minutes = sum(look.duration for look in looks) / 60
        cells += [str(len(looks)), str(len({look.clip.group for look in looks})), f"{minutes:.1f}"]
    return cells


def _find_poor_classes(clips: Sequence[Clip], shares: SplitShares | None) -> list[str]:
    by_label = _group_by(clips, lambda clip: clip.label)
    found = []
    if list(by_label) == [""]:
        found.append("no clip has a label; fill in the column 'label' before training")
    elif "" in by_label:
        found.append(f"{format_count(len(by_label['']), 'clip')} without a label: {_format_names(by_label[''])}")
    if len(by_label) == 1 and "" not in by_label:
        found.append(f"all clips are of one class, '{make_printable(clips[0].label)}'; training needs two or more")
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
            found.append(f"{name} has {format_count(groups, 'group')} for {len(sides)} splits: some must go without it")
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
        f"{format_count(len(without), 'clip')} without a split, trained on and judged on by nobody: {_format_names(without)}"
    ]


def _find_dominant_groups(clips: Sequence[Clip]) -> list[str]:
    found = []
    for label, members in _group_by(clips, lambda clip: clip.label).items():
        group, most = Counter(clip.group for clip in members).most_common(1)[0]
        if len(members) >= MIN_CLASS_CLIPS and most > MAX_GROUP_SHARE * len(members):
            name = f"class '{make_printable(label)}'" if label else "all clips without a label"
            found.append(
                f"group '{make_printable(group)}' holds {most} of the {format_count(len(members), 'clip')} of {name}: "
                "what is learned may be that scene; where it is not one scene, raise --alike or mend the column"
            )
    return found


def _find_repeats(scans: Sequence[ClipScan]) -> list[str]:
    """Clips of the same bytes; parts of one video are not the same."""
    found = []
    same = _group_by([look.clip for look in scans], lambda clip: (clip.digest, clip.start_seconds, clip.end_seconds))
    repeated = [members for members in same.values() if len(members) > 1]
    if repeated:
        extra = sum(len(members) - 1 for members in repeated)
        named = _truncate_facts(" = ".join(map(_format_name, members[:3])) for members in repeated)
        found.append(f"{format_count(extra, 'clip')} the same as another, byte for byte: {named}; keep one of each")
    if torn := [members for members in repeated if len({clip.label for clip in members}) > 1]:
        named = _truncate_facts(
            " and ".join(f"{_format_name(c)} ({make_printable(c.label)})" for c in m[:3]) for m in torn
        )
        found.append(f"the same clip with different labels: {named}; one of them is wrong")
    return found


def _find_leaks(clips: Sequence[Clip], scenes: Sequence[int]) -> list[str]:
    """Groups, and scenes besides, that lie on more than one side of the split."""
    found = []
    groups = {
        group: members
        for group, members in _group_by([c for c in clips if c.split], lambda clip: clip.group).items()
        if len({clip.split for clip in members}) > 1
    }
    if groups:
        named = _truncate_facts(
            (f"'{make_printable(group)}' ({_format_example(members)})" for group, members in groups.items()),
        )
        found.append(
            f"{format_count(len(groups), 'group')} on more than one side of the split, so that figures would be too high: "
            f"{named}; --split 70/15/15 makes a split that divides no group"
        )
    numbered = [(clip, scene) for clip, scene in zip(clips, scenes, strict=True) if clip.split]
    torn = [
        [clip for clip, _ in pairs]
        for pairs in _group_by(numbered, lambda pair: pair[1]).values()
        if len({clip.split for clip, _ in pairs}) > 1 and not {clip.group for clip, _ in pairs} & groups.keys()
    ]
    if torn:
        found.append(
            f"{format_count(len(torn), 'scene')} on more than one side of the split, in different groups: "
            f"{_truncate_facts(map(_format_example, torn))}; --join-alike makes one group of groups that share a scene"
        )
    return found


def _format_example(members: Sequence[Clip]) -> str:
    """One clip of each side."""
    first = {clip.split: clip for clip in reversed(members)}
    return ", ".join(f"{_format_name(first[side])} in {side}" for side in SPLITS if side in first)


def _format_name(clip: Clip) -> str:
    return make_printable(clip.path)


def _format_names(clips: Sequence[Clip]) -> str:
    return _truncate_facts(map(_format_name, clips))


def _truncate_facts(facts: Iterable[str]) -> str:
    each = list(facts)
    more = f"; and {len(each) - _MAX_LISTED} more" if len(each) > _MAX_LISTED else ""
    return "; ".join(each[:_MAX_LISTED]) + more


def _group_by(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    found: dict[K, list[T]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return dict(found)
