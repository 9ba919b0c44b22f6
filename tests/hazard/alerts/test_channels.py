"""Apprise and MQTT against real receivers on this machine, and the command that tries every channel."""

import base64
import json
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from features.errors import SettingsError
from hazard.alerts import channels
from hazard.alerts.alert import alert_to_json
from hazard.alerts.channels import CHANNELS, DeliveryError, check_channels
from hazard.alerts.delivery import try_each_channel
from hazard.alerts.settings import parse_alert_settings
from hazard.cli.main import hazard
from tests.helpers.servers.receivers import SECRET, WAIT_SECONDS, make_alert, run_receiver

MOSQUITTO = shutil.which("mosquitto", path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin")
needs_broker = pytest.mark.skipif(not MOSQUITTO, reason="no mosquitto; Debian's package `mosquitto` brings it")


def one(**values):
    return parse_alert_settings({"channels": [values]}).channels[0]


def test_apprise_tells_people_with_the_picture(tmp_path):
    pytest.importorskip("apprise")
    picture = tmp_path / "50% a?b.jpg"
    picture.write_bytes(b"\xff\xd8 a picture \xff\xd9")
    with run_receiver() as receiver:
        channel = one(kind="apprise", url=f"json://127.0.0.1:{receiver.port}/")
        CHANNELS["apprise"](channel, make_alert(snapshot=picture), 10.0)
        CHANNELS["apprise"](channel, make_alert(snapshot=tmp_path / "gone.jpg"), 10.0)
        first, second = (json.loads(got.body) for got in receiver.requests)
    assert first["title"] == "fight at hall"
    assert "91%" in first["message"]
    (attached,) = first["attachments"]
    assert (attached["filename"], base64.b64decode(attached["base64"])) == (picture.name, picture.read_bytes())
    assert second["attachments"] == []


@pytest.mark.parametrize("more", ["", "?redirect=yes"])
def test_apprise_follows_no_redirect(more):
    pytest.importorskip("apprise")
    with run_receiver([302]) as receiver:
        channel = one(kind="apprise", url=f"json://127.0.0.1:{receiver.port}/topsecret{more}")
        with pytest.raises(DeliveryError, match="JSON did not accept the alert") as error:
            CHANNELS["apprise"](channel, make_alert(), 10.0)
        assert len(receiver.requests) == 1
    assert "topsecret" not in str(error.value)


def test_a_missing_library_or_file_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(channels, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"'mqtt' needs paho-mqtt: pip install paho-mqtt"):
        check_channels(parse_alert_settings({"channels": [{"kind": "mqtt", "host": "x"}]}))
    hook = {"kind": "webhook", "url": "https://x", "secret": SECRET, "ca_file": str(tmp_path / "ca.pem")}
    with pytest.raises(SettingsError, match=r"ca\.pem does not exist"):
        check_channels(parse_alert_settings({"channels": [hook]}))


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def broker(folder: Path, *lines: str):
    """Run a Mosquitto broker. Yields its port."""
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text("\n".join([f"listener {port} 127.0.0.1", "user root", *lines, ""]))
    process = subprocess.Popen([MOSQUITTO, "-c", config, "-v"], stderr=subprocess.PIPE, text=True, cwd=folder)
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if line.rstrip().endswith("running"):
                break
        else:
            raise AssertionError("".join(said))
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield port
    finally:
        process.kill()
        process.wait()


@contextmanager
def subscribed(
    port: int, topic: str, user: str | None = None, password: str | None = None, ca_file: Path | None = None
):
    """Subscribe to a topic. Yields a function that waits for a number of messages and returns all that came."""
    from paho.mqtt import client as mqtt

    came: list = []
    news = threading.Condition()
    ready = threading.Event()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    if user:
        client.username_pw_set(user, password)
    if ca_file:
        client.tls_set(str(ca_file))

    def on_message(client, data, message):
        with news:
            came.append(message)
            news.notify_all()

    def wait_for(count):
        with news:
            assert news.wait_for(lambda: len(came) >= count, WAIT_SECONDS)
        return came

    client.on_message = on_message
    client.on_connect = lambda client, *rest: client.subscribe(topic, qos=1)
    client.on_subscribe = lambda *rest: ready.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        assert ready.wait(WAIT_SECONDS)
        yield wait_for
    finally:
        client.disconnect()
        client.loop_stop()


@needs_broker
def test_mqtt_reaches_who_subscribed(tmp_path):
    pytest.importorskip("paho")
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "hazard", "topsecret"], check=True)
    with broker(tmp_path, f"password_file {passwords}", "allow_anonymous false") as port:
        values = {"kind": "mqtt", "host": "127.0.0.1", "port": port, "user": "hazard", "topic": "site/{camera}/{kind}"}
        with subscribed(port, "site/#", "hazard", "topsecret") as wait_for:
            CHANNELS["mqtt"](one(**values, password="topsecret", retain=True), make_alert(camera="a/b"), 10.0)
            (message,) = wait_for(1)
        assert (message.topic, message.qos) == ("site/a_b/event", 1)
        assert json.loads(message.payload) == alert_to_json(make_alert(camera="a/b"))
        with subscribed(port, "site/#", "hazard", "topsecret") as wait_for:
            assert wait_for(1)[0].retain
        with pytest.raises(DeliveryError, match=r"not authori[sz]ed") as error:
            CHANNELS["mqtt"](one(**values, password="topsecret2"), make_alert(), 10.0)
        assert "topsecret" not in str(error.value)


