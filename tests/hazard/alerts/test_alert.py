"""Alerts, their settings, and the signatures of webhooks."""

import base64
import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from features.errors import SettingsError
from hazard.alerts.alert import alert_to_json, dump_alert, format_alert, parse_alert
from hazard.alerts.channels import CHANNELS, mqtt_topic, webhook_body
from hazard.alerts.settings import CHANNEL_TYPES, load_alert_settings, parse_alert_settings
from hazard.alerts.webhooks import (
    DuplicateWebhookError,
    SeenIds,
    WebhookVerificationError,
    signed_headers,
    verify,
    webhook_id,
)
from tests.helpers.paths import ROOT
from tests.helpers.servers.receivers import SECRET, START, make_alert

NOW = 1_700_000_000.0
HOOK = {"kind": "webhook", "url": "https://example.org/hook", "secret": SECRET}
BROKER = {"kind": "mqtt", "host": "broker"}
BODY = b'{"a": 1}'
DOC = ROOT / "docs" / "alerts.md"


def test_an_alert_comes_back_from_its_json():
    alert = make_alert(1, ended=START + timedelta(seconds=9), snapshot=Path("a b/ü.jpg"), camera="gate \udcff")
    assert parse_alert(dump_alert(alert)) == alert
    assert alert_to_json(alert)["started"] == "2026-05-04T08:00:01.000Z"


@pytest.mark.parametrize(
    "changes", [{"id": ""}, {"kind": "fire"}, {"started": datetime(2026, 1, 1)}, {"probability": float("nan")}]
)
def test_what_is_no_alert_is_refused(changes):
    with pytest.raises(ValueError, match="expected"):
        make_alert(**changes)


@pytest.mark.parametrize(
    ("kind", "title"),
    [
        ("event", "fight at hall"),
        ("offline", "hall is offline"),
        ("back", "hall is back"),
        ("test", "test alert of hall"),
    ],
)
def test_people_read_what_where_and_when(kind, title):
    found_title, body = format_alert(make_alert(kind=kind))
    assert found_title == title
    assert "2026-05-04 08:00:00 UTC" in body


