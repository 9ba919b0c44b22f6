"""Signatures of webhooks, after the Standard Webhooks specification: signing for the sender, a check for receivers.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
import math
from collections import OrderedDict
from collections.abc import Container, Mapping

SECRET_PREFIX = "whsec_"
TOLERANCE_SECONDS = 300.0
SECRET_BYTES_RANGE = (24, 64)
"""Smallest and largest length of a secret in bytes, by the standard."""
MAX_REMEMBERED_IDS = 10_000


class WebhookVerificationError(Exception):
    """A webhook that is forged, changed or too old. Answer it with 400 or 401 and do nothing else."""


class DuplicateWebhookError(Exception):
    """A genuine webhook that was processed before. Answer it with 2xx, so that it is not sent again, and do no more."""


def webhook_id(alert_id: str) -> str:
    """Return the id that receivers see: the same at every attempt, and valid in a header for any alert id."""
    return f"msg_{hashlib.sha256(alert_id.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def decode_secret(secret: str) -> bytes:
    """Return the bytes of `whsec_…`. Raises ValueError, without showing the secret, if it is not valid."""
    try:
        key = (
            base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
            if secret.startswith(SECRET_PREFIX)
            else b""
        )
    except (binascii.Error, ValueError):
        key = b""
    if not SECRET_BYTES_RANGE[0] <= len(key) <= SECRET_BYTES_RANGE[1]:
        raise ValueError(
            f"expected '{SECRET_PREFIX}' and {SECRET_BYTES_RANGE[0]} to {SECRET_BYTES_RANGE[1]} bytes in base64; "
            f"`echo {SECRET_PREFIX}$(openssl rand -base64 32)` makes one"
        )
    return key


def signed_headers(secret: str, message_id: str, body: bytes, *, now: float) -> dict[str, str]:
    """Return the three headers of one attempt. `now` is in seconds since 1970."""
    timestamp = str(math.floor(now))
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{_signature(decode_secret(secret), message_id, timestamp, body)}",
    }


def verify(
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    tolerance_seconds: float = TOLERANCE_SECONDS,
    seen: Container[str] = (),
) -> str:
    """Return the id of a genuine webhook. `body` is the request body as received, `seen` the ids processed before.

    Raises WebhookVerificationError if the signature does not match or the timestamp is further from `now` than the
    tolerance. Raises DuplicateWebhookError if the id is in `seen`: the webhook is a replay, or the sender did not get
    the answer to an earlier attempt.
    """
    named = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, timestamp, signatures = (named[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError as error:
        raise WebhookVerificationError(f"header {error} is missing") from None
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) < 16):
        raise WebhookVerificationError("the timestamp is not a whole number of seconds")
    expected = _signature(decode_secret(secret), message_id, timestamp, body).encode()
    given = [text.removeprefix("v1,").encode() for text in signatures.split(" ") if text.startswith("v1,")]
    if not any([hmac.compare_digest(expected, signature) for signature in given]):  # noqa: C419  compares all of them, in constant time
        raise WebhookVerificationError("the signature does not match the secret, the id, the timestamp and the body")
    if abs(now - int(timestamp)) > tolerance_seconds:
        raise WebhookVerificationError(f"the timestamp is not within {tolerance_seconds:g} s of now")
    if message_id in seen:
        raise DuplicateWebhookError(message_id)
    return message_id


class SeenIds:
    """The last processed ids, in memory. A receiver that restarts often should keep them in its database instead."""

    def __init__(self, max_ids: int = MAX_REMEMBERED_IDS) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._max_ids = max_ids

    def __contains__(self, message_id: object) -> bool:
        return message_id in self._ids

    def add(self, message_id: str) -> None:
        """Remember an id. Call this after the alert was processed: a crash in between would otherwise lose it."""
        self._ids[message_id] = None
        self._ids.move_to_end(message_id)
        while len(self._ids) > self._max_ids:
            self._ids.popitem(last=False)


def _signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    content = f"{message_id}.{timestamp}.".encode("utf-8", "surrogatepass") + body
    return base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
