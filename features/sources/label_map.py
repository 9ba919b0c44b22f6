"""Label maps: a YAML file that renames, merges and drops the classes of SOURCE."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from logging import getLogger
from pathlib import Path

import yaml

from features.errors import SettingsError
from features.types import Clip
from features.utils.text import format_count, suggest_name, truncate_list

OTHER_CLASSES = "*"
"""Name that stands for every class without a line of its own."""

_DROP_VALUES = ("", "-", "~", "null", "Null", "NULL")
_EXPECTED_FORMAT = "expected one line per class: `old: new`, or `old: -` to drop it"
_UNQUOTED_SYMBOL = re.compile(r"^\*(?=[ \t]*:)|(?<=:[ \t])-(?=[ \t]*(?:#.*)?$)", re.MULTILINE)
"""`*` and `-` without the quotes that YAML requires around them."""

_log = getLogger(__name__)


def read_label_map(file: Path) -> dict[str, str]:
    """Return the new name by old name. An empty new name drops the class.

    All values are read as text, so that `no: yes` renames a class. Raises SettingsError that names the line.
    """
    try:
        tree = yaml.compose(_UNQUOTED_SYMBOL.sub(r"'\g<0>'", file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"label map {file} cannot be read: {getattr(error, 'strerror', error)}") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"label map {file} is not YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        raise SettingsError(f"label map {file} is empty; {_EXPECTED_FORMAT}")
    if not isinstance(tree, yaml.MappingNode):
        raise SettingsError(f"label map {file} holds no `old: new` lines; {_EXPECTED_FORMAT}")
    names: dict[str, str] = {}
    for key, value in tree.value:
        where = f"label map {file}, line {key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
            name = key.value if isinstance(key, yaml.ScalarNode) else "the key"
            raise SettingsError(
                f"{where}: '{name}' has more than one new name; {_EXPECTED_FORMAT}; "
                "several lines can have the same new name"
            )
        if key.value in names:
            raise SettingsError(f"{where}: '{key.value}' appears twice")
        names[key.value] = "" if value.value in _DROP_VALUES else value.value.strip()
    return names


def apply_label_map(clips: Sequence[Clip], names: Mapping[str, str], *, file: Path) -> list[Clip]:
    """Return the clips with their new labels, without those of dropped classes.

    Raises SettingsError if the map names classes that no clip has, changes nothing, or drops every clip.
    """
    before = Counter(clip.label for clip in clips if clip.label)
    if unknown := [name for name in names if name != OTHER_CLASSES and name not in before]:
        raise SettingsError(_describe_unknown_classes(unknown, sorted(before), file))
    new = {label: names.get(label, names.get(OTHER_CLASSES, label)) for label in before}
    if all(label == name for label, name in new.items()):
        raise SettingsError(f"label map {file} changes nothing: each class keeps its name; {_EXPECTED_FORMAT}")
    kept = [replace(clip, label=new.get(clip.label, "")) for clip in clips if not clip.label or new[clip.label]]
    if not kept:
        raise SettingsError(f"label map {file} drops all {format_count(len(clips), 'clip')}; keep at least one class")
    dropped = [label for label, name in new.items() if not name]
    dropped_text = f", {len(dropped)} dropped with {format_count(len(clips) - len(kept), 'clip')}" if dropped else ""
    after = len(set(new.values()) - {""})
    _log.info(
        "label map %s: %s of SOURCE become %d%s",
        file.name,
        format_count(len(new), "class", "classes"),
        after,
        dropped_text,
    )
    return kept


def _describe_unknown_classes(unknown: Sequence[str], present: Sequence[str], file: Path) -> str:
    if not present:
        return (
            f"label map {file} renames classes, but SOURCE has no labels; "
            "use class folders, or a manifest with a column 'label'"
        )
    hint = suggest_name(unknown[0], present)
    hint = hint if hint.startswith("did you mean") else f"SOURCE has {truncate_list(present)}"
    names = truncate_list([f"'{name}'" for name in unknown])
    count = format_count(len(unknown), "class", "classes")
    return f"label map {file} names {count} that SOURCE does not have: {names}; {hint}"
