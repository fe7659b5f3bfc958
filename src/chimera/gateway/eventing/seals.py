"""Seals on the platform's own events where a broker carries them: who may write to the broker can't write those.

A broker takes events of anybody who reaches it, and hands them on without saying whose they are. An agent that
`chimera.task.failed` starts relies on a task that failed; so the gateways seal what they publish with a key that they
share, and take no event of a type of the platform's without a seal that fits. The seal covers what names the event and
what it says, and not what a broker may write anew (the form of its time) or add.
"""

import hashlib
import hmac
from collections.abc import Mapping

from chimera.events.cloudevents import TYPE_PREFIX
from chimera.gateway.eventing.happening import HOPS, Happening

SEAL = "chimeraseal"
_COVERED = ("id", "source", "type", "subject", "tenant", "sequence", HOPS)


def seal_key(secret: bytes) -> bytes:
    """The key of seals, from the secret that all gateways of a platform share."""
    return hmac.digest(secret, b"broker-seal", "sha256")


def seal(key: bytes, attributes: Mapping[str, str], data: bytes) -> str:
    """The seal of an event."""
    parts = [attributes.get(name, "") for name in _COVERED]
    text = "\0".join([*parts, hashlib.sha256(data).hexdigest()])
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def is_genuine(key: bytes, event: Happening) -> bool:
    """Whether the event is not of the platform's types, or has a seal that fits."""
    if not event.type.startswith(TYPE_PREFIX):
        return True
    wanted = seal(key, event.attributes, event.json or event.binary or b"")
    return hmac.compare_digest(wanted, event.attributes.get(SEAL, ""))
