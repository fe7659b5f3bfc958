"""Runs on both databases: begun, gone on with by whoever may, fenced, finished once, given up."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import func, select

from chimera.adapters.storage.errors import failed
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.schema.state import run, run_holder, stored_answer
from chimera.adapters.storage.schema.state import step as step_table
from chimera.adapters.storage.state.runs import expire_runs
from chimera.gateway.errors import InvalidRequest, PayloadTooLarge, SessionConflict
from chimera.gateway.state.errors import (
    KeyReused,
    NothingToResume,
    RunInProgress,
    RunTaken,
    StepConflict,
)
from chimera.gateway.state.runs import OpenRun, Wanted
from chimera_host.contract.call import InvokeResponse, Message, SessionState
from chimera_host.contract.state import RunState, StepBody

from .conftest import ManualClock, State, make, said

ASKED = said("do it")
KEYED = Wanted(actor="key:one", key="k-1")
IN_SESSION = Wanted(session="s1", subject="ann")


def answer(output: str = "done", session: SessionState | None = None) -> InvokeResponse:
    return InvokeResponse(output=output, call="c", agent="anna", revision="r", host="h", session=session)


def step(name: str, output: Any = None, kind: str = "node") -> StepBody:
    return StepBody(step=name, kind=kind, output=output)


def message(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


class Call:
    """A call that a test begins and ends by hand."""

    def __init__(self, state: State, wanted: Wanted, messages: tuple[Message, ...] = ASKED, call: str = "call_1"):
        self.state = state
        self.wanted = wanted
        self._context = state.runs.opened("default", "anna", call, messages, wanted)
        self._stack = AsyncExitStack()

    async def begin(self) -> OpenRun:
        opened = await self._stack.enter_async_context(self._context)
        assert opened is not None
        self.opened = opened
        return opened

    async def fail(self) -> None:
        await self._stack.aclose()

    async def finish(self, response: InvokeResponse | None = None) -> None:
        await self.state.runs.finish(self.opened, response or answer(), "key:one")
        await self._stack.aclose()


async def count(state: State, table: Any) -> int:
    query = select(func.count()).select_from(table)
    return await state.database.read(lambda connection: connection.execute(query).scalar() or 0)


async def test_a_call_without_session_or_key_has_no_run(state: State) -> None:
    async with state.runs.opened("default", "anna", "call_1", ASKED, Wanted()) as opened:
        assert opened is None
    with pytest.raises(NothingToResume):
        async with state.runs.opened("default", "anna", "call_1", ASKED, Wanted(resume=True)):
            pass


async def test_a_finished_run_with_a_key_gives_its_answer_again(state: State) -> None:
    call = Call(state, KEYED)
    await call.begin()
    await state.runs.save_step(call.opened, step("one", 1))
    await call.finish(answer("42"))
    assert (await count(state, run), await count(state, step_table)) == (1, 0)
    again = await Call(state.another_gateway(), KEYED, call="call_2").begin()
    assert again.answer is not None and again.answer.output == "42"
    with pytest.raises(KeyReused) as refused:
        await Call(state, KEYED, said("something else")).begin()
    assert refused.value.status == 422
    somebody_else = await Call(state, replace_wanted(KEYED, actor="key:two")).begin()
    assert somebody_else.answer is None


def replace_wanted(wanted: Wanted, **fields: Any) -> Wanted:
    values = {name: getattr(wanted, name) for name in Wanted.__dataclass_fields__}
    return Wanted(**{**values, **fields})


async def test_an_answer_is_kept_for_its_time(state: State) -> None:
    call = Call(state, KEYED)
    await call.begin()
    await call.finish()
    state.clock.advance(86_400)
    assert (await Call(state, KEYED).begin()).answer is None


async def test_one_key_is_worked_on_once_at_a_time(state: State) -> None:
    first = Call(state, KEYED)
    await first.begin()
    for gateway in (state, state.another_gateway()):
        with pytest.raises(RunInProgress) as refused:
            await Call(gateway, KEYED).begin()
        assert (refused.value.status, refused.value.retry_after) == (409, 2)
    await first.fail()
    second = await Call(state.another_gateway(), KEYED).begin()
    assert second.run.attempt == 2


async def test_of_many_at_once_one_begins(state: State) -> None:
    calls = [Call(state.another_gateway(f"gw_{number}"), KEYED) for number in range(8)]
    results = await asyncio.gather(*(call.begin() for call in calls), return_exceptions=True)
    begun = [result for result in results if isinstance(result, OpenRun)]
    assert len(begun) == 1
    assert all(isinstance(result, RunInProgress) for result in results if result is not begun[0])


async def test_a_run_goes_on_from_its_last_finished_step(state: State) -> None:
    first = Call(state, KEYED)
    await first.begin()
    assert state.runs.resume_state(first.opened) is None
    assert await state.runs.save_step(first.opened, step("one", {"a": 1})) == 1
    assert await state.runs.save_step(first.opened, step("two", [2])) == 2
    assert state.runs.resume_state(first.opened) == RunState(attempt=1, finished=2)
    await first.fail()

    other = state.another_gateway()
    second = Call(other, KEYED)
    opened = await second.begin()
    assert other.runs.resume_state(opened) == RunState(attempt=2, finished=2, checkpoints=True)
    page = await other.runs.steps(opened, 0)
    assert [(one.version, one.step, bytes(one.output)) for one in page.steps] == [
        (1, "one", b'{"a":1}'),
        (2, "two", b"[2]"),
    ]
    assert page.next is None
    assert await other.runs.save_step(opened, step("three")) == 3


async def test_a_step_is_saved_once(state: State) -> None:
    call = Call(state, KEYED)
    opened = await call.begin()
    assert await state.runs.save_step(opened, step("one", 1)) == 1
    assert await state.runs.save_step(opened, step("one", 1)) == 1
    with pytest.raises(StepConflict):
        await state.runs.save_step(opened, step("one", 2))
    places = await asyncio.gather(*(state.runs.save_step(opened, step(f"b{n}", n)) for n in range(10)))
    assert sorted(places) == list(range(2, 12))


async def test_who_has_lost_a_run_changes_nothing_more(state: State) -> None:
    slept = Call(state, KEYED)
    late = await slept.begin()
    await state.runs.save_step(late, step("one"))
    await state.stores.runs.release(late.run)  # as if its gateway had been silent for too long
    other = state.another_gateway()
    taker = Call(other, KEYED)
    taken = await taker.begin()
    for attempt in (
        state.runs.save_step(late, step("two")),
        state.runs.finish(late, answer("late"), "key:one"),
        state.answers.whole(late, "k", {"messages": []}, _answers("late")),
    ):
        with pytest.raises(RunTaken):
            await attempt
    await other.runs.save_step(taken, step("two"))
    await taker.finish(answer("right"))
    again = await Call(state, KEYED).begin()
    assert again.answer is not None and again.answer.output == "right"


def _answers(text: str) -> Any:
    async def ask() -> dict[str, Any]:
        return {"text": text}

    return ask


@pytest.fixture
def timed(database_name: str, request: pytest.FixtureRequest) -> Callable[..., tuple[State, State]]:
    """Makes two gateways; the database's clock is theirs and stands until it is moved, however long a test takes."""

    def both(holder_life: float) -> tuple[State, State]:
        clock = ManualClock()
        database = open_database(database_name, clock=clock)
        request.addfinalizer(database.close)
        return (
            make(database, clock, "gw_1", holder_life=holder_life),
            make(database, clock, "gw_2", holder_life=holder_life),
        )

    return both


