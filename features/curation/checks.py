"""What to know of a manifest before any time is spent on it: counts by class and split, and what will hurt."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from features.curation.manifest import Manifest
from features.curation.splitting import Shares
from features.curation.survey import Look
from features.types import SPLITS, Clip
from features.utils.text import aligned, counted, printable

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

FEW_CLIPS = 10
"""A class of fewer is too small to learn from."""
MOST_OF_A_CLASS = 0.5
"""The share of a class above which one group may be all that is learned."""
_NAMED = 5
_NO_LABEL, _NO_SPLIT = "no label", "no split"


def describe_manifest(manifest: Manifest) -> str:
    """How it was made, and clips, groups and minutes by class and split."""
    looks = manifest.looks
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
                printable(label) or _NO_LABEL,
                *_cells([[look for look in c if look.clip.label == label] for c in columns]),
            ]
            for label in labels
        ),
    ]
    if len(labels) > 1:
        rows.append(["all", *_cells(columns)])
    return "\n".join([f"groups: {manifest.how_grouped}", f"split: {manifest.how_split}", "", *aligned(rows)])


def warnings_of(manifest: Manifest) -> list[str]:
    """One line for each thing that would make training poor or its figures wrong."""
    looks = manifest.looks
    clips = [look.clip for look in looks]
    return [
        *_poor_classes(clips, manifest.shares),
        *_unplaced(clips),
        *_dominant_groups(clips),
        *_repeats(looks),
        *_leaks(clips, manifest.scenes.tolist()),
    ]


def _cells(columns: Iterable[Sequence[Look]]) -> list[str]:
    cells = []
    for looks in columns:
        minutes = sum(look.duration for look in looks) / 60
        cells += [str(len(looks)), str(len({look.clip.group for look in looks})), f"{minutes:.1f}"]
    return cells


def _poor_classes(clips: Sequence[Clip], shares: Shares | None) -> list[str]:
    by_label = _by(clips, lambda clip: clip.label)
    found = []
    if list(by_label) == [""]:
        found.append("no clip has a label; fill in the column 'label' before training")
    elif "" in by_label:
        found.append(f"{counted(len(by_label['']), 'clip')} without a label: {_names(by_label[''])}")
    if len(by_label) == 1 and "" not in by_label:
        found.append(f"all clips are of one class, '{printable(clips[0].label)}'; training needs two or more")
    sides = {clip.split for clip in clips} - {""} if shares is None else _open_sides(shares)
    for label, members in by_label.items():
        if not label:
            continue
        name, groups = f"class '{printable(label)}'", len({clip.group for clip in members})
        if len(members) < FEW_CLIPS:
            found.append(f"{name} has {counted(len(members), 'clip')}, fewer than {FEW_CLIPS}: too few to learn from")
        if groups < len(sides):
            found.append(f"{name} has {counted(groups, 'group')} for {len(sides)} splits: some must go without it")
        elif absent := [side for side in SPLITS if side in sides - {clip.split for clip in members}]:
            found.append(f"{name} has no clip in {' and '.join(absent)}")
    return found


def _open_sides(shares: Shares) -> set[str]:
    return {side for side, share in zip(SPLITS, shares, strict=True) if share}


def _unplaced(clips: Sequence[Clip]) -> list[str]:
    without = [clip for clip in clips if not clip.split]
    if not without or len(without) == len(clips):
        return []
    return [f"{counted(len(without), 'clip')} without a split, trained on and judged on by nobody: {_names(without)}"]


def _dominant_groups(clips: Sequence[Clip]) -> list[str]:
    found = []
    for label, members in _by(clips, lambda clip: clip.label).items():
        group, most = Counter(clip.group for clip in members).most_common(1)[0]
        if len(members) >= FEW_CLIPS and most > MOST_OF_A_CLASS * len(members):
            name = f"class '{printable(label)}'" if label else "all clips without a label"
            found.append(
                f"group '{printable(group)}' holds {most} of the {counted(len(members), 'clip')} of {name}: "
                "what is learned may be that scene; where it is not one scene, raise --alike or mend the column"
            )
    return found


def _repeats(looks: Sequence[Look]) -> list[str]:
    """Clips of the same bytes; parts of one video are not the same."""
    found = []
    same = _by([look.clip for look in looks], lambda clip: (clip.digest, clip.start_seconds, clip.end_seconds))
    repeated = [members for members in same.values() if len(members) > 1]
    if repeated:
        extra = sum(len(members) - 1 for members in repeated)
        named = _some(" = ".join(map(_name, members[:3])) for members in repeated)
        found.append(f"{counted(extra, 'clip')} the same as another, byte for byte: {named}; keep one of each")
    if torn := [members for members in repeated if len({clip.label for clip in members}) > 1]:
        named = _some(" and ".join(f"{_name(c)} ({printable(c.label)})" for c in m[:3]) for m in torn)
        found.append(f"the same clip with different labels: {named}; one of them is wrong")
    return found


def _leaks(clips: Sequence[Clip], scenes: Sequence[int]) -> list[str]:
    """Groups, and scenes besides, that lie on more than one side of the split."""
    found = []
    groups = {
        group: members
        for group, members in _by([c for c in clips if c.split], lambda clip: clip.group).items()
        if len({clip.split for clip in members}) > 1
    }
    if groups:
        named = _some(
            (f"'{printable(group)}' ({_example(members)})" for group, members in groups.items()),
        )
        found.append(
            f"{counted(len(groups), 'group')} on more than one side of the split, so that figures would be too high: "
            f"{named}; --split 70/15/15 makes a split that divides no group"
        )
    numbered = [(clip, scene) for clip, scene in zip(clips, scenes, strict=True) if clip.split]
    torn = [
        [clip for clip, _ in pairs]
        for pairs in _by(numbered, lambda pair: pair[1]).values()
        if len({clip.split for clip, _ in pairs}) > 1 and not {clip.group for clip, _ in pairs} & groups.keys()
    ]
    if torn:
        found.append(
            f"{counted(len(torn), 'scene')} on more than one side of the split, in different groups: "
            f"{_some(map(_example, torn))}; --join-alike makes one group of groups that share a scene"
        )
    return found


def _example(members: Sequence[Clip]) -> str:
    """One clip of each side."""
    first = {clip.split: clip for clip in reversed(members)}
    return ", ".join(f"{_name(first[side])} in {side}" for side in SPLITS if side in first)


def _name(clip: Clip) -> str:
    return printable(clip.path)


def _names(clips: Sequence[Clip]) -> str:
    return _some(map(_name, clips))


def _some(facts: Iterable[str]) -> str:
    each = list(facts)
    more = f"; and {len(each) - _NAMED} more" if len(each) > _NAMED else ""
    return "; ".join(each[:_NAMED]) + more


def _by(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    found: dict[K, list[T]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return dict(found)
