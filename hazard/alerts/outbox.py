"""The outbox: alerts that wait on disk until they are delivered, channel by channel and in order.

It is a SQLite file in WAL mode. A transaction is on disk when `put` or `record_failure` returns, so a process that is
killed loses nothing. An alert is stored once; one row per channel holds the state of its delivery.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from features.errors import RuntimeEnvironmentError
from hazard.alerts.alert import Alert, dump_alert, parse_alert
from hazard.alerts.settings import AlertSettings
from hazard.alerts.webhooks import webhook_id

PRUNE_INTERVAL_SECONDS = 3600.0
BUSY_TIMEOUT_SECONDS = 5.0
MAX_DEAD_LETTERS = 10_000
"""Largest number of dead letters. Older ones are deleted."""
_DAY_SECONDS = 86400.0
_SCHEMA = """
create table if not exists alerts (key text primary key, put real not null, alert text not null) without rowid;
create table if not exists deliveries (
    number integer primary key autoincrement, key text not null, channel text not null, state text not null,
    attempts integer not null, changed real not null, reason text not null, unique (key, channel)
);
create index if not exists waiting on deliveries (channel, number) where state = 'pending';
create index if not exists settled on deliveries (state, changed);
"""
_SELECT_DELIVERIES = """
select number, channel, state, attempts, put, changed, reason, alert
from deliveries join alerts using (key) where {} order by number limit ?
"""


@dataclass(frozen=True)
class Delivery:
    """One alert on its way to one channel."""

    number: int
    channel: str
    state: str  # pending | done | dead
    attempts: int
    """Failed attempts so far."""
    queued_at: float  # seconds since 1970
    changed_at: float  # seconds since 1970
    reason: str
    """Reason of the last failure."""
    alert: Alert


class Outbox:
    """An open outbox, see `open_outbox`. It is safe to use from any thread."""

    def __init__(
        self, database: sqlite3.Connection, file: Path, settings: AlertSettings, clock: Callable[[], float]
    ) -> None:
        self._database, self._file, self._settings, self._clock = database, file, settings, clock
        self._lock = threading.RLock()
        self._changed = threading.Condition()
        self._change_count = 0
        self._last_pruned = clock()

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that each alert is queued for."""
        return tuple(channel.name for channel in self._settings.channels)

    def put(self, alert: Alert) -> bool:
        """Queue an alert for all channels. Returns False if its id is already known.

        The alert is on disk when this returns. No receiver is waited for. Raises RuntimeEnvironmentError if the file
        cannot be written.
        """
        key, now = webhook_id(alert.id), self._clock()
        with self._transaction() as database:
            row = (key, now, dump_alert(alert))
            is_new = database.execute("insert or ignore into alerts values (?, ?, ?)", row).rowcount > 0
            if is_new:
                database.executemany(
                    "insert into deliveries (key, channel, state, attempts, changed, reason) "
                    "values (?, ?, 'pending', 0, ?, '')",
                    [(key, channel, now) for channel in self.channels],
                )
        if not 0 <= now - self._last_pruned < PRUNE_INTERVAL_SECONDS:
            self.prune()
        self.notify_waiting()
        return is_new

    def next_pending(self, channel: str) -> Delivery | None:
        """Return the oldest alert of a channel that is neither delivered nor a dead letter."""
        return next(self._select_deliveries("channel = ? and state = 'pending'", channel, limit=1), None)

    def mark_delivered(self, delivery: Delivery) -> None:
        """Record that the receiver has the alert. It is never sent again."""
        self._update_delivery(delivery, "done", delivery.attempts, "")

    def record_failure(self, delivery: Delivery, reason: str) -> bool:
        """Record a failed attempt. Returns True if it was the last one and the alert is now a dead letter."""
        attempts = delivery.attempts + 1
        is_old = self._clock() - delivery.queued_at > self._settings.max_age_hours * 3600
        is_dead = is_old or attempts >= self._settings.attempts
        self._update_delivery(delivery, "dead" if is_dead else "pending", attempts, reason)
        return is_dead

    def list_pending(self, *, limit: int = 1000) -> list[Delivery]:
        """Return the pending deliveries, oldest first."""
        return list(self._select_deliveries("state = 'pending'", limit=limit))

    def list_dead_letters(self, *, limit: int = 1000) -> list[Delivery]:
        """Return the dead letters, oldest first."""
        return list(self._select_deliveries("state = 'dead'", limit=limit))

    def count_by_state(self) -> dict[str, int]:
        """Return the number of deliveries by state: pending, done and dead."""
        with self._transaction() as database:
            rows = database.execute("select state, count(*) from deliveries group by state").fetchall()
        return {"pending": 0, "done": 0, "dead": 0} | dict(rows)

    def retry_dead_letters(self) -> int:
        """Make all dead letters pending again, in their old order. Returns their number."""
        with self._transaction() as database:
            sql = "update deliveries set state = 'pending', attempts = 0, changed = ? where state = 'dead'"
            count = database.execute(sql, (self._clock(),)).rowcount
        self.notify_waiting()
        return count

    def prune(self) -> None:
        """Delete old delivered alerts and dead letters.

        Old alerts for a channel that is no longer in the settings become dead letters.
        """
        now = self._last_pruned = self._clock()
        settings, names = self._settings, self.channels
        gone = f"state = 'pending' and channel not in ({', '.join('?' * len(names))})"
        with self._transaction() as database:
            database.execute(
                f"update deliveries set state = 'dead', changed = ?, reason = 'no such channel any more' where {gone} "
                "and key in (select key from alerts where put < ?)",
                (now, *names, now - settings.max_age_hours * 3600),
            )
            database.execute(
                "delete from deliveries where state = 'dead' and (changed < ? or number <= "
                "(select number from deliveries where state = 'dead' order by number desc limit 1 offset ?))",
                (now - settings.keep_dead_days * _DAY_SECONDS, MAX_DEAD_LETTERS),
            )
            since = now - settings.keep_days * _DAY_SECONDS
            database.execute("delete from deliveries where state = 'done' and changed < ?", (since,))
            database.execute("delete from alerts where put < ? and key not in (select key from deliveries)", (since,))

    def change_count(self) -> int:
        """Return a number that grows with each change, for `wait_for_change`."""
        with self._changed:
            return self._change_count

    def wait_for_change(self, change_count: int, seconds: float | None) -> None:
        """Wait until `change_count()` differs from the given one, at most `seconds` (None: without limit)."""
        with self._changed:
            self._changed.wait_for(lambda: self._change_count != change_count, seconds)

    def notify_waiting(self) -> None:
        """Wake up all threads that wait for a change."""
        with self._changed:
            self._change_count += 1
            self._changed.notify_all()

    def wait_until_empty(self, seconds: float) -> bool:
        """Wait until no alert is pending for these channels, at most `seconds`. Returns whether none is."""
        deadline = time.monotonic() + seconds
        while True:
            change_count = self.change_count()
            if all(self.next_pending(channel) is None for channel in self.channels):
                return True
            if (left := deadline - time.monotonic()) <= 0:
                return False
            self.wait_for_change(change_count, left)

    def _update_delivery(self, delivery: Delivery, state: str, attempts: int, reason: str) -> None:
        with self._transaction() as database:
            database.execute(
                "update deliveries set state = ?, attempts = ?, changed = ?, reason = ? where number = ?",
                (state, attempts, self._clock(), reason, delivery.number),
            )
        self.notify_waiting()

    def _select_deliveries(self, condition: str, *values: str, limit: int) -> Iterator[Delivery]:
        with self._transaction() as database:
            rows = database.execute(_SELECT_DELIVERIES.format(condition), (*values, limit)).fetchall()
        names = ("number", "channel", "state", "attempts", "queued_at", "changed_at", "reason")
        for *columns, alert in rows:
            yield Delivery(**dict(zip(names, columns, strict=True)), alert=parse_alert(alert))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _translate_errors(self._file), self._database:  # commits, or rolls back
            yield self._database


