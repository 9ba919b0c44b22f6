import math
from dataclasses import asdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hazard.events.rule import (
    INITIAL_STATE,
    EventRule,
    EventSegment,
    EventState,
    find_events,
    finish_event,
    ongoing_event,
    update_state,
)

RULE = EventRule("fight", 0, on_threshold=0.6, off_threshold=0.3)


def windows(*probabilities, length=1.0, stride=1.0):
    spans = [(i * stride, i * stride + length) for i in range(len(probabilities))]
    return spans, [(p, 1 - p) for p in probabilities]


def found(rule, *probabilities, **layout):
    return [(event.start, event.end) for event in find_events(rule, *windows(*probabilities, **layout))]


def test_an_event_begins_above_one_threshold_and_ends_below_the_other():
    assert found(RULE, 0.5, 0.6, 0.4, 0.3, 0.2, 0.5, 0.9) == [(1, 4), (6, 7)]


def test_its_figures_are_those_of_its_windows():
    (event,) = find_events(RULE, *windows(0.1, 0.6, 0.9, 0.3, 0.1))
    assert (event.label, event.start, event.end, event.peak) == ("fight", 1, 4, 0.9)
    assert event.mean == pytest.approx(0.6)


def test_overlapping_windows_make_one_event():
    assert found(RULE, 0.1, 0.9, 0.9, 0.1, 0.1, 0.1, length=2, stride=0.5) == [(0.5, 3)]


def test_short_events_are_dropped_and_close_ones_are_joined():
    short = EventRule("fight", 0, on_threshold=0.6, off_threshold=0.3, min_seconds=1.5)
    assert found(short, 0.9, 0.1, 0.1, 0.9, 0.9) == [(3, 5)]
    joined = EventRule("fight", 0, on_threshold=0.6, off_threshold=0.3, merge_seconds=1)
    assert found(joined, 0.9, 0.1, 0.9, 0.1, 0.1, 0.9) == [(0, 3), (5, 6)]


def test_after_an_event_there_is_quiet():
    calm = EventRule("fight", 0, on_threshold=0.6, off_threshold=0.3, cooldown_seconds=3)
    assert found(calm, 0.9, 0.1, 0.9, 0.1, 0.9, 0.9) == [(0, 1), (4, 6)]


def test_an_event_is_under_way_once_it_is_long_enough():
    rule = EventRule("fight", 0, on_threshold=0.6, off_threshold=0.3, min_seconds=2)
    state, seen = INITIAL_STATE, []
    for span, probs in zip(*windows(0.9, 0.9, 0.9), strict=True):
        state, _ = update_state(rule, state, span, probs)
        seen.append(ongoing_event(rule, state) is not None)
    assert seen == [False, True, True]


def test_a_rule_is_stored_under_the_names_that_files_have() -> None:
    rule = EventRule(
        "fight", 1, on_threshold=0.6, off_threshold=0.3, min_seconds=1, merge_seconds=2, cooldown_seconds=3
    )
    stored = rule.to_json()
    assert list(stored) == ["label", "column", "enter", "leave", "min_seconds", "merge_seconds", "cooldown_seconds"]
    assert list(stored.values()) == ["fight", 1, 0.6, 0.3, 1, 2, 3]
    assert EventRule.from_json(stored) == rule


@pytest.mark.parametrize(
    "changes",
    [
        {"off_threshold": 0.7},
        {"on_threshold": 1.2},
        {"off_threshold": 0},
        {"min_seconds": -1},
        {"merge_seconds": math.nan},
    ],
)
def test_what_makes_no_rule(changes):
    with pytest.raises(ValueError, match="expected"):
        EventRule(**{"label": "fight", "column": 0, "on_threshold": 0.6, "off_threshold": 0.3} | changes)


def test_windows_out_of_order_are_refused():
    with pytest.raises(ValueError, match="in the order"):
        find_events(RULE, [(1, 2), (0, 1)], [(0.5, 0.5)] * 2)


SECONDS = st.floats(0, 5).map(lambda value: round(value, 2))
RULES = st.builds(
    lambda high, low, shortest, gap, calm: EventRule("x", 0, max(high, low), min(high, low), shortest, gap, calm),
    st.floats(0.05, 1),
    st.floats(0.05, 1),
    SECONDS,
    SECONDS,
    SECONDS,
)
PROBABILITIES = st.lists(st.floats(0, 1), max_size=60)
LAYOUTS = st.tuples(st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([0.25, 0.5, 1.0, 3.0]))


@given(RULES, PROBABILITIES, LAYOUTS)
def test_live_and_report_give_the_same_events(rule, probabilities, layout):
    """In the live case the state is stored and restored after every window, as at a restart."""
    spans, probs = windows(*probabilities, length=layout[0], stride=layout[1])
    state, live = INITIAL_STATE, []
    for span, row in zip(spans, probs, strict=True):
        state, ended = update_state(rule, state, span, row)
        live += ended
        kept = asdict(state)
        state = EventState(**kept | {"segment": kept["segment"] and EventSegment(**kept["segment"])})
    assert [*live, *finish_event(rule, state)] == find_events(rule, spans, probs)


@given(RULES, PROBABILITIES, LAYOUTS)
def test_events_keep_to_the_rule(rule, probabilities, layout):
    spans, probs = windows(*probabilities, length=layout[0], stride=layout[1])
    events = find_events(rule, spans, probs)
    for event in events:
        inside = [p for (a, b), p in zip(spans, probabilities, strict=True) if event.start <= a and b <= event.end]
        assert event.end - event.start >= rule.min_seconds
        assert max(inside) >= event.peak >= rule.on_threshold and rule.off_threshold <= event.mean + 1e-9
    for one, other in pairwise(events):
        assert other.start > one.end + rule.merge_seconds and other.start >= one.end + rule.cooldown_seconds


@given(PROBABILITIES, LAYOUTS)
def test_with_nothing_dropped_every_high_window_is_in_an_event(probabilities, layout):
    spans, probs = windows(*probabilities, length=layout[0], stride=layout[1])
    events = find_events(RULE, spans, probs)
    for (start, end), probability in zip(spans, probabilities, strict=True):
        covered = any(event.start <= start and end <= event.end for event in events)
        assert covered or probability < RULE.on_threshold
