"""A text with NUL: a database that doesn't take it says whose fault it is, and others' writes go on."""

import asyncio

from sqlalchemy import Connection, insert, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.errors import UnstorableText
from chimera.adapters.storage.schema.leases import lease


async def test_a_text_with_nul_is_its_senders_fault_and_nobody_elses(database: Database, dialect: str) -> None:
    def job(name: str) -> object:
        def write(connection: Connection) -> None:
            connection.execute(insert(lease).values(name=name, owner="h", token=1, expires=0.0))

        return database.write(write)

    names = ["a", "b\0c", "d"]
    outcomes = await asyncio.gather(*map(job, names), return_exceptions=True)
    kept = await database.read(lambda connection: sorted(connection.execute(select(lease.c.name)).scalars()))
    if dialect == "sqlite":
        assert (outcomes, kept) == ([None] * 3, sorted(names))
        return
    assert [type(one) for one in outcomes] == [type(None), UnstorableText, type(None)]
    assert outcomes[1].status == 400
    assert kept == ["a", "d"]
