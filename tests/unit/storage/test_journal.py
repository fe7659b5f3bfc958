"""The journal: what a transaction recorded gets its place with the commit, without gaps, and nothing else does."""

import asyncio

import pytest
from sqlalchemy import Connection, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.schema.journal import audit_entry, event, journal_head
from chimera.events.model import Fact
from chimera.immune.audit.chain import GENESIS, link
from chimera.immune.audit.model import AuditRecord


def told(name: str) -> dict[str, str]:
    return {"name": name, "by": "system:test"}


def record(connection: Connection, name: str) -> str:
    found = journal(connection)
    found.fact(Fact(id=f"evt_{name}", type="tenant.created", tenant="t", subject=name, at=1.0, data=told(name)))
    found.audit(AuditRecord(at=1.0, tenant="t", actor="system:test", action="test:do", resource=name))
    return name


async def facts(database: Database) -> list[tuple[int, str]]:
    query = select(event.c.seq, event.c.subject).order_by(event.c.seq)
    return await database.read(lambda connection: [tuple(row) for row in connection.execute(query)])


async def check_chain(database: Database) -> int:
    query = select(audit_entry.c.seq, audit_entry.c.entry, audit_entry.c.hash).order_by(audit_entry.c.seq)
    rows = await database.read(lambda connection: connection.execute(query).all())
    last = GENESIS
    for place, (seq, entry, hashed) in enumerate(rows, start=1):
        assert seq == place
        last = link(last, seq, entry)
        assert hashed == last
    head = await database.read(lambda connection: connection.execute(select(journal_head)).one())
    assert (head.audit_seq, head.audit_hash) == (len(rows), last)
    return len(rows)


async def test_what_is_recorded_stands_in_its_order(database: Database) -> None:
    for name in ("a", "b"):
        await database.write(lambda connection, name=name: record(connection, name))
    assert await facts(database) == [(1, "a"), (2, "b")]
    assert await check_chain(database) == 2


async def test_a_job_that_fails_leaves_nothing_and_no_gap(database: Database) -> None:
    def fails(connection: Connection) -> None:
        record(connection, "lost")
        raise ValueError("no")

    jobs = [database.write(lambda connection, n=number: record(connection, f"kept-{n}")) for number in range(40)]
    failing = [database.write(fails) for _ in range(20)]
    outcomes = await asyncio.gather(*jobs, *failing, return_exceptions=True)

    assert sum(isinstance(outcome, ValueError) for outcome in outcomes) == 20
    assert [seq for seq, _ in await facts(database)] == list(range(1, 41))
    assert {subject for _, subject in await facts(database)} == {f"kept-{number}" for number in range(40)}
    assert await check_chain(database) == 40


async def test_several_processes_share_one_order_and_one_chain(database: Database, database_name: str) -> None:
    others = [open_database(database_name) for _ in range(2)]
    everyone = [database, *others]
    await asyncio.gather(
        *(
            one.write(lambda connection, n=f"{index}-{number}": record(connection, n))
            for number in range(50)
            for index, one in enumerate(everyone)
        )
    )
    for other in others:
        await asyncio.to_thread(other.close)
    assert [seq for seq, _ in await facts(database)] == list(range(1, 151))
    assert await check_chain(database) == 150


@pytest.mark.parametrize("quick", [False, True])
async def test_a_reader_has_no_journal(database: Database, quick: bool) -> None:
    with pytest.raises(RuntimeError, match="only a job"):
        await database.read(lambda connection: record(connection, "x"), quick=quick)


async def test_a_follower_with_a_cursor_misses_nothing(database: Database, database_name: str) -> None:
    others = [open_database(database_name) for _ in range(3)]

    async def follow() -> None:
        seen = 0
        while seen < 300:
            query = select(event.c.seq).where(event.c.seq > seen).order_by(event.c.seq).limit(20)
            places = await database.read(lambda connection, q=query: list(connection.execute(q).scalars()))
            assert places == list(range(seen + 1, seen + 1 + len(places))), "a place was filled behind the cursor"
            seen += len(places)

    async def write(one: Database, index: int) -> None:
        for number in range(100):
            await one.write(lambda connection, n=f"{index}-{number}": record(connection, n))

    async with asyncio.timeout(30):
        await asyncio.gather(follow(), *(write(one, index) for index, one in enumerate(others)))
    for other in others:
        await asyncio.to_thread(other.close)


async def test_a_fact_that_does_not_fit_fails_its_own_job_alone(database: Database) -> None:
    def unfit(connection: Connection) -> None:
        data = told("half of a pair: \ud800")  # it has the right form, and can't be written as UTF-8
        journal(connection).fact(Fact(id="evt_x", type="tenant.created", tenant="t", subject="x", at=1.0, data=data))

    jobs = [database.write(lambda connection, n=number: record(connection, f"kept-{n}")) for number in range(20)]
    outcomes = await asyncio.gather(database.write(unfit), *jobs, return_exceptions=True)

    assert isinstance(outcomes[0], UnicodeEncodeError)
    assert outcomes[1:] == [f"kept-{number}" for number in range(20)]
    assert [seq for seq, _ in await facts(database)] == list(range(1, 21))


async def test_a_fact_that_is_not_in_the_catalogue_is_not_recorded(database: Database) -> None:
    def unknown(connection: Connection) -> None:
        journal(connection).fact(Fact(id="evt_x", type="test.done", tenant="t", subject="x", at=1.0, data={}))

    def malformed(connection: Connection) -> None:
        data = {**told("x"), "secret": "?"}
        journal(connection).fact(Fact(id="evt_x", type="tenant.created", tenant="t", subject="x", at=1.0, data=data))

    for job in (unknown, malformed):
        with pytest.raises(ValueError, match=r"not in the catalogue|unknown field"):
            await database.write(job)
    assert await facts(database) == []