def test_a_signature_is_that_of_the_standard():
    """The example of the Standard Webhooks specification's reference implementations."""
    headers = signed_headers(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', now=1614265330)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_genuine_webhook_passes_among_other_signatures():
    headers = signed_headers(SECRET, "msg_1", BODY, now=NOW)
    headers["webhook-signature"] = (
        f"v2,abc {signed_headers(OTHER, 'msg_1', BODY, now=NOW)['webhook-signature']} " + (headers["webhook-signature"])
    )
    named = {name.title(): value for name, value in headers.items()}
    assert verify(SECRET, named, BODY, now=NOW + 299) == "msg_1"


OTHER = "whsec_" + base64.b64encode(b"x" * 32).decode()


@pytest.mark.parametrize(
    "forge",
    [
        lambda headers: {**headers, "webhook-id": "msg_2"},
        lambda headers: {**headers, "webhook-timestamp": str(int(NOW) + 1)},
        lambda headers: {**headers, "webhook-timestamp": "soon"},
        lambda headers: {**headers, "webhook-timestamp": "١٧٠٠٠٠٠٠٠٠"},
        lambda headers: {**headers, "webhook-signature": "v1,"},
        lambda headers: {**headers, "webhook-signature": headers["webhook-signature"][3:]},
        lambda headers: {**headers, "webhook-signature": "v1,ü"},
        lambda headers: {name: value for name, value in headers.items() if name != "webhook-signature"},
        lambda headers: signed_headers(OTHER, "msg_1", BODY, now=NOW),
        lambda headers: signed_headers(SECRET, "msg_1", BODY + b" ", now=NOW),
    ],
)
def test_a_forged_webhook_is_refused(forge):
    with pytest.raises(WebhookVerificationError):
        verify(SECRET, forge(signed_headers(SECRET, "msg_1", BODY, now=NOW)), BODY, now=NOW)


@pytest.mark.parametrize("later", [301, -302, 86400])
def test_a_webhook_of_another_time_is_refused(later):
    with pytest.raises(WebhookVerificationError, match="300 s"):
        verify(SECRET, signed_headers(SECRET, "msg_1", BODY, now=NOW), BODY, now=NOW + later)


def test_a_replayed_id_is_told_apart():
    seen = SeenIds(max_ids=2)
    headers = signed_headers(SECRET, "msg_1", BODY, now=NOW)
    seen.add(verify(SECRET, headers, BODY, now=NOW, seen=seen))
    with pytest.raises(DuplicateWebhookError):
        verify(SECRET, headers, BODY, now=NOW + 60, seen=seen)
    seen.add("msg_2")
    seen.add("msg_3")
    assert "msg_1" not in seen


def test_webhook_ids_are_stable_and_fit_for_a_header():
    assert webhook_id("gate\n\udcff/1.5") == webhook_id("gate\n\udcff/1.5") != webhook_id("gate/1.5")
    assert re.fullmatch(r"msg_[0-9a-f]{32}", webhook_id("ü"))


def test_the_check_of_the_documentation_rejects_what_is_forged_and_replayed():
    """Run the receiver of docs/alerts.md as it is printed there."""
    code = next(block for block in re.findall(r"```python\n(.*?)```", DOC.read_text(), re.S) if "def take" in block)
    acted = []
    space = {"act_on": acted.append}
    exec(code, space)  # noqa: S102
    body = webhook_body(make_alert())
    headers = signed_headers(SECRET, "msg_1", body, now=NOW)
    take = space["take"]
    assert take(SECRET, headers, body, NOW) == 204
    assert take(SECRET, headers, body, NOW + 10) == 204
    assert take(SECRET, headers, body, NOW + 1000) == 401
    assert take(OTHER, headers, body, NOW) == 401
    assert take(SECRET, headers, body.replace(b"fight", b"hugs!"), NOW) == 401
    assert [one["data"]["label"] for one in acted] == ["fight"]


def test_channels_and_their_settings_have_the_same_names():
    assert set(CHANNELS) == set(CHANNEL_TYPES)


def test_channels_are_read_from_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    file = tmp_path / "monitor.yaml"
    file.write_text(
        "cameras: []\nalerts:\n  deadline_seconds: 3\n  channels:\n"
        "    - {kind: webhook, name: room, url: 'http://192.168.1.9/x', secret: 'env:HOOK_SECRET'}\n"
        "    - {kind: mqtt, host: broker}\n"
    )
    settings = load_alert_settings(file)
    assert [channel.name for channel in settings.channels] == ["room", "mqtt"]
    assert settings.channels[0].secret.get_secret_value() == SECRET
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"chanels": []}, r"alerts\.chanels'; did you mean 'channels'"),
        ({"attempts": 0}, r"alerts\.attempts'.*got 0"),
        ({"channels": [{**HOOK, "secrt": SECRET}]}, r"channels\.0\.secrt'; did you mean 'secret'"),
        ({"channels": [{**HOOK, "kind": "webhok"}]}, "did you mean 'webhook'"),
        ({"channels": [{"url": "https://x"}]}, "kind' is missing; choose one of: webhook, apprise, mqtt"),
        ({"channels": [HOOK, HOOK]}, "2 channels are called 'webhook'"),
        ({"channels": [{**HOOK, "url": "ftp://topsecret"}]}, "http or https"),
        ({"channels": [{**HOOK, "url": "https://u:topsecret@host/"}]}, "as a header"),
        ({"channels": [{**HOOK, "url": "http://topsecret:99999999/"}]}, "http or https"),
        ({"channels": [{**HOOK, "secret": "topsecret"}]}, "expected 'whsec_'"),
        ({"channels": [{**HOOK, "secret": "env:NOT_THERE"}]}, "NOT_THERE is not set"),
        ({"channels": [{**HOOK, "headers": {"webhook-id": "topsecret"}}]}, "a header cannot be called 'webhook-id'"),
        ({"channels": [{**HOOK, "headers": {"X-A": "topsecret\nX-B: 1"}}]}, "plain ASCII"),
        ({"channels": [{**BROKER, "topic": "a/{camera.__class__}"}]}, "unknown field"),
        ({"channels": [{**BROKER, "topic": "a/#"}]}, "no [+], #"),
        ({"channels": [{**BROKER, "password": ["topsecret"]}]}, "password"),
        ({"channels": [{**BROKER, "password": "topsecret"}]}, "a password needs a user"),
        ({"channels": [{**BROKER, "ca_file": "ca.pem"}]}, "ca_file needs tls"),
        ({"channels": [{**HOOK, "url": "https://topsecret/ü"}]}, "plain ASCII"),
        ("topsecret", "key: value lines"),
    ],
)
def test_a_wrong_setting_is_named_and_no_secret_is_shown(values, complaint):
    with pytest.raises(SettingsError, match=complaint) as error:
        parse_alert_settings(values)
    assert "topsecret" not in str(error.value)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("alert: {}", "no section 'alerts'"), ("alerts: [", "not YAML .line 1"), ("- a", "no section")],
)
def test_a_wrong_file_is_one_line(tmp_path, content, complaint):
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(SettingsError, match=complaint):
        load_alert_settings(tmp_path / "a.yaml")


def test_topics_keep_neither_wildcards_nor_slashes():
    (channel,) = parse_alert_settings({"channels": [{**BROKER, "topic": "site/{camera}/{kind}/{label}"}]}).channels
    assert mqtt_topic(channel, make_alert(camera="a/b+#", label="")) == "site/a_b__/event/_"


def test_a_webhook_says_what_the_standard_suggests():
    sent = json.loads(webhook_body(make_alert(3)))
    assert sent["type"] == "hazard.event"
    assert sent["timestamp"] == sent["data"]["started"]
    assert sent["data"] == alert_to_json(make_alert(3))
