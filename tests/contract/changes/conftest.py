"""Changes on each database: with a catalogue beside them, a clock that a test moves, and people to act."""

from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import select

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.changes.people import StoredPeople
from chimera.adapters.storage.changes.store import ChangeStorage
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.schema.journal import audit_entry, event
from chimera.agents.compile import CompiledAgent
from chimera.delivery.model import Change
from chimera.delivery.pipeline import Parts, Pipeline
from chimera.delivery.service import Asker, Changes, Draft
from chimera.delivery.settings import DeliverySettings
from chimera.testing.clock import ManualClock
from chimera.testing.definitions import compiled, staged

TENANT = "default"


def asker(name: str, *roles: str, agents: frozenset[str] | None = None) -> Asker:
    return Asker(actor=f"user:https://idp.example|{name}", roles=frozenset(roles), agents=agents)


ANNA = asker("anna", "operator")
BEN = asker("ben", "approver")
CARA = asker("cara", "approver")
ADMIN = asker("ada", "admin")


@dataclass
class Delivery:
    """All that a test of changes has."""

    database: Database
    clock: ManualClock
    catalogue: Catalogue
    store: ChangeStorage
    changes: Changes
    parts: Parts
    settings: DeliverySettings

    def pipeline(self, store: Any = None) -> Pipeline:
        return Pipeline(store or self.store, self.parts, self.clock, self.settings)

    async def settle(self) -> None:
        await self.pipeline().settle()

    async def batch(self, *agents: CompiledAgent) -> str:
        batch = await self.catalogue.open_batch(TENANT)
        await self.catalogue.stage(TENANT, batch, staged(*agents))
        return batch

    async def apply(self, *agents: CompiledAgent) -> None:
        await self.catalogue.apply(TENANT, staged(*agents), keep_going=False, expect=None, by="user:somebody")

    async def open(self, *agents: CompiledAgent, by: Asker = ANNA, **draft: Any) -> Change:
        batch = await self.batch(*agents) if agents else None
        return await self.changes.open(TENANT, by, Draft(**({"title": "A change", "batch": batch} | draft)))

    async def approve(self, change: Change, by: Asker = BEN, **more: Any) -> Change:
        content = more.get("content", change.content)
        return await self.changes.decide(TENANT, by, change.id, "approved", content=content, comment="fine")

    async def now(self, change: Change) -> Change:
        return await self.changes.change(TENANT, change.id)

    async def live(self, name: str) -> str | None:
        row = await self.catalogue.agent(TENANT, name)
        return None if row is None else row["revision"]

    async def facts(self, prefix: str = "change.") -> list[str]:
        query = select(event.c.type).order_by(event.c.seq)
        rows = await self.database.read(lambda connection: connection.execute(query).scalars().all())
        return [name for name in rows if name.startswith(prefix)]

    async def audited(self, action: str) -> int:
        query = select(audit_entry.c.seq).where(audit_entry.c.action == action)
        return len(await self.database.read(lambda connection: connection.execute(query).all()))


@pytest.fixture
def delivery(database: Database) -> Delivery:
    clock = ManualClock()
    catalogue = Catalogue(database, max_hosts=4, clock=clock)
    store = ChangeStorage(database, catalogue, clock)
    changes = Changes(store, StoredPeople(database), clock, lambda: None)
    return Delivery(database, clock, catalogue, store, changes, Parts(), DeliverySettings())


def better(name: str, number: int = 2, **more: Any) -> CompiledAgent:
    """A definition that differs from the plain one by its tags: a change of low risk."""
    return compiled(name, metadata={"tags": [f"domain:n{number}"]}, budget={"tokens_per_day": 1_000}, **more)


def plain(name: str, **more: Any) -> CompiledAgent:
    return compiled(name, budget={"tokens_per_day": 1_000}, **more)
