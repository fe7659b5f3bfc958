"""A caller who leaves, or a database that fails, while a run is claimed: nobody is kept from it afterwards."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from chimera.adapters.storage.errors import failed
from chimera.adapters.storage.opening import open_database
from chimera.gateway.state.errors import RunInProgress

from .conftest import ManualClock, State, make, said
from .test_runs import IN_SESSION, KEYED, Call, message, step


@pytest.fixture
def state(database_name: str) -> Iterator[State]:
    """The database's clock stands, so that no gateway's life ends: a run is free only if somebody lets go of it."""
    clock = ManualClock()
    database = open_database(database_name, clock=clock)
    yield make(database, clock, holder_life=0.03)
    database.close()


class Slow:
    """A method of the store whose caller hears how it ended only later, or never."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, state: State, name: str) -> None:
        self._method = getattr(state.stores.runs, name)
        self.done, self.go_on = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None
        monkeypatch.setattr(state.stores.runs, name, self._asked)
        self._undo = lambda: monkeypatch.setattr(state.stores.runs, name, self._method)

    async def _asked(self, *args: Any, **named: Any) -> Any:
        self._undo()  # the others are as fast as ever
        result = await self._method(*args, **named)
        self.done.set()
        if self.error is not None:
            raise self.error
        await self.go_on.wait()
        return result


async def free(state: State, call: Call) -> None:
    """Begin `call`, for which others may have to let go first; nobody's life ends, since the clock stands."""
    async with asyncio.timeout(20):
        while True:
            try:
                await call.begin()
            except RunInProgress:
                await asyncio.sleep(0.005)
                call = Call(state, call.wanted)
            else:
                break
    await call.fail()


async def test_a_caller_who_leaves_while_the_run_is_claimed(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch, state, "claim")
    task = asyncio.create_task(Call(state, KEYED).begin())
    await slow.done.wait()  # committed, and he doesn't know it yet
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await free(state, Call(state, KEYED))
    await free(state.another_gateway(), Call(state.another_gateway(), KEYED))


async def test_a_caller_who_leaves_before_the_claim_is_done(state: State) -> None:
    task = asyncio.create_task(Call(state, KEYED).begin())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await free(state, Call(state, KEYED))


async def test_a_claim_whose_end_is_unknown(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch, state, "claim")
    slow.error = failed("the connection broke while it committed")
    with pytest.raises(type(slow.error)):
        await Call(state, KEYED).begin()
    await free(state, Call(state, KEYED))


async def test_a_caller_who_leaves_while_the_next_attempt_begins(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    call = Call(state, KEYED)
    opened = await call.begin()
    slow = Slow(monkeypatch, state, "again")
    task = asyncio.create_task(state.runs.again(opened))
    await slow.done.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await call.fail()
    await free(state.another_gateway(), Call(state.another_gateway(), KEYED))


async def test_a_caller_who_leaves_while_a_session_s_work_is_given_up(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Call(state, IN_SESSION)
    opened = await first.begin()
    await state.runs.save_step(opened, step("m1", message("hello"), kind="message"))
    await first.fail()
    slow = Slow(monkeypatch, state, "steps")
    task = asyncio.create_task(Call(state, IN_SESSION, said("something else")).begin())
    await slow.done.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    session = await state.sessions.open("default", "anna", "s1", "ann")
    async with asyncio.timeout(20):
        while (found := await state.runs.unfinished(session)) is not None and found.holder:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.005)
    assert found is not None


async def test_who_asks_for_it_just_then_is_told_and_it_is_free_afterwards(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch, state, "claim")
    task = asyncio.create_task(Call(state, KEYED).begin())
    await slow.done.wait()
    second = Slow(monkeypatch, state, "claim")
    asked = asyncio.create_task(Call(state, KEYED).begin())
    await second.done.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)  # the first one's release finds that somebody asks, and waits
    second.go_on.set()
    with pytest.raises(RunInProgress):
        await asked
    await free(state, Call(state, KEYED))
