"""Events in memory: journal, subscriptions and deliveries that pass the same contract suite as the database's.

What is written under a lease is refused where the lease has changed hands; `away` lets everything fail.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from chimera.adapters.storage.leases import LeaseLost
from chimera.events.delivery.model import BUS, Kept, Outcome, Progress, Row, Subscription, Target
from chimera.events.model import RecordedFact
from chimera.kernel.leases import Lease


class MemoryEvents:
    """A `JournalReader` and `DeliveryStore`."""

    def __init__(self) -> None:
        """Start empty."""
        self.journal: dict[int, RecordedFact] = {}
        self.last = 0
        self.changes = 0
        self.stored: dict[str, Subscription] = {}
        self.rows: dict[tuple[str, int], Row] = {}
        self.over: set[tuple[str, int]] = set()
        self.webhooks: dict[tuple[str, str], Target] = {}
        self.token: int | None = None
        self.away = False
        self.reads = 0
        self.writes = 0

    # -- filling it ----------------------------------------------------------------------------------------------------

    def happen(self, subject: str, type_: str = "tenant.resumed", tenant: str = "default", at: float = 0.0) -> int:
        """Record a fact; its place."""
        self.last += 1
        self.journal[self.last] = RecordedFact(
            seq=self.last,
            id=f"evt_{self.last}",
            type=type_,
            tenant=tenant,
            subject=subject,
            at=at,
            data=msgspec.Raw(b"{}"),
        )
        return self.last

    def subscribe(self, name: str, **fields: Any) -> Subscription:
        """Store a subscription that begins with what comes next."""
        made = {"tenant": "default", "url": f"https://{name}.example/in", "key": "k", "cursor": self.last}
        made |= {"created": 0.0, "updated": 0.0, "created_by": "key:one", "id": name, "name": name, **fields}
        self.stored[name] = msgspec.convert(made, Subscription)
        self.changes += 1
        return self.stored[name]

    def change(self, name: str, **fields: Any) -> None:
        """Change a subscription as the API does."""
        before = self.stored[name]
        moved = before.epoch + 1 if "cursor" in fields else before.epoch
        self.stored[name] = replace(before, version=before.version + 1, epoch=moved, **fields)
        self.changes += 1

    def delete(self, name: str) -> None:
        """Delete a subscription with its deliveries."""
        del self.stored[name]
        self.rows = {key: row for key, row in self.rows.items() if key[0] != name}
        self.changes += 1

    def letters(self, name: str) -> list[int]:
        """The places of a subscription's dead letters."""
        return sorted(seq for (one, seq), row in self.rows.items() if one == name and row.letter is not None)

    def replay(self, name: str, seq: int) -> None:
        """Have a dead letter delivered again."""
        row = self.rows[name, seq]
        assert row.letter is not None
        self.rows[name, seq] = Row(seq=seq, tenant=row.tenant, target=row.target, fact=row.fact)
        self.change(name)

    def drop(self, name: str, seq: int) -> None:
        """Drop a dead letter."""
        assert self.rows.pop((name, seq)).letter is not None
        self.over.add((name, seq))
        self.change(name)

    # -- JournalReader -------------------------------------------------------------------------------------------------

    async def heads(self) -> tuple[int, int]:
        """See `JournalReader`."""
        self._check()
        return self.last, self.changes

    async def facts(self, after: int, limit: int) -> Sequence[RecordedFact]:
        """See `JournalReader`."""
        self._check()
        self.reads += 1
        found = []
        for seq in range(after + 1, self.last + 1):
            if (fact := self.journal.get(seq)) is not None:
                found.append(fact)
            if len(found) == limit:
                break
        return found

    async def facts_at(self, places: Sequence[int]) -> Sequence[RecordedFact]:
        """See `JournalReader`."""
        self._check()
        return [self.journal[seq] for seq in sorted(places) if seq in self.journal]

    async def facts_of(
        self, tenant: str | None, *, after: int | None = None, before: int | None = None, limit: int
    ) -> Sequence[RecordedFact]:
        """See `JournalReader`."""
        mine = [fact for fact in self.journal.values() if tenant in (None, fact.tenant)]
        if after is not None:
            return [fact for fact in mine if fact.seq > after][:limit]
        return [fact for fact in reversed(mine) if before is None or fact.seq < before][:limit]

    async def oldest(self) -> int:
        """See `JournalReader`."""
        return min(self.journal, default=self.last + 1)

    # -- DeliveryStore -------------------------------------------------------------------------------------------------

    async def adopt(self, key: str) -> None:
        """See `DeliveryStore`."""
        self._check()
        for name, one in self.stored.items():
            if one.kind == BUS and not one.key:
                self.stored[name] = replace(one, key=key, version=one.version + 1)

    async def subscriptions(self, key: str) -> Sequence[Subscription]:
        """See `DeliveryStore`."""
        self._check()
        return [one for one in self.stored.values() if one.key == key]

    async def kept(self, subscription: Subscription, cursor: int) -> Kept:
        """See `DeliveryStore`."""
        self._check()
        mine = sorted((seq, row) for (name, seq), row in self.rows.items() if name == subscription.id)
        dead = {seq for seq, row in mine if row.letter is not None}
        dropped = {seq for name, seq in self.over if name == subscription.id}
        return Kept(
            rows=[row for _, row in mine if row.letter is None],
            over=frozenset(seq for seq in dead | dropped if seq > cursor),
        )

    async def targets(self, tasks: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], Target]:
        """See `DeliveryStore`."""
        self._check()
        return {task: self.webhooks[task] for task in tasks if task in self.webhooks}

    async def save(self, progress: Sequence[Progress], lease: Lease) -> None:
        """See `DeliveryStore`."""
        self._check()
        if self.token is not None and lease.token != self.token:
            raise LeaseLost("another process holds it")
        self.writes += 1
        for one in progress:
            there = self.stored.get(one.subscription)
            if there is None or there.epoch != one.epoch:
                continue
            moved = replace(
                there,
                cursor=max(there.cursor, one.cursor),
                delivered=one.delivered or there.delivered,
                failed=one.failed or there.failed,
                failure=there.failure if one.failed is None else one.failure,
            )
            if one.pause and there.state == "active":
                moved = replace(moved, state="paused", why=one.pause, version=there.version + 1)
                self.changes += 1
            self.stored[one.subscription] = moved
            self.rows |= {(one.subscription, row.seq): row for row in one.put}
            for seq in one.drop:
                if (row := self.rows.get((one.subscription, seq))) is not None and row.letter is None:
                    del self.rows[one.subscription, seq]
            for task in one.tasks:
                self.webhooks.pop(task, None)

    def _check(self) -> None:
        if self.away:
            raise OSError("nobody answers")


class FixedSecrets:
    """A `Secrets` with one secret for everything; none for what is named `missing`."""

    secret = b"s" * 32

    async def of_subscription(self, subscription: Subscription, now: float) -> Sequence[bytes]:
        """See `Secrets`."""
        if subscription.secret == "missing":
            raise LookupError(subscription.secret)
        return (self.secret,)

    async def of_task(self, tenant: str, task: str, target: Target) -> Sequence[bytes]:
        """See `Secrets`."""
        return (self.secret,)


FAILED = Outcome(result="failed", status=500, reason="the receiver answered 500")
DELIVERED = Outcome(result="delivered", status=200)
GONE = Outcome(result="gone", status=410, reason="the receiver answered 410: it wants no more")