async def test_a_silent_gateway_loses_its_runs(timed: Any) -> None:
    short, other = timed(1.0)
    silent = Call(short, KEYED)
    await silent.begin()
    with pytest.raises(RunInProgress):
        await Call(other, KEYED).begin()
    short.clock.advance(1.01)
    opened = await Call(other, KEYED).begin()
    assert opened.run.attempt == 2
    with pytest.raises(RunTaken):
        await short.runs.save_step(silent.opened, step("late"))


async def test_a_gateway_that_lives_says_so(timed: Any) -> None:
    living, other = timed(0.03)
    works = Call(living, KEYED)
    await works.begin()
    until = select(run_holder.c.until).where(run_holder.c.holder == "gw_1")

    async def says_so() -> bool:
        said = await living.database.read(lambda connection: connection.execute(until).scalar_one())
        return bool(said > living.clock.wall() + 0.02)

    loop = asyncio.create_task(living.runs.keep_alive())
    for _ in range(15):  # ten lives
        living.clock.advance(0.02)
        async with asyncio.timeout(20):
            while True:
                if await says_so():
                    break
                await asyncio.sleep(0.005)
        with pytest.raises(RunInProgress):
            await Call(other, KEYED).begin()
    loop.cancel()
    await works.fail()


async def test_a_session_call_leaves_nothing_once_it_is_finished(state: State) -> None:
    call = Call(state, IN_SESSION)
    opened = await call.begin()
    assert await count(state, run) == 0
    await state.runs.save_step(opened, step("one"))
    assert await count(state, run) == 1
    await state.answers.whole(opened, "k", {"messages": []}, _answers("a"))
    await call.finish(answer(session=SessionState(messages=(*ASKED, Message(role="assistant", content="done")))))
    assert [await count(state, table) for table in (run, step_table, stored_answer)] == [0, 0, 0]
    saved = await state.sessions.get("default", "anna", "s1")
    assert (saved.version, saved.subject, len(saved.state.messages)) == (1, "ann", 2)


