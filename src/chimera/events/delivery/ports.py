"""What delivery needs: the journal to read, subscriptions and their progress to keep, a way to send, secrets."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from chimera.events.delivery.entries import Entry
from chimera.events.delivery.model import Kept, Outcome, Progress, Subscription, Target
from chimera.events.model import RecordedFact
from chimera.kernel.leases import Lease


class JournalReader(Protocol):
    """The journal's facts, in their order without gaps; the oldest may have been removed."""

    async def heads(self) -> tuple[int, int]:
        """The last place given, and how often subscriptions were changed by anybody."""

    async def facts(self, after: int, limit: int) -> Sequence[RecordedFact]:
        """Facts of all tenants behind a place."""

    async def facts_at(self, places: Sequence[int]) -> Sequence[RecordedFact]:
        """The facts at these places, as far as they are there."""

    async def facts_of(
        self, tenant: str | None, *, after: int | None = None, before: int | None = None, limit: int
    ) -> Sequence[RecordedFact]:
        """Facts of a tenant (None: of all): behind a place in order, else backwards from a place or the end."""

    async def oldest(self) -> int:
        """The place of the oldest fact that is still there; where none is, that of the next."""


class DeliveryStore(Protocol):
    """Subscriptions whose deliveries one key signs, and how far they are.

    What is written names the lease that it is written under; it raises where another process holds it.
    """

    async def adopt(self, key: str) -> None:
        """Take over each tenant's bus that nobody delivers: a new one, or one whose key has no process any more."""

    async def subscriptions(self, key: str) -> Sequence[Subscription]:
        """All of them, paused ones too."""

    async def kept(self, subscription: Subscription, cursor: int) -> Kept:
        """What is stored of its deliveries."""

    async def targets(self, tasks: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], Target]:
        """The webhooks of tasks (tenant, name), as far as they have one."""

    async def save(self, progress: Sequence[Progress], lease: Lease) -> None:
        """Write down progress, all of it or none; what is of a subscription that is gone or of an older epoch isn't."""


class Push(Protocol):
    """Sends requests to receivers that users name."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Send `body`; whatever goes wrong is an outcome."""


class Bus(Protocol):
    """Where events go that may start agents: in this process, or a broker's.

    What was published reaches each agent that subscribed at least once; `publish` answers `delivered` when that is
    certain whatever ends from then on.
    """

    async def refresh(self) -> None:
        """Know whatever is subscribed by now; `wants` is asked after it."""

    def wants(self, entry: Entry) -> bool:
        """Whether the event is to be published."""

    async def publish(self, entry: Entry) -> Outcome:
        """Publish it; whatever goes wrong is an outcome."""

    async def aclose(self) -> None:
        """Close connections."""


class Secrets(Protocol):
    """The secrets that deliveries are signed with."""

    async def of_subscription(self, subscription: Subscription, now: float) -> Sequence[bytes]:
        """Those in force, the newest first. Raises `LookupError` where there is none."""

    async def of_task(self, tenant: str, task: str, target: Target) -> Sequence[bytes]:
        """That of a task's webhook. Raises `LookupError` where there is none."""
