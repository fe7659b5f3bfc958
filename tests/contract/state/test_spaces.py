"""Shared spaces on both databases: who may, how writes merge, what is atomic."""

import asyncio
from typing import Any

import pytest

from chimera.adapters.storage.state.spaces import expire_spaces
from chimera.gateway.errors import InvalidRequest, PayloadTooLarge
from chimera.gateway.state.errors import SpaceConflict, SpaceForbidden, SpaceNotFound, SpaceRuleBroken
from chimera.gateway.state.runs import Wanted
from chimera.gateway.state.spaces_rules import Declared
from chimera_host.contract.state import SharedAnswer, SharedBody, SharedWrite

from .conftest import State, said

BY = "key:one"
DECLARED = Declared(
    owner="agent:anna",
    access={"bert": "write", "*": "read"},
    rules={"log": "append", "votes/*": "counter", "votes/final": "custom", "plan": "custom"},
)


async def board(state: State, declared: Declared = DECLARED) -> None:
    await state.spaces.put("default", "board", declared, version=0, by=BY)


async def write(state: State, *writes: SharedWrite, agent: str = "anna", read: tuple[str, ...] = ()) -> SharedAnswer:
    body = SharedBody(write=writes, read=read)
    return await state.spaces.apply_as("default", agent, "board", body, opened=None, key=None)


def put(key: str, value: Any, version: int | None = None) -> SharedWrite:
    return SharedWrite(key=key, value=value, version=version)


async def values(state: State, *keys: str) -> list[Any]:
    answer = await write(state, read=keys)
    found = {entry.key: entry.value for entry in answer.entries}
    return [found[key] for key in keys]


async def test_a_space_is_declared_once_and_changed_by_version(state: State) -> None:
    await board(state)
    with pytest.raises(SpaceConflict) as refused:
        await board(state)
    assert refused.value.errors == [{"space": "board", "version": 1}]
    await write(state, put("a", 1))
    changed = await state.spaces.put("default", "board", Declared(), version=2, by=BY)
    assert (changed.version, changed.entries) == (3, 1)
    found, declared = await state.spaces.get("default", "board")
    assert declared == Declared() and found.owner == "tenant"
    assert [one.space for one in await state.spaces.page("default", "", 10)] == ["board"]
    await state.spaces.delete("default", "board", BY)
    with pytest.raises(SpaceNotFound):
        await state.spaces.get("default", "board")
    with pytest.raises(SpaceNotFound):
        await state.spaces.delete("default", "board", BY)
    with pytest.raises(InvalidRequest):
        await state.spaces.put("default", "no/slash", Declared(), version=0, by=BY)


async def test_of_many_who_declare_it_one_does(state: State) -> None:
    results = await asyncio.gather(*(board(state.another_gateway()) for _ in range(6)), return_exceptions=True)
    assert [result for result in results if result is None] == [None]
    assert sum(isinstance(result, SpaceConflict) for result in results) == 5


async def test_the_access_list_decides(state: State) -> None:
    await board(state)
    await write(state, put("a", 1))
    await write(state, put("a", 2), agent="bert")
    assert (await write(state, read=("a",), agent="carl")).entries[0].value == 2
    with pytest.raises(SpaceForbidden):
        await write(state, put("a", 3), agent="carl")
    await state.spaces.put("default", "board", Declared(owner="agent:anna"), version=3, by=BY)
    with pytest.raises(SpaceForbidden):
        await write(state, read=("a",), agent="carl")
    with pytest.raises(SpaceNotFound):
        await state.spaces.apply("other", "board", SharedBody(read=("a",)), by=BY)
    assert (await state.spaces.apply("default", "board", SharedBody(read=("a",)), by=BY)).entries[0].value == 2


async def test_keys_merge_by_their_rules(state: State) -> None:
    await board(state)
    add, append = SharedWrite(key="votes/a", op="add", value=2), SharedWrite(key="log", op="append", value=["x"])
    await asyncio.gather(*(write(state, add, append) for _ in range(10)))
    await write(state, SharedWrite(key="votes/a", op="add", value=-0.5), SharedWrite(key="log", op="append", value="y"))
    assert await values(state, "votes/a", "log") == [19.5, ["x"] * 10 + ["y"]]
    for wrong in (
        put("log", []),
        put("votes/a", 1),
        put("plan", 1),
        put("votes/final", 1),
        SharedWrite(key="a", op="add", value=1),
        SharedWrite(key="votes/a", op="add", value="1"),
        SharedWrite(key="plan", op="delete"),
    ):
        with pytest.raises(SpaceRuleBroken):
            await write(state, wrong)


