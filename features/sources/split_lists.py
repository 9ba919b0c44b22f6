"""Official split lists: trainlist01.txt and testlist01.txt of UCF101, CLASS_test_split1.txt of HMDB51."""

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
"""What to do if a list names clips that the source does not have."""

EXPECTED_FILES = "trainlist01.txt and testlist01.txt (UCF101), CLASS_test_split1.txt (HMDB51), classInd.txt beside them"
_UCF_LIST_NAME = re.compile(
    r"(train|training|val|valid|validation|test)[-_]?(?:list|split)?[-_]?(\d*)\.txt", re.IGNORECASE
)
_HMDB_LIST_NAME = re.compile(r"(.+)_test_split(\d+)\.txt", re.IGNORECASE)
_CLASS_INDEX_NAME = re.compile(r"classind\w*\.txt", re.IGNORECASE)
_HMDB_SPLITS = {"0": "", "1": "train", "2": "test"}
_log = getLogger(__name__)

ListedClipKey = tuple[str, str]  # class and name in lower case: UCF101 spells HandStandPushups in two ways


@dataclass(frozen=True)
class ListedClip:
    """One line of a list. `label` is empty if the list does not tell it, `split` if the clip is unused."""

    name: str
    label: str
    split: str
    where: str

    @property
    def key(self) -> ListedClipKey:
        """Class and name by which a clip is matched."""
        return self.label.lower(), self.name.lower()

    @property
    def title(self) -> str:
        """Class and name for messages."""
        return f"{self.label}/{self.name}" if self.label else self.name


def read_split_lists(files: Sequence[Path], *, number: int | None = None) -> dict[ListedClipKey, ListedClip]:
    """Return the lines of lists, or of the lists in folders, by their key.

    `number` selects the lists of one split. Raises SettingsError that names file and line, or says what to choose.
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
            f"no clip is listed in {truncate_list([str(file) for file in files])}; expected {EXPECTED_FILES}"
        )
    return lines


def find_split_numbers(folder: Path) -> list[int]:
    """Return the numbers of the splits in a folder of lists: 1 to 3 for UCF101 and HMDB51.

    Raises SettingsError if the folder holds none.
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
    """Return the clips with the splits of the lists, and with labels and groups of the lists if they had none.

    A clip, a video or a folder of images, is found by class and name. A clip that no list names gets no split. Raises
    SettingsError if lists name clips that the source does not have, unless `absent` is "ignore".
    """
    by_name: dict[str, list[ListedClip]] = {}
    for line in lines.values():
        by_name.setdefault(line.name.lower(), []).append(line)
    found = [_find_listed_clip(clip, lines, by_name) for clip in clips]
    found_keys = {line.key for line in found if line}
    missing = [line for key, line in lines.items() if key not in found_keys]
    if not found_keys or (missing and absent == "refuse"):
        raise SettingsError(_describe_missing(missing, clips, is_all=not found_keys))
    _log.info("%s", _describe_found(found, missing))
    return [_apply_listed_clip(clip, line) for clip, line in zip(clips, found, strict=True)]


def _find_lists(file: Path, number: int | None) -> list[Path]:
    """Return the lists that a file or a folder stands for. Raises SettingsError."""
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
    selected = [entry for entry in lists if number is None or _parse_split_number(entry) in (None, 0, number)]
    if not any(_parse_split_number(entry) is not None for entry in selected):
        problem = f"no list of split {number}" if numbers else "no split list"
        raise SettingsError(f"{problem} in {file}; expected {EXPECTED_FILES}")
    return selected


def _parse_split_number(file: Path) -> int | None:
    """Return the number of a split list, 0 if its name has none, or None if the file is not a split list."""
    found = _UCF_LIST_NAME.fullmatch(file.name) or _HMDB_LIST_NAME.fullmatch(file.name)
    return int(found[2] or 0) if found else None


def _find_class_index(file: Path, index: Mapping[Path, Mapping[int, str]]) -> Mapping[int, str]:
    """Return the class numbers for a list: those that were given, else those beside it, else none."""
    if file.parent in index:
        return index[file.parent]
    if index:
        return next(iter(index.values()))
    beside = file.parent / "classInd.txt"
    return _read_class_index(beside) if beside.is_file() else {}


def _read_class_index(file: Path) -> dict[int, str]:
    """Return the classes by number from lines such as `1 ApplyEyeMakeup`. Raises SettingsError."""
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
        raise SettingsError(
            f"{where}: no class has the number {number}; classInd.txt has {min(classes)} to {max(classes)}"
        )
    if classes and label and label.lower() not in {known.lower() for known in classes.values()}:
        raise SettingsError(f"{where}: class '{label}' is not in classInd.txt")
    if classes and number is not None and classes[number].lower() != label.lower():
        raise SettingsError(
            f"{where}: class '{label}' has the number {number}, which is {classes[number]} in classInd.txt"
        )
    return ListedClip(strip_video_suffix(name), label, split, where)


def _read_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the position and the text of each line that is not empty. Raises SettingsError."""
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
    """Return the line that names a clip, by its label or its folder.

    A clip without a label is also found by its name alone.

    Raises SettingsError if several lines match.
    """
    *folders, last = clip.file_path.split("/")
    name = strip_video_suffix(last).lower()
    for label in (clip.label, *folders[-1:], ""):
        if line := lines.get((label.lower(), name)):
            return line
    if clip.label:
        return None
    matches = by_name.get(name, ())
    if len(matches) > 1:
        titles = truncate_list([line.title for line in matches])
        raise SettingsError(f"'{clip.path}' matches several clips of the lists: {titles}; put clips in class folders")
    return matches[0] if matches else None


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
    """Return a message that counts the missing clips and names a few of them."""
    named = truncate_list([f"{line.title} ({line.where})" for line in missing], max_names=2)
    if is_all:
        present = truncate_list([clip.path for clip in clips], max_names=1)
        return (
            f"SOURCE has none of the {format_count(len(missing), 'clip')} of the split lists: {named}; it has {present}"
        )
    present_names = {name.lower() for clip in clips for name in (clip.label, *clip.path.split("/")[-2:-1])}
    classes = sorted({line.label for line in missing if line.label.lower() not in present_names})
    lacking = f" (no clip at all of the class{'es' * (len(classes) > 1)} {truncate_list(classes)})" if classes else ""
    return (
        f"the split lists name {format_count(len(missing), 'clip')} that SOURCE does not have{lacking}: {named}; "
        "give the whole data set, or add --set split_absent=ignore to use a part of it"
    )
