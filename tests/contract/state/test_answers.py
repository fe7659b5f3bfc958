"""Model answers that are paid once, on both databases."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from chimera.adapters.storage.state.answers import expire_answers
from chimera.gateway.errors import InvalidRequest
from chimera.gateway.state.runs import OpenRun, Wanted

from .conftest import State, said

BODY = {"messages": [{"role": "user", "content": "?"}]}


class Model:
    """Counts how often it is asked."""

    def __init__(self, size: int = 1, fails: int = 0) -> None:
        self.asked = 0
        self.size = size
        self.fails = fails

    async def whole(self) -> dict[str, Any]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.asked <= self.fails:
            raise ValueError("the model failed")
        return {"n": self.asked, "text": "x" * self.size}

    async def chunks(self) -> AsyncGenerator[dict[str, Any], None]:
        self.asked += 1
        for number in range(3):
            if self.asked <= self.fails and number == 2:
                raise ValueError("the model failed")
            yield {"n": self.asked, "piece": number}


async def opened(state: State, key: str = "k") -> OpenRun:
    context = state.runs.opened("default", "anna", "call_1", said("a"), Wanted(actor="a", key=key))
    made = await context.__aenter__()
    assert made is not None
    _held.append(context)
    return made


_held: list[Any] = []


@pytest.fixture(autouse=True)
async def let_go() -> Any:
    yield
    while _held:
        await _held.pop().__aexit__(None, None, None)


async def test_the_same_key_and_request_is_asked_once(state: State) -> None:
    run, model = await opened(state), Model()
    first = await state.answers.whole(run, "run/step/1", BODY, model.whole)
    again = await state.another_gateway().answers.whole(run, "run/step/1", dict(reversed(BODY.items())), model.whole)
    assert (first, model.asked) == (again, 1)
    await state.answers.whole(run, "run/step/2", BODY, model.whole)
    await state.answers.whole(run, "run/step/1", {**BODY, "temperature": 1}, model.whole)
    assert model.asked == 3
    await state.answers.whole(await opened(state, "other"), "run/step/1", BODY, model.whole)
    assert model.asked == 4


async def test_the_same_key_at_once_is_one_call(state: State) -> None:
    run, model = await opened(state), Model()
    answers = await asyncio.gather(*(state.answers.whole(run, "k", BODY, model.whole) for _ in range(10)))
    assert model.asked == 1 and all(answer == answers[0] for answer in answers)


async def test_a_failure_is_not_an_answer(state: State) -> None:
    run, model = await opened(state), Model(fails=1)
    with pytest.raises(ValueError, match="failed"):
        await state.answers.whole(run, "k", BODY, model.whole)
    assert (await state.answers.whole(run, "k", BODY, model.whole))["n"] == 2


async def test_a_stream_is_given_again_as_it_was(state: State) -> None:
    run, model = await opened(state), Model(fails=1)
    with pytest.raises(ValueError, match="failed"):
        [chunk async for chunk in state.answers.chunks(run, "k", BODY, model.chunks)]
    first = [chunk async for chunk in state.answers.chunks(run, "k", BODY, model.chunks)]
    again = [chunk async for chunk in state.answers.chunks(run, "k", BODY, model.chunks)]
    assert first == again == [{"n": 2, "piece": number} for number in range(3)]
    assert model.asked == 2


async def test_a_stream_nobody_reads_to_its_end_is_not_stored(state: State) -> None:
    run, model = await opened(state), Model()
    stream = state.answers.chunks(run, "k", BODY, model.chunks)
    await anext(stream)
    await stream.aclose()
    assert len([chunk async for chunk in state.answers.chunks(run, "k", BODY, model.chunks)]) == 3
    assert model.asked == 2


async def test_answers_end_and_large_ones_are_not_kept(state: State) -> None:
    run, model = await opened(state), Model(size=2 * 1024**2)
    for _ in range(2):
        await state.answers.whole(run, "large", BODY, model.whole)
    assert model.asked == 2
    small = Model()
    await state.answers.whole(run, "small", BODY, small.whole)
    state.clock.advance(86_400)
    await state.answers.whole(run, "small", BODY, small.whole)
    assert small.asked == 2
    state.clock.advance(86_401)
    removed = [
        await state.database.write(lambda connection: expire_answers(connection, state.clock.wall(), 10))
        for _ in range(2)
    ]
    assert removed == [1, 0]


async def test_a_key_is_visible_ascii(state: State) -> None:
    run = await opened(state)
    with pytest.raises(InvalidRequest):
        await state.answers.whole(run, "a b", BODY, Model().whole)
