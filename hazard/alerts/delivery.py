"""Delivery of alerts from the outbox to their receivers, with one thread and one process per channel.

The process makes one attempt at a time and is killed at the deadline, because nothing else stops a receiver that
answers byte by byte or a library that hangs. The thread keeps the order, waits between attempts and records results.
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
"""Longest time between two looks at the outbox, which `hazard alert-list --retry` may change from another process."""
STOP_TIMEOUT_SECONDS = 10.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeliveryJob:
    """The task of a delivery process: (channel name, alert) → None, or the reason why the attempt failed."""

    channels: tuple[ChannelSettings, ...]
    deadline_seconds: float

    def start(self) -> Callable[[tuple[str, Alert], Callable[[], None]], str | None]:
        """Prepare the process and return the function that makes one attempt."""
        logging.getLogger().addHandler(logging.NullHandler())  # the reason of a failure is returned, not logged here
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
            except Exception as error:  # any error of a library: the alert is kept and tried again
                return f"{type(error).__name__} in channel {channels[name].kind}"
            return None

        return attempt


@dataclass(frozen=True)
class RetrySchedule:
    """When a channel may be tried again. It belongs to the receiver, so it carries over from alert to alert."""

    failures: int = 0
    """Failures in a row."""
    retry_at: float = 0.0
    """Time of the next attempt, in seconds since 1970."""

    def after_attempt(
        self, is_delivered: bool, settings: AlertSettings, *, now: float, draw: Callable[[], float]
    ) -> "RetrySchedule":
        """Return the schedule after one more attempt: exponential backoff with full jitter.

        `draw` returns a random number from 0 to 1.
        """
        if is_delivered:
            return RetrySchedule()
        return RetrySchedule(self.failures + 1, now + draw() * max_wait_seconds(self.failures + 1, settings))

    def remaining_seconds(self, settings: AlertSettings, *, now: float) -> float:
        """Return the seconds left to wait, never more than the longest wait, even if the clock was set back."""
        return min(max(self.retry_at - now, 0.0), max_wait_seconds(self.failures, settings))


def max_wait_seconds(failures: int, settings: AlertSettings) -> float:
    """Return the longest wait in seconds after this number of failures in a row."""
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
    """Open an outbox and deliver its alerts while the block runs. Undelivered alerts stay on disk for the next run.

    `report` is called after each attempt, in the thread of the channel, with None or the reason of the failure.
    `preload` is for programs that also start other workers, see `features.utils.worker_pool`. Raises SettingsError if
    a channel cannot work, RuntimeEnvironmentError if the outbox cannot be used or another process delivers it.
    """
    check_channels(settings)
    lock = file.with_name(f"{file.name}.lock")  # two processes would send every alert twice
    busy_message = f"another process is delivering the alerts of {file}; stop it first"
    with open_outbox(file, settings, clock=clock) as outbox, hold_lock(lock, busy_message=busy_message):
        stop = threading.Event()
        senders = [
            ChannelSender(outbox, channel, settings, stop, clock, draw, preload, report)
            for channel in settings.channels
        ]
        threads = [
            threading.Thread(target=sender.run, name=f"alerts-{sender.channel.name}", daemon=True) for sender in senders
        ]
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
    """The thread that delivers the alerts of one channel, one after the other."""

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
    """Delivery of the attempt in progress."""
    unrecorded_delivery: Delivery | None = None
    """Delivery that succeeded but could not be recorded on disk. It must not be sent again."""

    def run(self) -> None:
        """Deliver alerts until `stop` is set."""
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
            except Exception as error:  # no process, no disk: the thread must go on
                facts = {"channel": self.channel.name, "reason": str(error) or type(error).__name__}
                log.error("alerts for %(channel)s cannot be delivered now: %(reason)s", facts, extra=facts)
                self.schedule = self.schedule.after_attempt(False, self.settings, now=self.clock(), draw=self.draw)
                self.stop.wait(max(self.schedule.remaining_seconds(self.settings, now=self.clock()), 0.1))

    def _iterate_due_alerts(self) -> Iterator[tuple[str, Alert]]:
        """Yield (channel name, alert) for each attempt, once it is due."""
        while not self.stop.is_set():
            change_count = self.outbox.change_count()
            delivery = self.outbox.next_pending(self.channel.name)
            wait = self.schedule.remaining_seconds(self.settings, now=self.clock())
            if delivery is not None and wait <= 0:
                self.current_delivery = delivery
                yield self.channel.name, delivery.alert
            elif delivery is None:
                self.outbox.wait_for_change(change_count, POLL_SECONDS)
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
            self._log(
                logging.ERROR,
                "alert %(alert)s: not delivered to %(channel)s, no further attempts: %(reason)s",
                delivery,
                reason,
            )
        else:
            text = "alert %(alert)s: not delivered to %(channel)s, will be tried again: %(reason)s"
            self._log(logging.WARNING, text, delivery, reason)
        self.report(delivery, reason)

    def _log(self, level: int, text: str, delivery: Delivery, reason: str | None = None) -> None:
        alert = delivery.alert
        facts: dict[str, object] = {"alert": alert.id, "camera": alert.camera, "channel": self.channel.name}
        facts |= {"kind": alert.kind, "label": alert.label, "failures": self.schedule.failures, "reason": reason}
        log.log(level, text, facts, extra=facts)


def try_each_channel(settings: AlertSettings, alert: Alert) -> Iterator[tuple[ChannelSettings, str | None, float]]:
    """Make one attempt at each channel. Yields the channel, None or the reason of a failure, and the seconds taken."""
    check_channels(settings)
    for channel in settings.channels:
        started = time.monotonic()
        job = DeliveryJob((channel,), settings.deadline_seconds)
        tasks = [(channel.name, alert)]
        for _, result in run_tasks(job, tasks, workers=1, deadline_seconds=settings.deadline_seconds):
            yield channel, failure_reason(result, settings.deadline_seconds), time.monotonic() - started


def failure_reason(result: object, deadline_seconds: float) -> str | None:
    """Return None for a delivered alert, otherwise the reason of the failure. The process itself may have been lost."""
    if isinstance(result, LostTask):
        is_late = result.reason.startswith("timeout")
        return f"no answer within {deadline_seconds:g} s" if is_late else "the delivery process crashed"
    return result if result is None else str(result)
