"""Alerts from the outbox to their receivers: a thread and a process for each channel.

The process makes one attempt at a time and is killed at the deadline, because nothing else ends a receiver that drips
or a library that hangs; the thread keeps the order, waits between attempts and writes down what came of each.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from features.utils.files import hold_lock
from features.utils.worker_pool import LostTask, run_tasks
from hazard.alerts.alert import Alert
from hazard.alerts.channels import CHANNELS, DeliveryError, check_channels, import_libraries
from hazard.alerts.outbox import Delivery, Outbox, open_outbox
from hazard.alerts.settings import AlertSettings, ChannelSettings

POLL_SECONDS = 60.0
"""However quiet: another process may have revived dead letters."""
STOP_TIMEOUT_SECONDS = 10.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeliveryJob:
    """What a delivering process does: (channel's name, alert) → None, or why the alert was not delivered."""

    channels: tuple[ChannelSettings, ...]
    deadline_seconds: float

    def start(self) -> Callable[[tuple[str, Alert], Callable[[], None]], str | None]:
        """The function that makes one attempt."""
        logging.getLogger().addHandler(logging.NullHandler())  # why an attempt failed is given back, not logged here
        logging.captureWarnings(True)
        channels = {channel.name: channel for channel in self.channels}
        for channel in self.channels:
            import_libraries(channel.kind)

        def attempt(task: tuple[str, Alert], alive: Callable[[], None]) -> str | None:
            name, alert = task
            try:
                CHANNELS[channels[name].kind](channels[name], alert, self.deadline_seconds)
            except DeliveryError as error:
                return str(error)
            except Exception as error:  # a library's own: whatever it is, the alert is kept and tried again
                return f"{type(error).__name__} in channel {channels[name].kind}"
            return None

        return attempt


@dataclass(frozen=True)
class RetrySchedule:
    """When a channel may be tried again. It is about the receiver, so it goes on from alert to alert."""

    failures: int = 0
    """In a row."""
    retry_at: float = 0.0
    """Seconds since 1970."""

    def after_attempt(
        self, is_delivered: bool, settings: AlertSettings, *, now: float, draw: Callable[[], float]
    ) -> "RetrySchedule":
        """The pace after one more attempt: exponential backoff with full jitter; `draw` gives 0 to 1."""
        if is_delivered:
            return RetrySchedule()
        return RetrySchedule(self.failures + 1, now + draw() * max_wait_seconds(self.failures + 1, settings))

    def remaining_seconds(self, settings: AlertSettings, *, now: float) -> float:
        """Seconds to wait yet: none too many where the clock was set back."""
        return min(max(self.retry_at - now, 0.0), max_wait_seconds(self.failures, settings))


def max_wait_seconds(failures: int, settings: AlertSettings) -> float:
    """Seconds that a wait after so many failures in a row may last."""
    doubled = settings.first_retry_seconds * 2.0 ** min(failures - 1, 60)
    return min(doubled, settings.longest_retry_seconds) if failures else 0.0


@contextmanager
def deliver_alerts(
    file: Path,
    settings: AlertSettings,
    *,
    clock: Callable[[], float] = time.time,
    draw: Callable[[], float] = random.random,
    preload: Sequence[str] = (),
    report: Callable[[Delivery, str | None], None] = lambda delivery, reason: None,
) -> Iterator[Outbox]:
    """An outbox whose alerts are delivered while the block runs; what is left then stays on disk for the next time.

    `report` is told of each attempt, by a thread of the channel's: None, or why it failed. `preload` is for whoever
    also starts other workers, see `features.utils.worker_pool`. Raises SettingsError for a channel that cannot work,
    EnvironmentStopped where the outbox cannot be used or another process delivers it.
    """
    check_channels(settings)
    lock = file.with_name(f"{file.name}.lock")  # two processes that deliver one outbox would send everything twice
    said = f"the alerts of {file} are being delivered by another process; stop it first"
    with open_outbox(file, settings, clock=clock) as outbox, hold_lock(lock, busy_message=said):
        stop = threading.Event()
        crew = [
            ChannelSender(outbox, channel, settings, stop, clock, draw, preload, report)
            for channel in settings.channels
        ]
        threads = [threading.Thread(target=one.run, name=f"alerts-{one.channel.name}", daemon=True) for one in crew]
        outbox.prune()
        for thread in threads:
            thread.start()
        try:
            yield outbox
        finally:
            stop.set()
            outbox.notify_waiting()
            for thread in threads:
                thread.join(STOP_TIMEOUT_SECONDS)


@dataclass
class ChannelSender:
    """Delivers the alerts of one channel, one after the other."""

    outbox: Outbox
    channel: ChannelSettings
    settings: AlertSettings
    stop: threading.Event
    clock: Callable[[], float]
    draw: Callable[[], float]
    preload: Sequence[str]
    report: Callable[[Delivery, str | None], None]
    schedule: RetrySchedule = RetrySchedule()
    current_delivery: Delivery | None = None
    """What is being attempted."""
    unrecorded_delivery: Delivery | None = None
    """What the receiver has and the disk would not take down: it must not be sent again."""

    def run(self) -> None:
        """Until `stop` is set."""
        while not self.stop.is_set():
            try:
                self._record_delivered()
                for _, result in run_tasks(
                    DeliveryJob((self.channel,), self.settings.deadline_seconds),
                    self._iterate_due_alerts(),
                    workers=1,
                    deadline_seconds=self.settings.deadline_seconds,
                    is_stopped=self.stop.is_set,
                    preload=self.preload,
                ):
                    self._record_result(failure_reason(result, self.settings.deadline_seconds))
            except Exception as error:  # no process, no disk, whatever: nothing may end it for good
                facts = {"channel": self.channel.name, "reason": str(error) or type(error).__name__}
                log.error("alerts for %(channel)s wait: %(reason)s", facts, extra=facts)
                self.schedule = self.schedule.after_attempt(False, self.settings, now=self.clock(), draw=self.draw)
                self.stop.wait(max(self.schedule.remaining_seconds(self.settings, now=self.clock()), 0.1))

    def _iterate_due_alerts(self) -> Iterator[tuple[str, Alert]]:
        """What is to be attempted, each once its time has come."""
        while not self.stop.is_set():
            news = self.outbox.change_count()
            delivery = self.outbox.next_pending(self.channel.name)
            wait = self.schedule.remaining_seconds(self.settings, now=self.clock())
            if delivery is not None and wait <= 0:
                self.current_delivery = delivery
                yield self.channel.name, delivery.alert
            elif delivery is None:
                self.outbox.wait_for_change(news, POLL_SECONDS)
            else:
                self.stop.wait(wait)

    def _record_delivered(self) -> None:
        if self.unrecorded_delivery is not None:
            self.outbox.mark_delivered(self.unrecorded_delivery)
            self.unrecorded_delivery = None

    def _record_result(self, reason: str | None) -> None:
        delivery = self.current_delivery
        assert delivery is not None
        self.schedule = self.schedule.after_attempt(reason is None, self.settings, now=self.clock(), draw=self.draw)
        if reason is None:
            self.unrecorded_delivery = delivery
            self._record_delivered()
            self._log(logging.INFO, "alert %(alert)s: delivered to %(channel)s", delivery)
        elif self.outbox.record_failure(delivery, reason):
            self._log(logging.ERROR, "alert %(alert)s: given up for %(channel)s: %(reason)s", delivery, reason)
        else:
            said = "alert %(alert)s: not yet delivered to %(channel)s: %(reason)s"
            self._log(logging.WARNING, said, delivery, reason)
        self.report(delivery, reason)

    def _log(self, level: int, text: str, delivery: Delivery, reason: str | None = None) -> None:
        alert = delivery.alert
        facts: dict[str, object] = {"alert": alert.id, "camera": alert.camera, "channel": self.channel.name}
        facts |= {"kind": alert.kind, "label": alert.label, "failures": self.schedule.failures, "reason": reason}
        log.log(level, text, facts, extra=facts)


def try_each_channel(settings: AlertSettings, alert: Alert) -> Iterator[tuple[ChannelSettings, str | None, float]]:
    """One attempt at each channel, as they come: the channel, None or why it failed, and how many seconds it took."""
    check_channels(settings)
    for channel in settings.channels:
        began = time.monotonic()
        job = DeliveryJob((channel,), settings.deadline_seconds)
        tasks = [(channel.name, alert)]
        for _, result in run_tasks(job, tasks, workers=1, deadline_seconds=settings.deadline_seconds):
            yield channel, failure_reason(result, settings.deadline_seconds), time.monotonic() - began


def failure_reason(result: object, deadline_seconds: float) -> str | None:
    """What came of an attempt, of whose process perhaps nothing is left."""
    if isinstance(result, LostTask):
        is_late = result.reason.startswith("timeout")
        return f"no answer within {deadline_seconds:g} s" if is_late else "the process that sent it crashed"
    return result if result is None else str(result)