async def test_custom_is_read_merge_write_by_version(state: State) -> None:
    await board(state)
    first = await write(state, put("plan", ["a"], version=0))
    version = first.entries[0].version

    async def add(item: int) -> None:
        while True:
            (seen,) = (await write(state, read=("plan",))).entries
            try:
                await write(state, put("plan", [*seen.value, item], version=seen.version))
                return
            except SpaceConflict:
                continue

    await asyncio.gather(*(add(item) for item in range(6)))
    (plan,) = await values(state, "plan")
    assert sorted(plan[1:]) == list(range(6))
    with pytest.raises(SpaceConflict) as stale:
        await write(state, put("plan", [], version=version))
    assert stale.value.errors[0]["key"] == "plan" and stale.value.errors[0]["version"] > version


async def test_several_keys_are_written_whole_or_not_at_all(state: State) -> None:
    await board(state)
    await write(state, put("a", 1), put("b", 1))
    with pytest.raises(SpaceConflict):
        await write(state, put("a", 2), SharedWrite(key="log", op="append", value=1), put("b", 2, version=0))
    assert await values(state, "a", "b", "log") == [1, 1, None]
    found, _ = await state.spaces.get("default", "board")
    assert (found.entries, found.version) == (2, 2)


async def test_a_key_that_was_removed_is_never_at_a_version_seen_before(state: State) -> None:
    await board(state)
    before = (await write(state, put("plan", 1, version=0))).entries[0].version
    await write(state, SharedWrite(key="plan", op="delete", version=before))
    after = (await write(state, put("plan", 2, version=0))).entries[0].version
    assert after > before
    with pytest.raises(SpaceConflict):
        await write(state, put("plan", 3, version=before))


async def test_writes_of_a_step_happen_once(state: State) -> None:
    await board(state)
    body = SharedBody(write=(SharedWrite(key="votes/a", op="add", value=1),))
    async with state.runs.opened("default", "anna", "c", said("x"), Wanted(actor="a", key="k")) as opened:
        answers = [
            await state.spaces.apply_as("default", "anna", "board", body, opened=opened, key="run/step/1")
            for _ in range(3)
        ]
        assert answers[0] == answers[1] == answers[2]
        await state.spaces.apply_as("default", "anna", "board", body, opened=opened, key="run/step/2")
    assert await values(state, "votes/a") == [2]


async def test_a_space_holds_so_much(state: State) -> None:
    await board(state)
    with pytest.raises(PayloadTooLarge):
        await write(state, put("a", "x" * 5_000))
    for number in range(5):
        await write(state, put(f"k{number}", "x" * 3_500))
    with pytest.raises(PayloadTooLarge):
        await write(state, put("k9", "x" * 3_500))
    await write(state, SharedWrite(key="k0", op="delete"), put("k9", "x" * 3_500))
    page = await state.spaces.entries("default", "board", "k1", 2)
    assert [entry.key for entry in page] == ["k2", "k3"]


async def test_keys_and_spaces_end(state: State) -> None:
    await board(state, Declared(owner="agent:anna", entry_ttl=10, ttl=100))
    await write(state, put("a", 1))
    state.clock.advance(10)
    answer = await state.spaces.apply("default", "board", SharedBody(read=("a",)), by=BY)
    assert (answer.entries[0].version, answer.entries[0].value) == (0, None)
    assert not await state.spaces.entries("default", "board", "", 10)

    async def expire() -> int:
        return await state.database.write(lambda connection: expire_spaces(connection, state.clock.wall(), 10))

    assert [await expire(), await expire()] == [1, 0]
    found, _ = await state.spaces.get("default", "board")
    assert (found.entries, found.size) == (0, 0)
    state.clock.advance(90)
    with pytest.raises(SpaceNotFound):
        await state.spaces.get("default", "board")
    await state.spaces.put("default", "board", Declared(), version=0, by=BY)
