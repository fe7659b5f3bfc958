"""The PostgreSQL server killed and back, while processes write: they recover, and what was acknowledged is there.

The server flushes its writes here. `CHIMERA_TEST_KILLS` says how often it is killed (4 by default).
"""

import asyncio
import os
import random
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.errors import StorageAway, StorageError, StorageUnsure
from chimera.adapters.storage.gateway import GatewayStorage
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.schema.journal import audit_entry, event
from chimera.events.model import Fact
from chimera.gateway.state.model import StoredSession
from chimera.immune.audit.chain import GENESIS, link
from chimera.immune.audit.model import AuditRecord
from chimera.testing.postgresql import PostgreSQLServer
from chimera_host.contract.call import Message, SessionState

KILLS = int(os.environ.get("CHIMERA_TEST_KILLS", "4"))
SEED = int(os.environ.get("CHIMERA_TEST_SEED", "7"))
LONGEST = 0.3
RECOVERY = 30.0


@pytest.fixture
def server() -> Iterator[PostgreSQLServer]:
    with PostgreSQLServer(durable=True) as made:
        yield made


class Writer:
    """Saves one session version by version and records facts, and remembers what was acknowledged."""

    def __init__(self, database: Database, name: str) -> None:
        self.database = database
        self.store = GatewayStorage(database)
        self.name = name
        self.version = 0
        self.facts: set[str] = set()
        self.refusals: list[StorageError] = []
        self.since_kill = 0

    async def run(self) -> None:
        number = 0
        while True:
            number += 1
            try:
                await self._save()
                await self._record(f"{self.name}-{number}")
                self.since_kill += 1
            except StorageError as error:
                assert error.retry_after is not None, error.detail
                self.refusals.append(error)
                await asyncio.sleep(0.02)

    async def _save(self) -> None:
        state = SessionState(messages=(Message(role="user", content=f"{self.name} {self.version + 1}"),))
        stored = StoredSession(
            tenant="default", agent="a", session=self.name, version=self.version + 1, state=state, updated=0.0
        )
        try:
            await self.store.save_session(stored)
            self.version += 1
        except StorageUnsure:
            self.version = await self._version()
            raise

    async def _version(self) -> int:
        while True:
            try:
                found = await self.store.load_session("default", "a", self.name)
                return found.version if found else 0
            except StorageAway:
                await asyncio.sleep(0.05)

    async def _record(self, name: str) -> None:
        def job(connection: object) -> None:
            records = journal(connection)
            data = {"name": name, "by": "system:test"}
            records.fact(Fact(id=f"evt_{name}", type="tenant.created", tenant="t", subject=name, at=1.0, data=data))
            records.audit(AuditRecord(at=1.0, tenant="t", actor="system:test", action="test:do", resource=name))

        await self.database.write(job)
        self.facts.add(name)


async def check(database: Database, writers: list[Writer]) -> None:
    for writer in writers:
        stored = await writer.store.load_session("default", "a", writer.name)
        assert (stored.version if stored else 0) >= writer.version
    facts = await database.read(
        lambda connection: connection.execute(
            select(event.c.seq, event.c.subject, event.c.type).order_by(event.c.seq)
        ).all()
    )
    assert [seq for seq, _, _ in facts] == list(range(1, len(facts) + 1)), "places have gaps"
    subjects = [subject for _, subject, kind in facts if kind == "tenant.created"]
    assert len(subjects) == len(set(subjects)), "a fact is there twice"
    assert set().union(*(writer.facts for writer in writers)) <= set(subjects), "an acknowledged fact is lost"
    entries = await database.read(
        lambda connection: connection.execute(
            select(audit_entry.c.seq, audit_entry.c.entry, audit_entry.c.hash).order_by(audit_entry.c.seq)
        ).all()
    )
    last = GENESIS
    for seq, entry, hashed in entries:
        last = link(last, seq, entry)
        assert hashed == last, f"the chain breaks at {seq}"


@pytest.mark.slow
async def test_a_server_killed_and_back_loses_nothing_acknowledged(server: PostgreSQLServer) -> None:
    url, moments = server.new_database(), random.Random(SEED)
    databases = [open_database(url) for _ in range(2)]
    writers = [Writer(database, f"w{number}-{n}") for number, database in enumerate(databases) for n in range(4)]
    running = [asyncio.create_task(writer.run(), name=writer.name) for writer in writers]
    try:
        for _ in range(KILLS):
            await asyncio.sleep(moments.uniform(0.0, LONGEST))
            await asyncio.to_thread(server.kill)
            for writer in writers:
                writer.since_kill = 0
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(RECOVERY):
                while not all(writer.since_kill > 1 for writer in writers):
                    for task in running:
                        if task.done():
                            await task
                    await asyncio.sleep(0.02)
        assert any(writer.refusals for writer in writers), "no kill was noticed"
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    await check(databases[0], writers)
    for database in databases:
        await asyncio.to_thread(database.close)


async def test_while_the_server_is_away_callers_are_told_at_once(server: PostgreSQLServer) -> None:
    database = open_database(server.new_database())
    store = GatewayStorage(database)
    assert await store.load_session("default", "a", "s") is None

    await asyncio.to_thread(server.kill)

    for ask in (store.load_session("default", "a", "s"), store.delete_session("default", "a", "s")):
        async with asyncio.timeout(10):
            with pytest.raises(StorageAway) as caught:
                await ask
        assert caught.value.status == 503
        assert caught.value.retry_after
        assert "postgresql://" not in caught.value.detail
    await asyncio.to_thread(server.start)
    assert await store.delete_session("default", "a", "s") is False
    await asyncio.to_thread(database.close)


async def test_a_server_restarted_in_order_is_not_even_noticed(server: PostgreSQLServer) -> None:
    database = open_database(server.new_database())
    store = GatewayStorage(database)
    assert await store.load_session("default", "a", "s") is None
    assert await store.delete_session("default", "a", "s") is False

    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)

    assert await store.load_session("default", "a", "s") is None
    assert await store.delete_session("default", "a", "s") is False
    await asyncio.to_thread(database.close)