@contextmanager
def open_outbox(file: Path, settings: AlertSettings, *, clock: Callable[[], float] = time.time) -> Iterator[Outbox]:
    """Open the outbox of a file, and create it if it does not exist. Raises RuntimeEnvironmentError if that fails."""
    with _translate_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        database = _connect(file)
    try:
        yield Outbox(database, file, settings, clock)
    finally:
        database.close()


def _connect(file: Path) -> sqlite3.Connection:
    database = sqlite3.connect(file, timeout=BUSY_TIMEOUT_SECONDS, check_same_thread=False)
    try:
        file.chmod(0o600)  # it holds what cameras saw
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = full")
        database.execute("pragma journal_size_limit = 1000000")
        database.executescript(_SCHEMA)
    except BaseException:
        database.close()
        raise
    return database


@contextmanager
def _translate_errors(file: Path) -> Iterator[None]:
    """Turn errors of the database and the disk into a RuntimeEnvironmentError of one line."""
    try:
        yield
    except sqlite3.Error as error:
        advice = "move it away" if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error) else ""
        raise RuntimeEnvironmentError(
            f"outbox {file} cannot be used: {error}; {advice or 'free some space or fix its permissions'}"
        ) from error
    except OSError as error:
        raise RuntimeEnvironmentError(f"outbox {file} cannot be written: {error.strerror or error}") from error