@needs_broker
@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl; Debian's package `openssl` brings it")
def test_mqtt_checks_the_brokers_certificate(tmp_path, capfd):
    pytest.importorskip("paho")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    lines = (f"certfile {certificate}", f"keyfile {key}", "allow_anonymous true")
    with broker(tmp_path, *lines) as port:
        values = {"kind": "mqtt", "host": "127.0.0.1", "port": port, "tls": True}
        with subscribed(port, "hazard/hall/event", ca_file=certificate) as wait_for:
            channel = one(**values, ca_file=str(certificate))
            ((_, reason, _),) = try_each_channel(
                parse_alert_settings({"channels": [channel.model_dump()]}), make_alert()
            )
            assert reason is None
            assert len(wait_for(1)) == 1
            assert capfd.readouterr().err == ""
        with pytest.raises(DeliveryError, match="certificate"):
            CHANNELS["mqtt"](one(**values), make_alert(), 10.0)


def test_alert_test_tries_every_channel_once_and_says_what_happened(tmp_path, run):
    pytest.importorskip("apprise")
    with run_receiver([204, 500, 302, "hang", 204]) as receiver:
        hooks = [
            {"kind": "webhook", "name": name, "url": receiver.url, "secret": SECRET} for name in ("a", "b", "c", "d")
        ]
        people = {"kind": "apprise", "name": "e", "url": f"json://127.0.0.1:{receiver.port}/"}
        file = tmp_path / "monitor.yaml"
        file.write_text(yaml.safe_dump({"alerts": {"channels": [*hooks, people], "deadline_seconds": 2.5}}))
        ran = run(hazard, "alert-test", file)
        assert len(json.loads(receiver.requests[-1].body)["attachments"]) == 1
        assert len(receiver.requests) == 5
    lines = ran.out.splitlines()
    assert ran.code == 3
    assert lines[0].startswith("a (webhook): delivered in ")
    assert lines[1] == "b (webhook): the receiver answered 500"
    assert lines[2] == "c (webhook): the receiver answered 302; redirects are not followed"
    assert lines[3] == "d (webhook): no answer within 2.5 s"
    assert lines[4].startswith("e (apprise): delivered in ")
    assert lines[5] == "2 of 5 channels delivered the test alert"
    assert SECRET not in ran.out + ran.err


@pytest.mark.parametrize(
    ("content", "said"), [("alerts:\n", "has no channels"), ("alerts: {chanels: []}", "did you mean")]
)
def test_alert_test_refuses_a_wrong_file_in_one_line(tmp_path, run, content, said):
    (tmp_path / "a.yaml").write_text(content)
    ran = run(hazard, "alert-test", tmp_path / "a.yaml")
    assert ran.code == 2
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1
