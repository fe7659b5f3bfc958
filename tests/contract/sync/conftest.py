"""A source on each database, with a repository made by the real git and a clock that a test moves."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.changes.people import StoredPeople
from chimera.adapters.storage.changes.store import ChangeStorage
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.schema.journal import event
from chimera.adapters.storage.sources import SourceStorage
from chimera.bootstrap.sync_parts import ByPolicy, unpacked
from chimera.delivery.git.follower import LEASE, Follower
from chimera.delivery.git.ports import Delivery
from chimera.delivery.git.settings import SyncSettings
from chimera.delivery.git.sources import Source, SourceSpec, SourceState
from chimera.delivery.model import Change
from chimera.delivery.pipeline import Parts, Pipeline
from chimera.delivery.policy import DeliveryPolicy
from chimera.delivery.service import Asker, Changes
from chimera.delivery.settings import DeliverySettings
from chimera.kernel.leases import Lease
from chimera.testing.clock import ManualClock
from chimera.testing.repositories import InlineRepositories, Repository

TENANT, NAME, WHO = "default", "catalogue", "key:tests"
ADMIN = Asker(actor="user:https://idp.example|ada", roles=frozenset({"admin"}))


@dataclass(kw_only=True)
class Sync:
    """All that a test of following has."""

    database: Database
    clock: ManualClock
    catalogue: Catalogue
    store: SourceStorage
    changes: Changes
    repositories: InlineRepositories
    repository: Repository
    settings: SyncSettings
    lease: Lease
    delivered: int = 0
    secrets: dict[str, str] = field(default_factory=dict)

    def follower(self, *, delivery: Delivery | None = None, store: Any = None) -> Follower:
        async def secret(reference: str) -> str:
            return self.secrets[reference]

        def changed() -> None:
            self.delivered += 1

        return Follower(
            store or self.store,
            self.repositories,
            delivery or ByPolicy(self.store, self.changes),
            self.clock,
            self.settings,
            secrets=secret,
            unpack=unpacked,
            changed=changed,
        )

    async def add(self, name: str = NAME, **spec: Any) -> None:
        wanted = SourceSpec(**({"url": self.repository.url} | spec))
        await self.store.put(TENANT, name, wanted, WHO)

    async def source(self, name: str = NAME) -> Source:
        found = await self.store.get(TENANT, name)
        assert found is not None
        return found

    async def look(self, name: str = NAME, **parts: Any) -> SourceState:
        """Look at one source, whether it is due or not."""
        await self.follower(**parts).follow(await self.source(name), self.lease)
        return (await self.source(name)).state

    async def live(self) -> dict[str, str]:
        rows = await self.catalogue.agents(TENANT, {}, "", 10_000)
        return {row["name"]: row["revision"] for row in rows}

    async def facts(self) -> list[str]:
        query = select(event.c.type).order_by(event.c.seq)
        return list(await self.database.read(lambda connection: connection.execute(query).scalars().all()))

    def commit(self, files: Mapping[str, str | None], message: str = "Change") -> str:
        return self.repository.commit(files, message)

    async def confirm(self, **commits: str | None) -> None:
        await self.store.run(TENANT, NAME, WHO, **({"prune": None, "rewrite": None} | commits))


def policed(policy: DeliveryPolicy, *, direct: bool) -> DeliveryPolicy:
    return replace(policy, direct=direct)


@pytest.fixture
async def strict(sync: Sync) -> Sync:
    """One agent is live; from now on the tenant wants change requests."""
    sync.commit(sync.repository.agents("ann"))
    await sync.add()
    await sync.look()
    policy = (await sync.changes.policy(TENANT)).policy
    await sync.changes.put_policy(TENANT, ADMIN, policed(policy, direct=False), expect=None)
    return sync


async def approve(sync: Sync, change: str | None) -> Change:
    """Have a change checked, approved and rolled out; what it is then."""
    assert change is not None
    store = ChangeStorage(sync.database, sync.catalogue, sync.clock)
    pipeline = Pipeline(store, Parts(), sync.clock, DeliverySettings())
    await pipeline.settle()
    content = (await sync.changes.change(TENANT, change)).content
    await sync.changes.decide(TENANT, ADMIN, change, "approved", content=content, comment="")
    await pipeline.settle()
    return await sync.changes.change(TENANT, change)


@pytest.fixture
async def sync(database: Database, tmp_path: Path) -> Sync:
    if shutil.which("git") is None:
        pytest.skip("needs git")
    clock = ManualClock()
    catalogue = Catalogue(database, max_hosts=4, clock=clock)
    lease = await StoredLeases(database).acquire(LEASE, "tests", 3600.0)
    assert lease is not None
    return Sync(
        database=database,
        clock=clock,
        catalogue=catalogue,
        store=SourceStorage(database, catalogue, clock),
        changes=Changes(ChangeStorage(database, catalogue, clock), StoredPeople(database), clock, lambda: None),
        repositories=InlineRepositories(tmp_path / "copies"),
        repository=Repository(tmp_path / "repository"),
        settings=SyncSettings(folders=(str(tmp_path),), poll=0.05),
        lease=lease,
    )