async def test_the_same_messages_go_on_with_a_sessions_unfinished_run(state: State) -> None:
    first = Call(state, IN_SESSION)
    await state.runs.save_step(await first.begin(), step("one"))
    await first.fail()
    second = await Call(state.another_gateway(), IN_SESSION, call="call_2").begin()
    assert (second.name, second.run.attempt, second.run.steps) == ("call_1", 2, 1)


async def test_resume_goes_on_whatever_the_messages(state: State) -> None:
    first = Call(state, IN_SESSION)
    await state.runs.save_step(await first.begin(), step("one"))
    with pytest.raises(RunInProgress):
        await Call(state, replace_wanted(IN_SESSION, resume=True), said("go on")).begin()
    await first.fail()
    second = Call(state, replace_wanted(IN_SESSION, resume=True), said("go on"))
    opened = await second.begin()
    assert (opened.name, opened.messages) == ("call_1", ASKED)
    await second.finish(answer(session=SessionState(messages=ASKED)))
    with pytest.raises(NothingToResume):
        await Call(state, replace_wanted(IN_SESSION, resume=True), said("go on")).begin()


async def test_other_messages_follow_what_was_said(state: State) -> None:
    first = Call(state, IN_SESSION)
    opened = await first.begin()
    await state.runs.save_step(opened, step("m1", message("half"), "message"))
    await state.runs.save_step(opened, step("n1", {"state": 1}, "node"))
    await state.runs.save_step(opened, step("m2", message("way"), "message"))
    await first.fail()
    second = await Call(state, IN_SESSION, said("never mind"), call="call_2").begin()
    assert second.name == "call_2" and second.messages == said("never mind")
    assert second.before is not None
    assert [one.content for one in second.before.state.messages] == ["do it", "half", "way"]
    assert await count(state, run) == 0
    stored = await state.sessions.get("default", "anna", "s1")
    assert stored.version == 1 == second.run.base


async def test_an_unfinished_run_without_a_word_leaves_nothing(state: State) -> None:
    first = Call(state, IN_SESSION)
    await state.runs.save_step(await first.begin(), step("n1", {"state": 1}))
    await first.fail()
    second = await Call(state, IN_SESSION, said("never mind")).begin()
    assert second.before is not None and second.before.version == 0
    assert await count(state, run) == 0


async def test_a_key_also_ends_the_sessions_other_unfinished_run(state: State) -> None:
    first = Call(state, IN_SESSION)
    await state.runs.save_step(await first.begin(), step("m1", message("half"), "message"))
    await first.fail()
    second = await Call(state, replace_wanted(IN_SESSION, key="k", actor="a"), said("next")).begin()
    assert second.before is not None and second.before.version == 1
    assert second.run.base == 1


async def test_two_calls_of_a_session_at_once_end_as_they_always_did(state: State) -> None:
    one, two = Call(state, IN_SESSION), Call(state, IN_SESSION, call="call_2")
    await state.runs.save_step(await one.begin(), step("one"))
    opened = await two.begin()
    assert opened.name == "call_2"
    await one.finish(answer(session=SessionState(messages=said("1"))))
    with pytest.raises(SessionConflict):
        await two.finish(answer(session=SessionState(messages=said("2"))))
    with pytest.raises(SessionConflict):  # nothing is kept for a session that has moved on
        await state.runs.save_step(opened, step("late"))


async def test_steps_of_another_version_of_the_session_are_dropped(state: State) -> None:
    keyed = replace_wanted(IN_SESSION, key="k", actor="a")
    first = Call(state, keyed)
    await state.runs.save_step(await first.begin(), step("one"))
    await first.fail()
    other = Call(state, Wanted(session="s1"), said("meanwhile"), call="call_9")
    await other.begin()
    await other.finish(answer(session=SessionState(messages=said("meanwhile"))))
    second = await Call(state, keyed).begin()
    assert second.run.attempt >= 1 and second.run.steps == 0
    assert (await state.runs.steps(second, 0)).steps == ()


async def test_a_finish_is_whole_or_not_at_all(state: State) -> None:
    keyed = replace_wanted(IN_SESSION, key="k", actor="a")
    first = Call(state, keyed)
    opened = await first.begin()
    await state.runs.save_step(opened, step("one"))
    before = await state.sessions.open("default", "anna", "s1")
    await state.sessions.save(before, SessionState(messages=said("faster")), "key:two")
    with pytest.raises(SessionConflict):
        await first.finish(answer(session=SessionState(messages=said("slower"))))
    await first.fail()
    assert (await state.sessions.get("default", "anna", "s1")).state.messages == said("faster")
    assert (await Call(state, keyed).begin()).answer is None


