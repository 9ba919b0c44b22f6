"""Delivery to local receivers that hang, answer byte by byte, fail or redirect; delivery after the process was killed.

Rows 44 and 45 of the fault table.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from features.errors import RuntimeEnvironmentError
from features.utils.worker_pool import LostTask
from hazard.alerts.delivery import deliver_alerts, failure_reason, try_each_channel
from hazard.alerts.outbox import Outbox, open_outbox
from hazard.alerts.webhooks import WebhookVerificationError, verify, webhook_id
from hazard.cli.main import hazard
from tests.helpers.paths import ROOT
from tests.helpers.servers.receivers import SECRET, WAIT_SECONDS, make_alert, make_alert_settings, run_receiver


@dataclass
class Attempts:
    """The attempts that `deliver_alerts` reports, and a way to wait for them."""

    all: list = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, delivery, reason):
        with self.news:
            self.all.append((delivery.channel, delivery.alert.id, reason))
            self.news.notify_all()

    def wait_for(self, is_there):
        with self.news:
            assert self.news.wait_for(lambda: is_there(self.all), WAIT_SECONDS)


def ids(*numbers):
    return [webhook_id(make_alert(number).id) for number in numbers]


def test_a_bad_receiver_loses_nothing_and_keeps_the_order(tmp_path):
    attempts = Attempts()
    with run_receiver(["hang", "drip", 500, 302]) as receiver:
        with deliver_alerts(
            tmp_path / "box", make_alert_settings(receiver.url, deadline_seconds=1), report=attempts
        ) as outbox:
            for number in range(20):
                assert outbox.put(make_alert(number))
            assert outbox.wait_until_empty(WAIT_SECONDS)
            assert outbox.count_by_state() == {"pending": 0, "done": 20, "dead": 0}
        assert receiver.ids() == ids(*range(20))
        assert [one.headers["webhook-id"] for one in receiver.requests[:4]] == ids(0, 0, 0, 0)
        assert len(receiver.requests) == 24
    assert [reason for _, _, reason in attempts.all[:4]] == [
        "no answer within 1 s",
        "no answer within 1 s",
        "the receiver answered 500",
        "the receiver answered 302; redirects are not followed",
    ]


def test_what_comes_is_signed_and_each_attempt_anew(tmp_path):
    with run_receiver([500]) as receiver, deliver_alerts(tmp_path / "box", make_alert_settings(receiver.url)) as outbox:
        outbox.put(make_alert(0))
        assert outbox.wait_until_empty(WAIT_SECONDS)
        for got in receiver.requests:
            assert got.path == "/hook?token=topsecret"
            assert verify(SECRET, got.headers, got.body, now=time.time()) == ids(0)[0]
        with pytest.raises(WebhookVerificationError):
            verify(SECRET, got.headers, got.body + b" ", now=time.time())


def test_channels_do_not_wait_for_each_other(tmp_path):
    with (
        run_receiver(["hang"] * 100) as bad,
        run_receiver() as good,
        deliver_alerts(tmp_path / "box", make_alert_settings(bad.url, good.url)) as outbox,
    ):
        outbox.put(make_alert(0))
        assert bad.hanging.wait(WAIT_SECONDS)
        outbox.put(make_alert(1))
        while outbox.next_pending("hook1"):
            outbox.wait_for_change(outbox.change_count(), 1)
        assert good.ids() == ids(0, 1)
        assert [one.channel for one in outbox.list_pending()] == ["hook0"] * 2


def test_neither_put_nor_a_stop_waits_for_a_receiver_and_the_next_run_delivers(tmp_path):
    with run_receiver(["hang"]) as receiver:
        settings = make_alert_settings(receiver.url)
        with deliver_alerts(tmp_path / "box", settings) as outbox:
            outbox.put(make_alert(0))
            assert receiver.hanging.wait(WAIT_SECONDS)
            began = time.monotonic()
            for number in range(1, 30):
                outbox.put(make_alert(number))
        assert time.monotonic() - began < WAIT_SECONDS / 4
        with deliver_alerts(tmp_path / "box", settings) as outbox:
            assert outbox.wait_until_empty(WAIT_SECONDS)
        assert receiver.ids() == ids(*range(30))


def test_dead_letters_make_way_and_are_tried_again_when_asked(tmp_path, run):
    box = tmp_path / "box"
    with run_receiver([410, 410]) as receiver:
        with deliver_alerts(box, make_alert_settings(receiver.url, attempts=2)) as outbox:
            outbox.put(make_alert(0))
            outbox.put(make_alert(1))
            assert outbox.wait_until_empty(WAIT_SECONDS)
            assert receiver.ids() == ids(1)
        listed = run(hazard, "alert-list", box)
        assert "hook0  hall/event/0  (2 failed: the receiver answered 410)" in listed.out
        assert "0 pending, 1 done, 1 dead" in listed.out
        assert run(hazard, "alert-list", box, "--retry").code == 0
        with deliver_alerts(box, make_alert_settings(receiver.url, attempts=2)) as outbox:
            assert outbox.wait_until_empty(WAIT_SECONDS)
        assert receiver.ids() == ids(1, 0)


def test_what_was_acknowledged_is_not_sent_again_where_the_disk_refuses(tmp_path, monkeypatch):
    refusals = iter(range(2))
    deliver = Outbox.mark_delivered

    def delivered(self, delivery):
        if next(refusals, None) is not None:
            raise RuntimeEnvironmentError("disk full")
        deliver(self, delivery)

    monkeypatch.setattr(Outbox, "mark_delivered", delivered)
    with run_receiver() as receiver, deliver_alerts(tmp_path / "box", make_alert_settings(receiver.url)) as outbox:
        outbox.put(make_alert(0))
        outbox.put(make_alert(1))
        assert outbox.wait_until_empty(WAIT_SECONDS)
        assert receiver.ids() == ids(0, 1)


def test_a_second_process_is_refused(tmp_path):
    with (
        deliver_alerts(tmp_path / "box", make_alert_settings()),
        pytest.raises(RuntimeEnvironmentError, match="another process is delivering"),
        deliver_alerts(tmp_path / "box", make_alert_settings()),
    ):
        pass


def test_a_process_that_is_lost_is_a_failed_attempt():
    assert failure_reason(LostTask("decode", "timeout: nothing decoded for 3 s"), 3.0) == "no answer within 3 s"
    assert failure_reason(LostTask("decode", "the decoder crashed (SIGSEGV)"), 3.0) == "the delivery process crashed"
    assert failure_reason(None, 3.0) is None


CHILD = """
import sys
from pathlib import Path
from tests.helpers.servers.receivers import make_alert, make_alert_settings
from hazard.alerts.delivery import deliver_alerts
box, url, first, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if __name__ == "__main__":
    with deliver_alerts(box, make_alert_settings(url)) as outbox:
        for number in range(first, first + count):
            assert outbox.put(make_alert(number))
            print(number, flush=True)
        outbox.wait_until_empty(60)
