"""Official split lists: UCF101's trainlist01.txt and testlist01.txt, HMDB51's CLASS_test_split1.txt."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from logging import getLogger
from pathlib import Path
from typing import Literal

from features.errors import SettingsError
from features.sources.folders import parse_group, strip_video_suffix
from features.types import SPLIT_ALIASES, SPLITS, Clip
from features.utils.text import format_count, truncate_list

AbsentClipPolicy = Literal["refuse", "ignore"]
"""What to do about clips that a list names and SOURCE does not have."""

EXPECTED_FILES = "trainlist01.txt and testlist01.txt (UCF101), CLASS_test_split1.txt (HMDB51), classInd.txt beside them"
_UCF_LIST_NAME = re.compile(
    r"(train|training|val|valid|validation|test)[-_]?(?:list|split)?[-_]?(\d*)\.txt", re.IGNORECASE
)
_HMDB_LIST_NAME = re.compile(r"(.+)_test_split(\d+)\.txt", re.IGNORECASE)
_CLASS_INDEX_NAME = re.compile(r"classind\w*\.txt", re.IGNORECASE)
_HMDB_SPLITS = {"0": "", "1": "train", "2": "test"}
_log = getLogger(__name__)

ListedClipKey = tuple[str, str]  # class and name of a clip, in lower case: UCF101 writes HandStandPushups in two ways


@dataclass(frozen=True)
class ListedClip:
    """One line of a list. The label is empty where the list does not say it, the split where the clip is unused."""

    name: str
    label: str
    split: str
    where: str

    @property
    def key(self) -> ListedClipKey:
        """What it is matched by."""
        return self.label.lower(), self.name.lower()

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{self.label}/{self.name}" if self.label else self.name


def read_split_lists(files: Sequence[Path], *, number: int | None = None) -> dict[ListedClipKey, ListedClip]:
    """The lines of lists, or of the lists in folders; of those numbered `number` where it is given.

    Raises SettingsError that names file and line, or says what to choose.
    """
    lists = [list_ for file in files for list_ in _find_lists(file, number)]
    classes = [file for file in lists if _CLASS_INDEX_NAME.fullmatch(file.name)]
    index = {file.parent: _read_class_index(file) for file in classes}
    lines: dict[ListedClipKey, ListedClip] = {}
    for file in lists:
        if file in classes:
            continue
        for line in _read_list(file, _find_class_index(file, index)):
            other = lines.setdefault(line.key, line)
            if other.split != line.split:
                raise SettingsError(
                    f"'{line.title}' is {other.split or 'unused'} in {other.where} and {line.split or 'unused'} in "
                    f"{line.where}; give the lists of one split"
                )
    if not lines:
        raise SettingsError(
            f"no clip is named in {truncate_list([str(file) for file in files])}; expected {EXPECTED_FILES}"
        )
    return lines


def find_split_numbers(folder: Path) -> list[int]:
    """The numbers of the splits that a folder of lists holds, 1 to 3 in UCF101's and HMDB51's.

    Raises SettingsError where it holds none.
    """
    if not folder.is_dir():
        raise SettingsError(f"{folder} is not a folder of split lists; expected one with {EXPECTED_FILES}")
    numbers = sorted({found for entry in folder.iterdir() if (found := _parse_split_number(entry))})
    if not numbers:
        raise SettingsError(f"no numbered split list in {folder}; expected {EXPECTED_FILES}")
    return numbers


def apply_split_lists(
    clips: Sequence[Clip], lines: Mapping[ListedClipKey, ListedClip], *, absent: AbsentClipPolicy = "refuse"
) -> list[Clip]:
    """The clips with the splits of the lists, and with their labels and groups where there were none.

    A clip is found by its class and name, whether it is a video or a folder of images. One that no list names gets no
    split. Raises SettingsError where lists name clips that are not there.
    """
    by_name: dict[str, list[ListedClip]] = {}
    for line in lines.values():
        by_name.setdefault(line.name.lower(), []).append(line)
    found = [_find_listed_clip(clip, lines, by_name) for clip in clips]
    met = {line.key for line in found if line}
    missing = [line for key, line in lines.items() if key not in met]
    if not met or (missing and absent == "refuse"):
        raise SettingsError(_describe_missing(missing, clips, is_all=not met))
    _log.info("%s", _describe_found(found, missing))
    return [_apply_listed_clip(clip, line) for clip, line in zip(clips, found, strict=True)]


def _find_lists(file: Path, number: int | None) -> list[Path]:
    """The lists that a file or a folder stands for."""
    if not file.is_dir():
        if not file.is_file():
            raise SettingsError(f"split list {file} does not exist; expected {EXPECTED_FILES}, or their folder")
        return [file]
    lists = [
        entry
        for entry in sorted(file.iterdir())
        if _CLASS_INDEX_NAME.fullmatch(entry.name) or _parse_split_number(entry) is not None
    ]
    numbers = sorted({found for entry in lists if (found := _parse_split_number(entry))})
    if number is None and len(numbers) > 1:
        raise SettingsError(f"{file} holds the splits {', '.join(map(str, numbers))}; choose one with --split-number N")
    chosen = [entry for entry in lists if number is None or _parse_split_number(entry) in (None, 0, number)]
    if not any(_parse_split_number(entry) is not None for entry in chosen):
        wanted = f"no list of split {number}" if numbers else "no split list"
        raise SettingsError(f"{wanted} in {file}; expected {EXPECTED_FILES}")
    return chosen


def _parse_split_number(file: Path) -> int | None:
    """The number of a split list, 0 where its name has none; None for any other file."""
    found = _UCF_LIST_NAME.fullmatch(file.name) or _HMDB_LIST_NAME.fullmatch(file.name)
    return int(found[2] or 0) if found else None


def _find_class_index(file: Path, index: Mapping[Path, Mapping[int, str]]) -> Mapping[int, str]:
    """The class numbers that a list goes by: given, or beside it; none where there is no such file."""
    if file.parent in index:
        return index[file.parent]
    if index:
        return next(iter(index.values()))
    beside = file.parent / "classInd.txt"
    return _read_class_index(beside) if beside.is_file() else {}


def _read_class_index(file: Path) -> dict[int, str]:
    """`1 ApplyEyeMakeup` a line."""
    classes = {}
    for where, line in _read_lines(file):
        found = re.fullmatch(r"(\d+)\s+(.+)", line)
        if not found:
            raise SettingsError(f"{where}: '{line}'; expected a number and a class, such as `1 ApplyEyeMakeup`")
        classes[int(found[1])] = found[2]
    return classes


def _read_list(file: Path, classes: Mapping[int, str]) -> Iterator[ListedClip]:
    hmdb, ucf = _HMDB_LIST_NAME.fullmatch(file.name), _UCF_LIST_NAME.fullmatch(file.name)
    if hmdb:
        return (_parse_hmdb_line(where, line, hmdb[1]) for where, line in _read_lines(file))
    if ucf:
        split = SPLIT_ALIASES[ucf[1].lower()]
        return (_parse_ucf_line(where, line, split, classes) for where, line in _read_lines(file))
    raise SettingsError(f"the name of {file} does not say which split it lists; expected {EXPECTED_FILES}")


def _parse_hmdb_line(where: str, line: str, label: str) -> ListedClip:
    found = re.fullmatch(r"(.+?)\s+([012])", line)
    if not found:
        raise SettingsError(f"{where}: '{line}'; expected a clip and 1 (train), 2 (test) or 0 (unused)")
    return ListedClip(strip_video_suffix(found[1]), label, _HMDB_SPLITS[found[2]], where)


def _parse_ucf_line(where: str, line: str, split: str, classes: Mapping[int, str]) -> ListedClip:
    found = re.fullmatch(r"(.+?)(?:\s+(\d+))?", line)
    assert found
    folder, _, name = found[1].rpartition("/")
    number = int(found[2]) if found[2] else None
    label = folder.rpartition("/")[2] or (classes.get(number, "") if number is not None else "")
    if classes and number is not None and number not in classes:
        raise SettingsError(f"{where}: class number {number}; classInd.txt has {min(classes)} to {max(classes)}")
    if classes and label and label.lower() not in {known.lower() for known in classes.values()}:
        raise SettingsError(f"{where}: class '{label}' is not in classInd.txt")
    if classes and number is not None and classes[number].lower() != label.lower():
        raise SettingsError(
            f"{where}: class '{label}' has the number {number}, which is {classes[number]} in classInd.txt"
        )
    return ListedClip(strip_video_suffix(name), label, split, where)


def _read_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Where each line stands, and the line; empty ones are left out."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"split list {file} cannot be read: {getattr(error, 'strerror', error)}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield f"{file.name}, line {number}", line.strip()


def _find_listed_clip(
    clip: Clip, lines: Mapping[ListedClipKey, ListedClip], by_name: Mapping[str, Sequence[ListedClip]]
) -> ListedClip | None:
    """The line that names a clip: of its label or folder; a clip without a label is found by its name alone."""
    *folders, last = clip.file_path.split("/")
    name = strip_video_suffix(last).lower()
    for label in (clip.label, *folders[-1:], ""):
        if line := lines.get((label.lower(), name)):
            return line
    if clip.label:
        return None
    named = by_name.get(name, ())
    if len(named) > 1:
        raise SettingsError(
            f"'{clip.path}' may be {truncate_list([line.title for line in named])} of the lists; keep clips in class folders"
        )
    return named[0] if named else None


def _apply_listed_clip(clip: Clip, line: ListedClip | None) -> Clip:
    if line is None:
        return replace(clip, split="")
    return replace(clip, split=line.split, label=clip.label or line.label, group=clip.group or parse_group(line.name))


def _describe_found(found: Sequence[ListedClip | None], missing: Sequence[ListedClip]) -> str:
    splits = Counter(line.split for line in found if line)
    counts = ", ".join(f"{splits[split]} {split}" for split in SPLITS if splits[split])
    words = [f"split lists: {counts or 'no clip in train, val or test'}"]
    if splits[""]:
        words.append(f"{splits['']} listed as unused")
    if unnamed := sum(line is None for line in found):
        words.append(f"{format_count(unnamed, 'clip')} in no list, without a split")
    if missing:
        words.append(f"{len(missing)} listed but not in SOURCE, ignored")
    return "; ".join(words)


def _describe_missing(missing: Sequence[ListedClip], clips: Sequence[Clip], *, is_all: bool) -> str:
    """One line that counts and names a few."""
    named = truncate_list([f"{line.title} ({line.where})" for line in missing], max_names=2)
    if is_all:
        such = truncate_list([clip.path for clip in clips], max_names=1)
        return f"SOURCE has none of the {format_count(len(missing), 'clip')} of the split lists: {named}; it has {such}"
    there = {name.lower() for clip in clips for name in (clip.label, *clip.path.split("/")[-2:-1])}
    classes = sorted({line.label for line in missing if line.label.lower() not in there})
    lacks = f" (it lacks the class{'es' * (len(classes) > 1)} {truncate_list(classes)} altogether)" if classes else ""
    return (
        f"the split lists name {format_count(len(missing), 'clip')} that SOURCE does not have{lacks}: {named}; give the "
        "whole data set, or, where SOURCE is meant to be a part of it, --set split_absent=ignore"
    )
