"""The outbox: what it stores, for how long, and when an alert becomes a dead letter."""

import sqlite3

import pytest

from features.errors import RuntimeEnvironmentError
from hazard.alerts.delivery import RetrySchedule, max_wait_seconds
from hazard.alerts.outbox import MAX_DEAD_LETTERS, open_outbox
from tests.helpers.servers.receivers import make_alert, make_alert_settings

A, B = "http://127.0.0.1:1/a", "http://127.0.0.1:1/b"
DAY = 86400.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def outbox(tmp_path, clock):
    with open_outbox(tmp_path / "out" / "box.sqlite", make_alert_settings(A, B, attempts=3), clock=clock) as opened:
        yield opened


def waiting(outbox, channel="hook0"):
    delivery = outbox.next_pending(channel)
    return None if delivery is None else delivery.alert.id


def test_an_id_that_is_known_is_not_sent_again(outbox, tmp_path):
    assert outbox.put(make_alert(1))
    assert not outbox.put(make_alert(1, probability=0.5))
    for channel in outbox.channels:
        outbox.mark_delivered(outbox.next_pending(channel))
    assert not outbox.put(make_alert(1))
    assert outbox.count_by_state() == {"pending": 0, "done": 2, "dead": 0}
    assert not (tmp_path / "out" / "box.sqlite").stat().st_mode & 0o077


def test_what_was_put_is_there_after_a_restart(tmp_path):
    for number in range(3):
        with open_outbox(tmp_path / "box", make_alert_settings(A)) as outbox:
            outbox.put(make_alert(number))
    with open_outbox(tmp_path / "box", make_alert_settings(A)) as outbox:
        assert [one.alert for one in outbox.list_pending()] == [make_alert(number) for number in range(3)]


def test_each_channel_has_an_order_of_its_own(outbox):
    for number in range(2):
        outbox.put(make_alert(number))
    outbox.record_failure(outbox.next_pending("hook0"), "busy")
    outbox.mark_delivered(outbox.next_pending("hook1"))
    assert waiting(outbox, "hook0") == "hall/event/0"
    assert waiting(outbox, "hook1") == "hall/event/1"


def test_after_enough_attempts_an_alert_is_a_dead_letter_and_the_next_has_its_turn(outbox):
    outbox.put(make_alert(0))
    outbox.put(make_alert(1))
    assert [outbox.record_failure(outbox.next_pending("hook0"), f"error {i}") for i in range(3)] == [False, False, True]
    assert waiting(outbox) == "hall/event/1"
    (dead,) = outbox.list_dead_letters()
    assert (dead.alert, dead.reason, dead.attempts) == (make_alert(0), "error 2", 3)
    assert outbox.retry_dead_letters() == 1
    assert waiting(outbox) == "hall/event/0"


def test_an_old_alert_is_tried_once_more_before_it_is_given_up(outbox, clock):
    outbox.put(make_alert(0))
    clock.now += 2 * DAY
    outbox.prune()
    assert waiting(outbox) == "hall/event/0"
    assert outbox.record_failure(outbox.next_pending("hook0"), "away")


def test_what_waits_for_a_channel_that_is_gone_ends_as_a_dead_letter(outbox, tmp_path, clock):
    outbox.put(make_alert(0))
    clock.now += 2 * DAY
    with open_outbox(tmp_path / "out" / "box.sqlite", make_alert_settings(A), clock=clock) as other:
        other.prune()
        assert [one.channel for one in other.list_pending()] == ["hook0"]
        assert [(one.channel, one.reason) for one in other.list_dead_letters()] == [
            ("hook1", "no such channel any more")
        ]


def test_delivered_alerts_are_forgotten_after_some_days(outbox, tmp_path, clock):
    outbox.put(make_alert(0))
    for channel in outbox.channels:
        outbox.mark_delivered(outbox.next_pending(channel))
    clock.now += 6 * DAY
    assert not outbox.put(make_alert(0))
    clock.now += 2 * DAY
    outbox.put(make_alert(1))
    assert outbox.count_by_state() == {"pending": 2, "done": 0, "dead": 0}
    assert rows(tmp_path, "alerts") == 1


def test_an_alert_that_one_channel_still_waits_for_is_kept_whole(outbox, tmp_path, clock):
    outbox.put(make_alert(0))
    outbox.mark_delivered(outbox.next_pending("hook1"))
    clock.now += 20 * DAY
    outbox.prune()
    assert not outbox.put(make_alert(0))
    assert waiting(outbox) == "hall/event/0"
    assert waiting(outbox, "hook1") is None


def test_dead_letters_are_bounded(tmp_path, clock):
    with open_outbox(tmp_path / "box", make_alert_settings(A, attempts=1), clock=clock) as outbox:
        for number in range(3):
            outbox.put(make_alert(number))
            outbox.record_failure(outbox.next_pending("hook0"), "no")
        file = sqlite3.connect(tmp_path / "box")
        with file:
            file.executemany(
                "insert into deliveries (key, channel, state, attempts, changed, reason) "
                f"values (?, 'gone', 'dead', 1, {clock.now}, '')",
                [(f"k{number}",) for number in range(MAX_DEAD_LETTERS - 1)],
            )
        outbox.prune()
        assert outbox.count_by_state()["dead"] == MAX_DEAD_LETTERS
        assert [one.alert.id for one in outbox.list_dead_letters(limit=5)] == ["hall/event/2"]
        clock.now += 31 * DAY
        outbox.prune()
        assert outbox.count_by_state()["dead"] == 0
    assert rows(tmp_path, "alerts", "box") == 0


def rows(folder, table, name="out/box.sqlite"):
    file = sqlite3.connect(folder / name)
    try:
        return file.execute(f"select count(*) from {table}").fetchone()[0]
    finally:
        file.close()


def test_what_is_no_outbox_is_one_line(tmp_path):
    (tmp_path / "box").write_text("nothing of the kind, but long enough to be looked at " * 20)
    with (
        pytest.raises(RuntimeEnvironmentError, match="box cannot be used: file is not a database"),
        open_outbox(tmp_path / "box", make_alert_settings(A)),
    ):
        pass


def test_waits_double_with_full_jitter_up_to_the_longest():
    settings = make_alert_settings(A, first_retry_seconds=1, longest_retry_seconds=60)
    assert [max_wait_seconds(k, settings) for k in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    schedule = RetrySchedule()
    for expected in (0.5, 1.0, 2.0, 4.0):
        schedule = schedule.after_attempt(False, settings, now=100.0, draw=lambda: 0.5)
        assert schedule.remaining_seconds(settings, now=100.0) == expected
    assert schedule.remaining_seconds(settings, now=0.0) == 8.0  # a clock that was set back
    assert (
        schedule.after_attempt(False, settings, now=100.0, draw=lambda: 0.0).remaining_seconds(settings, now=100.0) == 0
    )
    assert schedule.after_attempt(True, settings, now=100.0, draw=lambda: 0.5) == RetrySchedule()
    assert max_wait_seconds(10_000, settings) == 60