"""


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.long)])
def test_killed_at_any_moment_nothing_is_lost_and_only_what_was_under_way_comes_again(tmp_path, kills):
    draw = random.Random(kills)
    child: list[subprocess.Popen] = []
    under_way: list[str] = []
    kept: list[int] = []
    with run_receiver() as receiver:

        def kill(number):
            if number == strike["at"]:
                under_way.append(receiver.requests[-1].headers["webhook-id"])
                os.kill(child[-1].pid, signal.SIGKILL)

        receiver.before = lambda number: kill(number) if strike["before"] else None
        receiver.after = lambda number: None if strike["before"] else kill(number)
        for i in range(kills + 1):
            strike = {"at": len(receiver.requests) + draw.randint(1, 4), "before": draw.random() < 0.5}
            if i == kills:
                strike["at"] = 0
            command = [sys.executable, "-c", CHILD, tmp_path / "box", receiver.url, str(i * 10), "4"]
            child.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
            kept += [int(line) for line in child[-1].communicate(timeout=WAIT_SECONDS)[0].split()]
            assert child[-1].returncode == (0 if i == kills else -signal.SIGKILL)
        sent = Counter(receiver.ids())
    assert set(ids(*kept)) <= set(sent)
    repeated = {one for one, count in sent.items() if count > 1}
    assert repeated <= set(under_way)
    firsts = list(dict.fromkeys(receiver.ids()))
    numbers = {one: number for number, one in enumerate(ids(*range(10 * kills + 10)))}
    assert [numbers[one] for one in firsts] == sorted(numbers[one] for one in firsts)
    with open_outbox(tmp_path / "box", make_alert_settings(receiver.url)) as outbox:
        assert outbox.count_by_state()["pending"] == 0


@contextmanager
def silent_port():
    """Open a port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_silent_receiver_of_any_kind_is_cut_at_the_deadline():
    with silent_port() as port:
        settings = make_alert_settings(
            deadline_seconds=0.5,
            channels=[
                {"kind": "webhook", "name": "tls", "url": f"https://127.0.0.1:{port}/", "secret": SECRET},
                {"kind": "apprise", "url": f"json://127.0.0.1:{port}/"},
                {"kind": "mqtt", "host": "127.0.0.1", "port": port},
            ],
        )
        for channel in settings.channels:
            pytest.importorskip({"apprise": "apprise", "mqtt": "paho"}.get(channel.kind, "json"))
        for channel, reason, seconds in try_each_channel(settings, make_alert()):
            assert reason is not None, channel
            assert seconds < WAIT_SECONDS / 4  # with the start of its process
