"""What is kept of a person is found, exported and erased whole, and nobody else's is touched; on both databases."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from chimera.adapters.storage.schema.journal import audit_entry, event
from chimera.adapters.storage.schema.state import checkpoint, run, session, step, stored_answer
from chimera.adapters.storage.state.subjects import subject_digest
from chimera.gateway.errors import InvalidRequest
from chimera.gateway.state.model import SubjectCounts
from chimera.gateway.state.ports import Record
from chimera.gateway.state.runs import Wanted
from chimera.gateway.state.subjects import Subjects
from chimera_host.contract.call import InvokeResponse, SessionState
from chimera_host.contract.state import PutCheckpoint, StepBody, Typed

from .conftest import State, said

BY = "key:one"


async def works(state: State, subject: str, agent: str, name: str, **wanted: Any) -> None:
    """An unfinished run with all that a run may have."""
    chosen = Wanted(actor="a", subject=subject, **wanted)
    async with state.runs.opened("default", agent, f"call_{name}", said(f"secret {name}"), chosen) as opened:
        assert opened is not None
        await state.runs.save_step(opened, StepBody(step="one", kind="node", output=f"secret step {name}"))
        value = Typed(kind="bytes", data=f"secret graph {name}".encode())
        put = PutCheckpoint(thread="t", checkpoint="1", value=value, metadata=value)
        await state.stores.checkpoints.ask(
            opened.run, put, limits=state.runs.limits, now=state.clock.wall(), life=state.runs.life
        )

        async def ask() -> dict[str, Any]:
            return {"text": f"secret answer {name}"}

        await state.answers.whole(opened, "k", {"m": name}, ask)


async def talks(state: State, subject: str | None, agent: str, name: str) -> None:
    before = await state.sessions.open("default", agent, name, subject)
    await state.sessions.save(before, SessionState(messages=said(f"secret {name}")), BY)


@pytest.fixture
async def filled(state: State) -> State:
    for agent in ("anna", "bert"):
        await talks(state, "ann", agent, "s1")
        await talks(state, "bob", agent, "s2")
        await talks(state, None, agent, "s3")
    await works(state, "ann", "anna", "s1", session="s1")
    await works(state, "ann", "anna", "new", session="new")
    await works(state, "ann", "bert", "keyed", key="k")
    await works(state, "bob", "bert", "bobs", key="k2")
    return state


async def everything(state: State, *tables: Any) -> bytes:
    def read(connection: Any) -> bytes:
        rows = [tuple(row) for table in tables for row in connection.execute(select(table)).all()]
        return msgspec.json.encode([[str(value) for value in row] for row in rows])

    return await state.database.read(read)


async def test_all_of_a_person_is_counted(filled: State) -> None:
    counts = await filled.subjects.count("default", "ann")
    assert counts == SubjectCounts(sessions=2, runs=3, steps=3, checkpoints=3, answers=3)
    assert await filled.subjects.count("default", "nobody") == SubjectCounts()
    assert await filled.subjects.count("other", "ann") == SubjectCounts()
    with pytest.raises(InvalidRequest):
        await filled.subjects.count("default", "")


async def test_all_of_a_person_is_exported(filled: State) -> None:
    records = [record async for record in filled.subjects.export("default", "ann", BY)]
    kinds = [record["record"] for record in records]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "session": 2,
        "run": 3,
        "step": 3,
        "answer": 3,
        "checkpoint": 3,
    }
    text = msgspec.json.encode(records).decode()
    for what in ("secret s1", "secret keyed", "secret step keyed", "secret answer keyed"):
        assert what in text
    assert "bobs" not in text and "secret s2" not in text


async def test_all_of_a_person_is_erased_and_nothing_else(filled: State) -> None:
    erased = await filled.subjects.erase("default", "ann", BY)
    assert erased == SubjectCounts(sessions=2, runs=3, steps=3, checkpoints=3, answers=3)
    assert await filled.subjects.count("default", "ann") == SubjectCounts()
    left = await everything(filled, session, run, step, stored_answer, checkpoint)
    assert b"secret s1" not in left and b"keyed" not in left
    kept = await filled.subjects.count("default", "bob")
    assert kept == SubjectCounts(sessions=2, runs=1, steps=1, checkpoints=1, answers=1)
    assert await filled.sessions.find("default", "anna", "s3") is not None


async def test_the_audit_log_tells_of_it_without_name_and_content(filled: State) -> None:
    await filled.subjects.erase("default", "ann", BY)
    [record async for record in filled.subjects.export("default", "ann", BY)]
    told = await everything(filled, audit_entry, event)
    digest = subject_digest("default", "ann")
    assert b"subject:erase" in told and b"subject:export" in told and digest.encode() in told
    assert b"secret" not in told and b'"ann"' not in told and b"subjects/ann" not in told


async def test_many_sessions_are_erased_in_batches(state: State) -> None:
    await asyncio.gather(*(talks(state, "ann", "anna", f"s{number}") for number in range(120)))
    records = [record async for record in state.subjects.export("default", "ann", BY)]
    assert len(records) == 120
    assert (await state.subjects.erase("default", "ann", BY)).sessions == 120
    assert await state.sessions.find("default", "anna", "s7") is None


class Tasks:
    """Another part that keeps something of people."""

    def __init__(self) -> None:
        self.kept = {"ann": [f"task {number}" for number in range(120)]}

    async def count(self, tenant: str, subject: str) -> int:
        return len(self.kept.get(subject, ()))

    async def records(self, tenant: str, subject: str, after: str, limit: int) -> Sequence[Record]:
        ids = sorted(name for name in self.kept.get(subject, ()) if name > after)
        return [{"record": "task", "id": name} for name in ids[:limit]]

    async def erase(self, tenant: str, subject: str, limit: int) -> int:
        doomed = self.kept.get(subject, [])[:limit]
        del self.kept.get(subject, [])[:limit]
        return len(doomed)


async def test_other_parts_are_asked_too(filled: State) -> None:
    subjects = Subjects(filled.stores.subjects, filled.stores.sessions, filled.clock, {"tasks": Tasks()})
    assert (await subjects.count("default", "ann")).tasks == 120
    records = [record async for record in subjects.export("default", "ann", BY)]
    assert len([record for record in records if record["record"] == "task"]) == 120
    erased = await subjects.erase("default", "ann", BY)
    assert (erased.sessions, erased.tasks) == (2, 120)
    assert (await subjects.count("default", "ann")).tasks == 0


async def test_an_answered_run_is_the_persons_until_it_is_gone(state: State) -> None:
    wanted = Wanted(actor="a", key="k", subject="ann")
    async with state.runs.opened("default", "anna", "call_1", said("secret question"), wanted) as opened:
        assert opened is not None
        answer = InvokeResponse(output="secret answer", call="c", agent="anna", revision="r", host="h")
        await state.runs.finish(opened, answer, BY)
    records = [record async for record in state.subjects.export("default", "ann", BY)]
    assert records[0]["answer"]["output"] == "secret answer" and records[0]["request"] is None
    await state.subjects.erase("default", "ann", BY)
    assert b"secret" not in await everything(state, run)
