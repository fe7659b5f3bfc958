"""Signatures of deliveries, as Standard Webhooks 1.0 says, and the secrets that make them.

A signature is HMAC-SHA256 over `id.timestamp.body`, so that a receiver knows who sent it and that nobody replays it
later. A secret is `whsec_` and base64. Ours are derived, never stored: from a key of the platform, the tenant, the
subscription's id and a number that a rotation counts up. So a copy of the database holds nothing to sign with, and a
rotation needs no second key: for a while both secrets sign, and the receiver accepts either.
"""

import base64
import hmac
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"
HEADER_ID = "webhook-id"
HEADER_TIMESTAMP = "webhook-timestamp"
HEADER_SIGNATURE = "webhook-signature"

KEY_BYTES = 32


def derive(key: bytes, purpose: str, *names: str) -> bytes:
    """A secret of 32 bytes for `purpose` and `names` (HMAC-SHA256 over them, each with its length)."""
    parts = [part.encode() for part in (purpose, *names)]
    return hmac.digest(key, b"".join(len(part).to_bytes(4, "big") + part for part in parts), "sha256")


def subscription_secret(key: bytes, tenant: str, subscription: str, generation: int) -> bytes:
    """The secret of a subscription after so many rotations."""
    return derive(key, "chimera.webhook", tenant, subscription, str(generation))


def key_id(key: bytes) -> str:
    """A name of the platform's key that says nothing about it (12 hex digits)."""
    return derive(key, "chimera.webhook.key-id").hex()[:12]


def shown(secret: bytes) -> str:
    """A secret as its receiver is given it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode("ascii")


def parse(text: str) -> bytes:
    """The secret that `shown` wrote. Raises ValueError for anything else, or for less than 24 bytes."""
    secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    if not 24 <= len(secret) <= 64:
        raise ValueError("a secret has 24 to 64 bytes")
    return secret


def signed(secrets: Sequence[bytes], message: str, at: float, body: bytes) -> dict[str, str]:
    """The headers that sign `body` as the message of this id at this time (seconds since the epoch)."""
    timestamp = str(int(at))
    content = b".".join((message.encode(), timestamp.encode(), body))
    signatures = (base64.b64encode(hmac.digest(secret, content, "sha256")).decode("ascii") for secret in secrets)
    return {
        HEADER_ID: message,
        HEADER_TIMESTAMP: timestamp,
        HEADER_SIGNATURE: " ".join(f"v1,{signature}" for signature in signatures),
    }
