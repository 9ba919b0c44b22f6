"""Signed webhooks as Standard Webhooks has them: what the sender writes, and the check that a receiver makes.

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
"""Least and most of a secret, by the standard."""
MAX_REMEMBERED_IDS = 10_000


class SignatureRefused(Exception):
    """A webhook is not what its sender wrote, or not from now: answer it with 400 or 401 and do nothing."""


class AlreadySeen(Exception):
    """A genuine webhook that was dealt with before: do nothing, and answer with 2xx, so that it is not sent again."""


def webhook_id(alert_id: str) -> str:
    """What a receiver knows an alert by: the same at each attempt, and fit for a header whatever the id is."""
    return f"msg_{hashlib.sha256(alert_id.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def decode_secret(secret: str) -> bytes:
    """The bytes of `whsec_…`. Raises ValueError, without the secret, for what is none."""
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
            f"expected '{SECRET_PREFIX}' and {SECRET_BYTES_RANGE[0]} to {SECRET_BYTES_RANGE[1]} bytes in base64, such as "
            f"echo {SECRET_PREFIX}$(openssl rand -base64 32) prints"
        )
    return key


def signed_headers(secret: str, message_id: str, body: bytes, *, now: float) -> dict[str, str]:
    """The three headers of one attempt; `now` are seconds since 1970."""
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
    """The id of a genuine webhook; `body` are the very bytes that came, `seen` the ids that were dealt with.

    Raises SignatureRefused where the signature is not the sender's or the timestamp is further from `now` than the
    tolerance, AlreadySeen where the id is known: a replay, or an attempt whose answer the sender never got.
    """
    named = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, timestamp, signatures = (named[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError as error:
        raise SignatureRefused(f"no header {error}") from None
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) < 16):
        raise SignatureRefused("the timestamp is no number of seconds")
    expected = _signature(decode_secret(secret), message_id, timestamp, body).encode()
    given = [text.removeprefix("v1,").encode() for text in signatures.split(" ") if text.startswith("v1,")]
    if not any([hmac.compare_digest(expected, one) for one in given]):  # noqa: C419  all of them, in constant time
        raise SignatureRefused("the signature is not that of the secret, the id, the timestamp and the body")
    if abs(now - int(timestamp)) > tolerance_seconds:
        raise SignatureRefused(f"the timestamp is not within {tolerance_seconds:g} s of now")
    if message_id in seen:
        raise AlreadySeen(message_id)
    return message_id


class SeenIds:
    """The last ids that were dealt with, in memory: a receiver that restarts often keeps them in its database."""

    def __init__(self, max_ids: int = MAX_REMEMBERED_IDS) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._max_ids = max_ids

    def __contains__(self, message_id: object) -> bool:
        return message_id in self._ids

    def add(self, message_id: str) -> None:
        """Remembers an id, once what it says was done: not before, or a crash in between would lose the alert."""
        self._ids[message_id] = None
        self._ids.move_to_end(message_id)
        while len(self._ids) > self._max_ids:
            self._ids.popitem(last=False)


def _signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    content = f"{message_id}.{timestamp}.".encode("utf-8", "surrogatepass") + body
    return base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