async def test_a_run_may_hold_so_much(state: State) -> None:
    opened = await Call(state, KEYED).begin()
    with pytest.raises(PayloadTooLarge):
        await state.runs.save_step(opened, step("big", "x" * 5_000))
    for number in range(20):
        await state.runs.save_step(opened, step(f"s{number}", "x" * 100))
    with pytest.raises(PayloadTooLarge) as refused:
        await state.runs.save_step(opened, step("one too many"))
    assert refused.value.status == 413
    with pytest.raises(InvalidRequest):
        await Call(state, Wanted(key="no spaces")).begin()


async def test_retention_removes_runs_with_their_steps(state: State) -> None:
    for number in range(3):
        call = Call(state, Wanted(actor="a", key=f"k{number}"))
        await state.runs.save_step(await call.begin(), step("one"))
        await call.fail()
    state.clock.advance(604_801)
    removed = [
        await state.database.write(lambda connection: expire_runs(connection, state.clock.wall(), 2)) for _ in range(3)
    ]
    assert removed == [2, 1, 0]
    assert [await count(state, table) for table in (run, step_table)] == [0, 0]


async def test_an_erased_session_takes_its_run_along(state: State) -> None:
    first = Call(state, IN_SESSION)
    await first.begin()
    await first.finish(answer(session=SessionState(messages=ASKED)))
    second = Call(state, IN_SESSION, said("next"), call="call_2")
    opened = await second.begin()
    await state.runs.save_step(opened, step("one"))
    assert opened.before is not None
    await state.sessions.delete(opened.before.key, if_match=None, by="key:one")
    assert [await count(state, table) for table in (run, step_table)] == [0, 0]
    for attempt in (
        state.runs.save_step(opened, step("two")),
        state.runs.finish(opened, answer(session=SessionState(messages=said("back"))), "x"),
    ):
        with pytest.raises((RunTaken, SessionConflict)):
            await attempt
    assert await state.sessions.find("default", "anna", "s1") is None


async def test_a_save_that_nobody_waited_for_counts_or_is_refused(state: State) -> None:
    """A host that is killed while it saves a step: the next host learns of it, or it never was."""
    for number in range(20):
        call = Call(state, Wanted(session=f"s{number}"), call=f"call_{number}")
        opened = await call.begin()
        saving = asyncio.create_task(state.runs.save_step(opened, step("one", 1)))
        await asyncio.sleep(0)
        saving.cancel()
        await state.runs.again(opened)
        saved = [one.step for one in (await state.runs.steps(opened, 0)).steps]
        assert opened.run.steps == len(saved)
        state_before = state.runs.resume_state(opened)
        assert (state_before is None) == (not saved)
        assert await state.runs.save_step(opened, step("one", 1) if not saved else step("two")) == len(saved) + 1
        await call.finish(answer(session=SessionState(messages=ASKED)))
    assert await count(state, run) == 0


async def test_a_call_that_is_cancelled_while_it_saves_lets_go(state: State) -> None:
    wanted = Wanted(session="s")
    call = Call(state, wanted)
    opened = await call.begin()
    saving = asyncio.create_task(state.runs.save_step(opened, step("one", 1)))
    await asyncio.sleep(0)
    saving.cancel()
    await call.fail()
    following = await Call(state.another_gateway(), wanted, call="call_2").begin()
    assert following.run.attempt == (2 if following.name == "call_1" else 1)


async def test_what_a_dead_host_still_asks_is_refused(state: State) -> None:
    call = Call(state, KEYED)
    opened = await call.begin()
    await state.runs.save_step(opened, step("one"))
    dead = replace(opened.run)
    await state.runs.again(opened)
    assert (opened.run.attempt, opened.run.steps) == (2, 1)
    late = OpenRun(run=dead, stored=True, before=None, messages=ASKED)
    with pytest.raises(RunTaken):
        await state.runs.save_step(late, step("two"))
    await state.runs.save_step(opened, step("two"))
    await call.finish()


async def test_what_could_not_be_released_is_released_once_it_can_be(
    timed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    living, _ = timed(0.03)  # nobody's life ends while the clock stands: only a release frees the run
    call = Call(living, KEYED)
    await call.begin()
    release, failing = living.stores.runs.release, True

    async def refuse(one: Any) -> None:
        if failing:
            raise failed("the disk is broken")
        await release(one)

    monkeypatch.setattr(living.stores.runs, "release", refuse)
    await call.fail()
    with pytest.raises(RunInProgress):
        await Call(living, KEYED).begin()

    failing = False
    loop = asyncio.create_task(living.runs.keep_alive())
    async with asyncio.timeout(20):
        while True:
            try:
                again = Call(living, KEYED)
                await again.begin()
                break
            except RunInProgress:
                await asyncio.sleep(0.005)
    loop.cancel()
    await again.fail()
