"""What subscriptions need of storage."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from chimera.events.delivery.model import Counts, Letter, Subscription

Changed = Literal["updated", "paused", "resumed", "rotated"]
NOW: Literal["now"] = "now"
BEGINNING: Literal["beginning"] = "beginning"
Start = int | Literal["now", "beginning"]
"""Where a subscription begins: behind a place, with what comes from now on, or with all that is kept."""


class SubscriptionStore(Protocol):
    """Subscriptions and dead letters. Each change is stored with its fact and audit entry, and named in `by`.

    Methods that name a subscription raise `SubscriptionNotFound`.
    """

    async def create(self, subscription: Subscription, start: Start, by: str, *, most: int) -> Subscription:
        """Store a new one. Raises `SubscriptionExists`, `TooManySubscriptions`, `EventsGone`."""

    async def get(self, tenant: str, name: str) -> Subscription | None:
        """One by its name."""

    async def page(self, tenant: str, after: str, limit: int) -> Sequence[Subscription]:
        """By name."""

    async def change(
        self,
        tenant: str,
        name: str,
        change: Callable[[Subscription], Subscription],
        *,
        what: Changed,
        by: str,
        start: Start | None = None,
    ) -> Subscription:
        """Change one, and move its cursor to `start` where that is given.

        Raises what `change` raises, and `EventsGone` where it would go on at a place that the journal has no more.
        """

    async def delete(self, tenant: str, name: str, by: str) -> None:
        """Remove one with its deliveries and dead letters."""

    async def counts(self, tenant: str, subscriptions: Sequence[str]) -> Mapping[str, Counts]:
        """How these of a tenant stand, by id."""

    async def letters(self, tenant: str, subscription: str | None, after: str, limit: int) -> Sequence[Letter]:
        """Dead letters of a tenant, or of one subscription by its name, oldest first."""

    async def letter(self, tenant: str, letter: str) -> Letter | None:
        """One by its id."""

    async def replay(self, tenant: str, letters: Sequence[str], by: str) -> int:
        """Have dead letters delivered again; how many that are. Raises `LetterNotFound` for one that isn't there."""

    async def drop(self, tenant: str, letters: Sequence[str], by: str) -> int:
        """Remove dead letters for good; how many that were. Raises `LetterNotFound` for one that isn't there."""
