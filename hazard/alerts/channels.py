"""The alert channels: webhook, Apprise and MQTT. Each function makes one attempt to send one alert.

The timeouts of the libraries start again with each byte received, so none of these functions is certain to return in
time. They therefore run in a process that is killed at the deadline (`hazard.alerts.delivery`).
"""

import http.client
import json
import logging
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import SplitResult, urlsplit

from features.errors import SettingsError
from features.utils.text import format_connection_error
from hazard.alerts.alert import Alert, alert_to_json, format_alert
from hazard.alerts.settings import AlertSettings, AppriseSettings, MqttSettings, WebhookSettings
from hazard.alerts.webhooks import signed_headers, webhook_id

MAX_REASON_CHARACTERS = 200
_TOPIC_REPLACEMENTS = str.maketrans({"/": "_", "+": "_", "#": "_", "\0": "_"})
_MODULES_TO_IMPORT = {"apprise": ("apprise", "apprise.attachment.file"), "mqtt": ("paho.mqtt.publish",)}
_REQUIRED_PACKAGES = {"apprise": ("apprise", "apprise"), "mqtt": ("paho", "paho-mqtt")}


class DeliveryError(Exception):
    """A failed attempt. The text gives the reason and contains no secret."""


def check_channels(settings: AlertSettings) -> None:
    """Raise SettingsError if a channel lacks its Python package or its certificate file."""
    for channel in settings.channels:
        module, package = _REQUIRED_PACKAGES.get(channel.kind, ("", ""))
        if module and find_spec(module) is None:
            raise SettingsError(f"channel '{channel.name}' needs {package}: pip install {package}")
        ca_file = getattr(channel, "ca_file", None)
        if ca_file is not None and not ca_file.is_file():
            raise SettingsError(f"channel '{channel.name}': ca_file {ca_file} does not exist")


def import_libraries(kind: str) -> None:
    """Import the libraries of a kind of channel, so that no attempt spends its time on imports."""
    for name in _MODULES_TO_IMPORT.get(kind, ()):
        import_module(name)
    logging.getLogger("paho").setLevel(logging.CRITICAL)  # it logs every normal disconnect as an error


def send_webhook(settings: WebhookSettings, alert: Alert, deadline_seconds: float) -> None:
    """Send one signed POST request. Raises DeliveryError unless the status is 2xx.

    Only the status line and the headers of the response are waited for. Redirects are not followed.
    """
    parts = urlsplit(settings.url.get_secret_value())
    body = webhook_body(alert)
    headers = {
        **{name: value.get_secret_value() for name, value in settings.headers.items()},
        **signed_headers(settings.secret.get_secret_value(), webhook_id(alert.id), body, now=time.time()),
        "Content-Type": "application/json",
        "User-Agent": "hazard-video",
    }
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        with closing(_make_connection(parts, settings, deadline_seconds)) as connection:
            connection.request("POST", target, body, headers)
            response = connection.getresponse()
    except TimeoutError:
        raise DeliveryError(f"no answer within {deadline_seconds:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise DeliveryError(f"no answer ({format_connection_error(error)})") from None
    if not 200 <= response.status < 300:
        hint = "; redirects are not followed" if 300 <= response.status < 400 else ""
        raise DeliveryError(f"the receiver answered {response.status}{hint}")


def webhook_body(alert: Alert) -> bytes:
    """Return the bytes to sign and send: JSON with type, timestamp and data, as Standard Webhooks suggests."""
    data = alert_to_json(alert)
    return json.dumps({"type": f"hazard.{alert.kind}", "timestamp": data["started"], "data": data}).encode()


def send_apprise(settings: AppriseSettings, alert: Alert, deadline_seconds: float) -> None:
    """Send a message, with the snapshot if its file exists. Raises DeliveryError if Apprise reports a failure."""
    import apprise
    from apprise.attachment.file import AttachFile

    asset = apprise.AppriseAsset(http_redirects=False, app_id="hazard-video", secure_logging=True)
    service = apprise.Apprise.instantiate(settings.url.get_secret_value(), asset=asset)
    if service is None:
        raise DeliveryError("Apprise does not know this kind of URL, or a part of the URL is missing")
    service.redirects = False  # overrides `?redirect=yes` in the URL
    service.socket_connect_timeout = service.socket_read_timeout = deadline_seconds
    sender = apprise.Apprise(asset=asset)
    sender.add(service)
    title, body = format_alert(alert)
    attachments = apprise.AppriseAttachment(asset=asset)
    if alert.snapshot is not None and alert.snapshot.is_file():
        attachments.add(AttachFile(str(alert.snapshot), name=alert.snapshot.name))
    warnings: list[str] = []
    if not sender.notify(
        body,
        title,
        body_format=apprise.NotifyFormat.TEXT,
        attach=attachments if attachments else None,
        log_callback=lambda entry, service: warnings.append(entry.message),
        log_level=logging.WARNING,
    ):
        reason = f" ({warnings[0][:MAX_REASON_CHARACTERS].rstrip('.')})" if warnings else ""
        raise DeliveryError(f"{service.service_name} did not accept the alert{reason}")


def send_mqtt(settings: MqttSettings, alert: Alert, deadline_seconds: float) -> None:
    """Publish one message with QoS 1. Raises DeliveryError if the broker does not acknowledge it."""
    from paho.mqtt import MQTTException
    from paho.mqtt.publish import single

    auth: Any = None
    if settings.user is not None:
        auth = {"username": settings.user, "password": settings.password and settings.password.get_secret_value()}
    tls: Any = {"ca_certs": settings.ca_file and str(settings.ca_file)} if settings.tls else None
    try:
        single(
            mqtt_topic(settings, alert),
            json.dumps(alert_to_json(alert)),
            qos=1,
            retain=settings.retain,
            hostname=settings.host,
            port=settings.port or (8883 if settings.tls else 1883),
            client_id=settings.client_id,
            keepalive=60,
            auth=auth,
            tls=tls,
        )
    except (OSError, MQTTException) as error:
        raise DeliveryError(f"the broker did not accept the alert ({format_connection_error(error)})") from None


def mqtt_topic(settings: MqttSettings, alert: Alert) -> str:
    """Return the topic of an alert. Slashes, wildcards and NUL in names become underscores."""
    values = {"camera": alert.camera, "kind": alert.kind, "label": alert.label}
    return settings.topic.format(**{name: text.translate(_TOPIC_REPLACEMENTS) or "_" for name, text in values.items()})


CHANNELS: dict[str, Callable[[Any, Alert, float], None]] = {
    "webhook": send_webhook,
    "apprise": send_apprise,
    "mqtt": send_mqtt,
}
"""Kind → function of (channel settings, alert, deadline in seconds), which raises DeliveryError if an attempt fails."""


def _make_connection(parts: SplitResult, settings: WebhookSettings, seconds: float) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, parts.port, timeout=seconds)
    context = ssl.create_default_context(cafile=settings.ca_file and str(settings.ca_file))
    return http.client.HTTPSConnection(host, parts.port, timeout=seconds, context=context)
