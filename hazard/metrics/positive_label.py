"""Label names → the label that alarms are for: hazard words first, then harmless words, then a guess.

A name is read as words: `NonFight`, `non_fight` and `non-fight` are all "non fight". Words and their endings are
English.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["hazard", "harmless", "unknown"]

_NEGATION = re.compile(r"no|non|not|without|never|lacks?|lacking|absence|absent")

_HAZARD = re.compile(
    # violence and crime
    r"fight\w*|fought|violen\w*|violan\w*|assault\w*|attack\w*|aggress\w*|hostil\w*|punch\w*|kick\w*|slap\w*|beat(en|ing)"
    r"|hit(s|ting)?|stab(s|bed|bing)?|shoot\w*|gun\w*|weapon\w*|kni(fe|ves)|armed|rob(s|bed|bing|ber\w*)|burgl\w*"
    r"|st(eal|eals|ealing|ole|olen)|thef\w*|(thief|thieves)\w*|shoplift\w*|loot\w*|vandal\w*|abus\w*|harass\w*|bull(y|ies|ied|ying)"
    r"|threat\w*|intru\w*|trespass\w*|riot\w*|brawl\w*|kidnap\w*|abduct\w*|murder\w*|kill\w*|homicid\w*|suicid\w*"
    r"|arrest\w*|crim(e|es|inal\w*)|illegal\w*|violat\w*"
    # falls and illness
    r"|fall(s|en|ing|ed|er|ers|down)?|fell|slip(s|ped|ping)?|stumbl\w*|trip(ped|ping)|collapse(s|d)?|collapsing|faint\w*|seizure\w*|convuls\w*|chok\w*"
    r"|drown\w*|injur\w*|hurt\w*|wound\w*|bleed\w*|unconscious\w*|drows\w*"
    # accidents
    r"|accident\w*|crash\w*|collid\w*|collision\w*|overturn\w*|incident\w*|emergenc\w*|distress\w*|panic\w*|stampede\w*"
    # fire and damage
    r"|fires?|wildfires?|flam(e|es|ing)|arson\w*|burn(s|ed|t|ing)?|smok(e|es|ed|ing|y)|explo(d|s)\w*|blast\w*|bomb\w*|flood(s|ed|ing)?"
    r"|leak\w*|spill\w*|damag\w*|broken|defect\w*|fault\w*|fail\w*|error\w*"
    # the words themselves
    r"|hazard\w*|danger\w*|unsafe\w*|risk\w*|threaten\w*|abnormal\w*|anomal\w*|unusual\w*|irregular\w*|atypical\w*|suspicious\w*"
    r"|outliers?|unhealthy|unstable|unprotected|alarm\w*|alert\w*|warning\w*|critical\w*|bad|positives?|pos|yes|true"
)

_HARMLESS = re.compile(
    r"normal\w*|none|safe|safely|negatives?|neg|false|background\w*|neutral|ok|okay|usual|usually|harmless|benign"
    r"|unharmed|unhurt|uninjured|unarmed|uneventful"
)
"""Words that make a name harmless, whatever hazard it names: `fall_negative`, `false alarm`."""

_CALM = re.compile(
    r"others?|nothing|nobody|empty|idle|adls?|daily|everyday|ordinary|regular|routine|typical|calm\w*|peace\w*|healthy|stable"
    r"|protected|compliant|compliance|safety|helmets?|hardhats?|masks?|vests?|ppe|seatbelts?|gloves?|goggles"
)
"""Words that make a name harmless if it names no hazard; a name that denies one of them is a hazard: `no_helmet`."""

_PART = re.compile(r"\d+|[^\W\d_]+")
_CASE_BOUNDARY = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_COMPOUND_NEGATION = re.compile(r"(non|not|no)(\w+)")
_COMPOUND_HAZARD = re.compile(r"\w+(fights?|violence|accidents?|crash(es)?|assaults?|robbery|explosions?|theft|abuse)")


@dataclass(frozen=True)
class PositiveLabel:
    """The label that alarms are for."""

    label: str
    is_known: bool
    """False if the names do not tell which label that is, so that `label` is only the last in sorted order."""


def find_positive(labels: Sequence[str]) -> PositiveLabel:
    """Return the label that alarms are for.

    It is the label that names a hazard, else the one that does not sound harmless. Of several such labels it is the
    last in sorted order; then it is not known.
    """
    kinds = {label: _judge_words(words) for label, words in zip(labels, _read_words(labels), strict=True)}
    hazards = [label for label in labels if kinds[label] == "hazard"]
    candidates = hazards or [label for label in labels if kinds[label] != "harmless"]
    return PositiveLabel(sorted(candidates or labels)[-1], is_known=len(candidates) == 1)


def is_harmless(label: str) -> bool:
    """Return whether the name of a label says that no alarm is for it, such as `normal` or `NonFight`."""
    (words,) = _read_words([label])
    return _judge_words(words) == "harmless"


def _read_words(labels: Sequence[str]) -> list[list[str]]:
    """Return the lower-case words of each label.

    Numbers are left out, unless the labels differ in nothing but 0 and 1: these become "no" and "yes".
    """
    parts = [[part.lower() for part in _PART.findall(_CASE_BOUNDARY.sub(" ", label))] for label in labels]
    words = [[part for part in name if not part.isdecimal()] for name in parts]
    numbers = [[int(part) for part in name if part.isdecimal()] for name in parts]
    if all(name == words[0] for name in words) and sorted(numbers) == [[0], [1]]:
        return [[*name, "yes" if number == [1] else "no"] for name, number in zip(words, numbers, strict=True)]
    return words


def _judge_words(words: Sequence[str]) -> Kind:
    """Return what a name of these words says; a negation turns around what the rest of the name says."""
    words = [part for word in words for part in _split_compound(word)]
    is_negated, is_hazard, is_harmless, is_calm = (
        any(pattern.fullmatch(word) for word in words) for pattern in (_NEGATION, _HAZARD, _HARMLESS, _CALM)
    )
    is_negated = is_negated or (len(words) > 1 and words[-1] == "free")  # "violence free", but not "free fall"
    if is_negated:
        return "hazard" if (is_harmless or is_calm) and not is_hazard else "harmless"
    if is_harmless:
        return "harmless"
    if is_hazard or any(_COMPOUND_HAZARD.fullmatch(word) for word in words):
        return "hazard"
    return "harmless" if is_calm else "unknown"


def _split_compound(word: str) -> tuple[str, ...]:
    """Split `nofight` and `nonsafe`, but not `nosebleed`: the rest must be a word that is known."""
    compound = None if _is_known(word) else _COMPOUND_NEGATION.fullmatch(word)
    return compound.groups() if compound and _is_known(compound[2]) else (word,)


def _is_known(word: str) -> bool:
    return any(pattern.fullmatch(word) for pattern in (_NEGATION, _HAZARD, _HARMLESS, _CALM))
