"""Removing many rows by one statement: exactly the keys that were named, and what belongs to them."""

from itertools import product
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.removing import delete_first, delete_keys, rows_of
from chimera.adapters.storage.schema.state import (
    checkpoint,
    checkpoint_write,
    run,
    session,
    step,
    stored_answer,
)
from chimera.adapters.storage.schema.subscriptions import delivery
from chimera.adapters.storage.state.runs import expire_runs
from chimera.adapters.storage.state.sessions import expire_sessions

SESSION = {"version": 1, "state": b"{}", "updated": 0.0}
KEY = (session.c.tenant, session.c.agent, session.c.session)
STRANGE = ("it's", '"quoted"', "back\\slash", "ünï😀", "1", "null", "{a,b}", "")


async def of(database: Database, columns: Any) -> set[Any]:
    return await database.read(lambda connection: {tuple(row) for row in connection.execute(select(*columns))})


async def test_those_go_that_are_named_and_no_mixture_of_them(database: Database) -> None:
    every = set(product(("t1", "t2"), ("a", "b"), STRANGE))
    gone = [("t1", "a", STRANGE[0]), ("t2", "b", STRANGE[1]), *(("t2", "a", name) for name in STRANGE)]

    def job(connection: Connection) -> int:
        rows = [dict(zip(("tenant", "agent", "session"), key, strict=True)) | SESSION for key in every]
        connection.execute(insert(session), rows)
        assert delete_keys(connection, KEY, gone, session.c.version == 2) == 0
        assert delete_keys(connection, KEY, []) == 0
        return delete_keys(connection, KEY, [*gone, ("t1", "nobody", "x")])

    assert await database.write(job) == len(gone)
    assert await of(database, KEY) == every - set(gone)


async def test_keys_are_rows_of_a_query_whatever_they_are(database: Database) -> None:
    columns = (delivery.c.tenant, delivery.c.subscription, delivery.c.seq)
    keys = [(name, "sub", number << 40) for number, name in enumerate(STRANGE)]
    found = await database.read(lambda connection: connection.execute(rows_of(connection, columns, keys)).all())
    assert [tuple(row) for row in found] == keys
    none = await database.read(lambda connection: connection.execute(rows_of(connection, columns, ())).all())
    assert none == []


async def test_the_first_go_and_no_more_than_so_many(database: Database) -> None:
    def job(connection: Connection) -> list[int]:
        row = {"tenant": "t", "run": "r", "digest": b"\x00\xff", "answer": b"", "created": 0.0}
        rows = [{**row, "key": f"k{number}", "expires": float(number)} for number in range(10)]
        connection.execute(insert(stored_answer), rows)
        ended = stored_answer.c.expires
        return [delete_first(connection, stored_answer, ended < 7, ended, 3) for _ in range(4)]

    assert await database.write(job) == [3, 3, 1, 0]
    assert await of(database, [stored_answer.c.key]) == {("k7",), ("k8",), ("k9",)}


def put_all(connection: Connection, *, ends: dict[str, float]) -> None:
    """In two tenants, for two agents: sessions and runs that are called alike, with all that they have."""
    for tenant, agent, name in product(("t1", "t2"), ("a", "b"), ends):
        key = {"tenant": tenant, "agent": agent}
        expires = ends[name] if (tenant, agent) == ("t1", "a") else 1e12
        connection.execute(insert(session).values(**key, session=name, **SESSION, expires=expires))
        run_id = f"{agent}-{name}"
        row = {"status": "open", "keyed": 0, "digest": b"", "request": b"", "base": 0, "attempt": 1, "holder": ""}
        row |= {"steps": 1, "bytes": 0, "created": 0.0, "updated": 0.0}
        connection.execute(insert(run).values(tenant=tenant, run=run_id, agent=agent, session=name, **row, expires=1.0))
        part = {"tenant": tenant, "run": run_id, "digest": b""}
        connection.execute(insert(step).values(**part, step="s", seq=1, kind="k", output=b"", at=0.0))
        connection.execute(insert(stored_answer).values(**part, key="k", answer=b"", created=0.0, expires=1e12))
        for scope in (f"session/{name}", f"run/{run_id}"):
            its = {**key, "scope": scope, "thread": "t", "namespace": "", "checkpoint": "c", "kind": "k", "value": b""}
            connection.execute(insert(checkpoint).values(**its, metadata=b"", run=run_id, at=0.0))
            connection.execute(insert(checkpoint_write).values(**its, task="t", idx=0, channel="c", path=""))


@pytest.mark.parametrize("table", [run, step, stored_answer, checkpoint, checkpoint_write])
async def test_a_session_goes_with_all_that_is_its_own_and_nothing_that_is_called_alike(
    database: Database, table: Any
) -> None:
    name = table.c.scope if "scope" in table.c else table.c.run
    owner = [table.c.tenant, *([table.c.agent] if "agent" in table.c else []), name]

    def job(connection: Connection) -> int:
        put_all(connection, ends={"s1": 1.0, "s2": 2.0, "s3": 1e12})
        return expire_sessions(connection, 10.0, 100)

    assert await database.write(job) == 2
    left = await of(database, owner)
    alike = {("s1", "t1", "a"), ("s2", "t1", "a")}
    expected = set()
    for tenant, agent, one in product(("t1", "t2"), ("a", "b"), ("s1", "s2", "s3")):
        ids = [f"session/{one}", f"run/{agent}-{one}"] if "scope" in table.c else [f"{agent}-{one}"]
        if (one, tenant, agent) in alike:
            ids = [which for which in ids if which.startswith("run/")]  # which no run without a session has
        expected |= {(tenant, *([agent] if "agent" in table.c else []), which) for which in ids}
    assert left == expected


async def test_checkpoints_stay_while_their_session_is_there_or_another_run_of_it(database: Database) -> None:
    def job(connection: Connection) -> int:
        put_all(connection, ends={"s1": 1e12, "s2": 1e12, "s3": 1e12})
        connection.execute(session.delete().where(session.c.session != "s1"))
        later = (run.c.run == "a-s2") & (run.c.tenant == "t1")
        connection.execute(run.update().where(later).values(expires=1e12))
        return expire_runs(connection, 10.0, 100)

    assert await database.write(job) == 2 * 2 * 3 - 1
    scopes = {key for key in await of(database, [checkpoint.c.tenant, checkpoint.c.agent, checkpoint.c.scope])}
    of_sessions = {key for key in scopes if key[2].startswith("session/")}
    there = {(tenant, agent, "session/s1") for tenant, agent in product(("t1", "t2"), ("a", "b"))}
    assert of_sessions == there | {("t1", "a", "session/s2")}
    writes = await of(database, [checkpoint_write.c.tenant, checkpoint_write.c.agent, checkpoint_write.c.scope])
    assert writes == scopes
