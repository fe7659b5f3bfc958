"""The secrets that sign deliveries: derived from the platform's key, or referred to by name; stored nowhere.

A reference is `secret:webhook.TENANT.NAME`, found where tools' secrets are. The tenant is part of the name, so that
nobody has messages signed with another tenant's secret, and only a secret that is written as one (`whsec_…`) signs, so
that nothing else that is kept there does.
"""

import re
from collections.abc import Awaitable, Callable, Sequence

from chimera.events import signing
from chimera.events.delivery.model import EVERYWHERE, Subscription, Target
from chimera.events.errors import InvalidSubscription
from chimera.kernel.clock import Clock
from chimera_host.contract.problem import ProblemError

KEPT = 5.0
"""Seconds for which a secret that was read by reference is taken as true."""
MOST_KEPT = 1_000
PREFIX = "secret:webhook."
PLATFORM = "_platform"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_PURPOSE = "chimera.webhook.task"


class WebhookSecrets:
    """The secrets of one gateway's key."""

    def __init__(self, key: bytes, read: Callable[[str], Awaitable[str]], clock: Clock) -> None:
        """Derive from `key`; `read` gives what a reference refers to."""
        self._key = key
        self._read = read
        self._clock = clock
        self._known: dict[str, tuple[float, bytes]] = {}
        self.key_id = signing.key_id(key)

    async def of_subscription(self, subscription: Subscription, now: float) -> Sequence[bytes]:
        """See `Secrets`."""
        if subscription.secret:
            return (await self._referred(subscription.secret),)
        found = [self._derived(subscription, subscription.generation)]
        if subscription.previous_until is not None and now < subscription.previous_until:
            found.append(self._derived(subscription, subscription.generation - 1))
        return found

    async def of_task(self, tenant: str, task: str, target: Target) -> Sequence[bytes]:
        """See `Secrets`."""
        if target.secret:
            return (await self._referred(target.secret),)
        return (signing.derive(self._key, _PURPOSE, tenant, task),)

    def shown(self, subscription: Subscription) -> str | None:
        """The secret that its receiver is given; None where it is referred to."""
        return None if subscription.secret else signing.shown(self._derived(subscription, subscription.generation))

    def shown_of_task(self, tenant: str, task: str) -> str:
        """The secret of a task's webhook that refers to none."""
        return signing.shown(signing.derive(self._key, _PURPOSE, tenant, task))

    def _derived(self, subscription: Subscription, generation: int) -> bytes:
        return signing.subscription_secret(self._key, subscription.tenant, subscription.id, generation)

    async def _referred(self, reference: str) -> bytes:
        now = self._clock.monotonic()
        known = self._known.get(reference)
        if known is not None and now < known[0]:
            return known[1]
        try:
            text = await self._read(reference)
            if not text.startswith(signing.SECRET_PREFIX):
                raise LookupError(f"{reference} is no secret of a webhook")
            secret = signing.parse(text)
        except (ProblemError, ValueError):
            raise LookupError(f"{reference} can't be had") from None  # what was read is not told
        if len(self._known) >= MOST_KEPT:
            self._known.clear()
        self._known[reference] = (now + KEPT, secret)
        return secret


def check_reference(reference: str, tenant: str) -> None:
    """Raise `InvalidSubscription` unless it names a secret of the tenant's webhooks."""
    prefix = f"{PREFIX}{PLATFORM if tenant == EVERYWHERE else tenant}."
    if not reference.startswith(prefix) or _NAME.fullmatch(reference.removeprefix(prefix)) is None:
        raise InvalidSubscription(
            f"a secret is referred to as {prefix}NAME, not {reference[:100]!r}",
            next_step="store a `whsec_…` secret under that name, or leave `secret` out to have one made",
        )
