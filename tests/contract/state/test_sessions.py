"""Sessions on both databases: versions, ends, preconditions, lists, and what is told of changes."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, select

from chimera.adapters.storage.schema.journal import audit_entry, event
from chimera.adapters.storage.schema.state import session
from chimera.adapters.storage.state.sessions import expire_sessions
from chimera.gateway.errors import InvalidRequest, NotFound, PayloadTooLarge, SessionConflict
from chimera.gateway.state import rules
from chimera.gateway.state.errors import PreconditionRequired, SessionChanged, SubjectMismatch
from chimera.gateway.state.model import SessionKey
from chimera.gateway.state.ports import SessionFilter
from chimera.gateway.state.sessions import Change
from chimera_host.contract.call import SessionState

from .conftest import State, said

KEY = SessionKey(tenant="default", agent="anna", session="s1")
BY = "key:one"


async def begun(state: State, name: str = "s1", subject: str | None = None, agent: str = "anna") -> Any:
    before = await state.sessions.open("default", agent, name, subject)
    return await state.sessions.save(before, SessionState(messages=said("hello")), BY)


async def rows(state: State, table: Any) -> int:
    query = select(func.count()).select_from(table)
    return await state.database.read(lambda connection: connection.execute(query).scalar() or 0)


async def facts(state: State) -> list[tuple[str, str]]:
    query = select(event.c.type, event.c.subject).order_by(event.c.seq)
    return await state.database.read(lambda connection: [tuple(row) for row in connection.execute(query).all()])


async def test_a_save_is_read_at_once_through_any_gateway(state: State) -> None:
    saved = await begun(state)
    assert await state.another_gateway().sessions.get("default", "anna", "s1") == saved
    assert saved.version == 1 and saved.expires == state.clock.wall() + 1_000


async def test_of_two_writers_of_one_version_one_is_told_the_current_one(state: State) -> None:
    first = await begun(state)
    await state.sessions.save(first, SessionState(messages=said("a")), BY)
    with pytest.raises(SessionConflict) as refused:
        await state.sessions.save(first, SessionState(messages=said("b")), BY)
    assert refused.value.status == 409
    assert refused.value.errors == [{"session": "s1", "version": 2}]
    assert (await state.sessions.get("default", "anna", "s1")).state.messages == said("a")


async def test_many_writers_at_once_lose_nothing(state: State) -> None:
    await begun(state)

    async def add(number: int) -> None:
        while True:
            before = await state.sessions.open("default", "anna", "s1")
            after = SessionState(messages=(*before.state.messages, *said(str(number))))
            try:
                await state.sessions.save(before, after, BY)
                return
            except SessionConflict:
                continue

    await asyncio.gather(*(add(number) for number in range(12)))
    stored = await state.sessions.get("default", "anna", "s1")
    assert stored.version == 13
    assert sorted(message.content for message in stored.state.messages[1:]) == sorted(map(str, range(12)))


async def test_who_holds_an_erased_sessions_version_cannot_write_over_its_successor(state: State) -> None:
    first = await begun(state)
    await state.sessions.delete(KEY, if_match=None, by=BY)
    second = await begun(state)
    assert (second.version, rules.etag(second)) != (first.version, rules.etag(first))
    with pytest.raises(SessionConflict):
        await state.sessions.save(first, SessionState(messages=said("old")), BY)
    with pytest.raises(SessionChanged):
        await state.sessions.change(KEY, Change(values={}, if_match=rules.etag(first)), BY)


async def test_an_ended_session_is_gone_at_once_and_its_name_is_free(state: State) -> None:
    await begun(state)
    state.clock.advance(1_000)
    assert await state.sessions.find("default", "anna", "s1") is None
    assert not await state.sessions.page(SessionFilter(tenant="default"))
    assert await rows(state, session) == 1
    again = await begun(state)
    assert again.version == 1
    assert (await state.sessions.get("default", "anna", "s1")).incarnation == again.incarnation


async def test_a_session_has_a_time_to_live_of_its_own(state: State) -> None:
    made = await state.sessions.change(KEY, Change(ttl=10.0, if_none_match="*"), BY)
    assert made.expires == state.clock.wall() + 10
    state.clock.advance(9)
    made = await state.sessions.save(made, SessionState(), BY)
    assert made.expires == state.clock.wall() + 10
    forever = await state.sessions.change(KEY, Change(ttl=0.0, version=2), BY)
    assert forever.expires is None


async def test_retention_removes_ended_sessions_in_batches(state: State) -> None:
    for number in range(5):
        await begun(state, f"s{number}")
    state.clock.advance(2_000)
    await begun(state, "lives")
    removed = [
        await state.database.write(lambda connection: expire_sessions(connection, state.clock.wall(), 2))
        for _ in range(4)
    ]
    assert removed == [2, 2, 1, 0]
    assert await rows(state, session) == 1


async def test_a_change_must_say_what_it_changes(state: State) -> None:
    with pytest.raises(PreconditionRequired):
        await state.sessions.change(KEY, Change(values={"a": 1}), BY)
    made = await state.sessions.change(KEY, Change(values={"a": {"b": 1}}, version=0), BY)
    with pytest.raises(SessionChanged) as refused:
        await state.sessions.change(KEY, Change(values={}, if_none_match="*"), BY)
    assert refused.value.errors == [{"session": "s1", "version": 1, "etag": rules.etag(made)}]
    merged = await state.sessions.change(
        KEY, Change(values={"a": {"b": None, "c": 2}}, messages=said("x"), if_match=f'"no", {rules.etag(made)}'), BY
    )
    assert merged.state.values == {"a": {"c": 2}} and merged.state.messages == said("x")
    with pytest.raises(SessionConflict) as stale:
        await state.sessions.change(KEY, Change(values={}, version=1), BY)
    assert stale.value.errors[0]["version"] == 2
    with pytest.raises(SessionChanged):
        await state.sessions.delete(KEY, if_match=rules.etag(made), by=BY)
    await state.sessions.delete(KEY, if_match=rules.etag(merged), by=BY)
    with pytest.raises(NotFound):
        await state.sessions.get("default", "anna", "s1")


async def test_a_session_belongs_to_one_person(state: State) -> None:
    await begun(state, subject="ann@example.org")
    assert (await state.sessions.open("default", "anna", "s1")).subject == "ann@example.org"
    with pytest.raises(SubjectMismatch):
        await state.sessions.open("default", "anna", "s1", "bob")
    nobodys = await begun(state, "s2")
    claimed = await state.sessions.open("default", "anna", "s2", "bob")
    await state.sessions.save(claimed, nobodys.state, BY)
    assert (await state.sessions.get("default", "anna", "s2")).subject == "bob"


async def test_lists_come_in_pages_and_can_be_narrowed(state: State) -> None:
    for agent in ("anna", "bert"):
        for number in range(3):
            await begun(state, f"s{number}", subject="ann" if number == 1 else None, agent=agent)
    state.clock.advance(100)
    await begun(state, "late")
    seen: list[tuple[str, str]] = []
    after = ("", "")
    while page := await state.sessions.page(SessionFilter(tenant="default", after=after, limit=2)):
        seen += [(one.agent, one.session) for one in page]
        after = seen[-1]
    assert seen == sorted(seen) and len(seen) == 7
    anns = await state.sessions.page(SessionFilter(tenant="default", subject="ann"))
    assert [(one.agent, one.session) for one in anns] == [("anna", "s1"), ("bert", "s1")]
    old = SessionFilter(tenant="default", agent="anna", updated_before=state.clock.wall())
    assert [one.session for one in await state.sessions.page(old)] == ["s0", "s1", "s2"]
    assert all(one.size > 10 for one in anns)
    assert not await state.sessions.page(SessionFilter(tenant="other"))


async def test_limits_are_kept(state: State) -> None:
    before = await state.sessions.open("default", "anna", "s1")
    with pytest.raises(PayloadTooLarge):
        await state.sessions.save(before, SessionState(messages=said("x" * 10_000)), BY)
    for name in ("", "-a", "a/b", "x" * 129):
        with pytest.raises(InvalidRequest):
            await state.sessions.open("default", "anna", name)
    for subject in ("", "x" * 201, "a\nb"):
        with pytest.raises(InvalidRequest):
            await state.sessions.open("default", "anna", "s1", subject)


async def test_changes_are_told_without_what_was_said(state: State) -> None:
    first = await begun(state, subject="ann@example.org")
    await state.sessions.save(first, SessionState(messages=said("the secret plan")), BY)
    await state.sessions.delete(KEY, if_match=None, by=BY)
    subject = "agents/anna/sessions/s1"
    assert await facts(state) == [
        ("session.created", subject),
        ("session.updated", subject),
        ("session.deleted", subject),
    ]

    def everything(connection: Any) -> bytes:
        told = connection.execute(select(event.c.data)).scalars().all()
        noted = connection.execute(select(audit_entry.c.entry)).scalars().all()
        return b"".join((*told, *noted))

    whole = await state.database.read(everything)
    assert b"session:delete" in whole and b"key:one" in whole
    assert b"secret" not in whole and b"ann@" not in whole
