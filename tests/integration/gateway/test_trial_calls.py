"""What whoever makes tests' calls promises (`Calls`): on the queue, a gateway and a host, and of the fake."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from chimera.adapters.storage.tasks.store import TaskStorage
from chimera.adapters.storage.trials.calls import TaskCalls
from chimera.delivery.trials.asking import Ask, Told, TrialRequest
from chimera.delivery.trials.errors import NotRun
from chimera.delivery.trials.ports import Calls
from chimera.kernel.clock import SystemClock
from chimera.testing.trials import FakeCalls, problem
from chimera_host.contract.call import InvokeRequest, Message
from chimera_host.contract.problem import ProblemError
from chimera_host.contract.trial import ToolAnswer, Trial
from chimera_host.testing import builders
from chimera_host.testing.doubles import until

ENVIRONMENTS = ("env--0123456789abcdef", "env--fedcba9876543210")
AGENTS = ("anna", "bert")
LATE = {"deadline-exceeded", "call-timeout", "timeout"}


class AgentFailed(ProblemError):
    """The agent raised an error."""

    code = "agent-failed"
    status = 502
    title = "The agent failed"


class Agents:
    """Agents in whatever runs them: `answer` is given what was said. `ran` is that in its order, `ended` what ended."""

    def __init__(self) -> None:
        self.calls: Calls
        self.another: Callable[[], Calls]
        self.ran: list[str] = []
        self.ended: list[str] = []
        self.trials: list[Trial | None] = []

        async def answer(said: str) -> str:
            return f"echo: {said}"

        self.answer: Callable[[str], Awaitable[str]] = answer

    async def run(self, said: str, trial: Trial | None) -> str:
        self.ran.append(said)
        self.trials.append(trial)
        try:
            return await self.answer(said)
        finally:
            self.ended.append(said)


@pytest.fixture(params=["fake", "tasks"])
async def agents(request: pytest.FixtureRequest, make_world: Callable[..., Any]) -> AsyncIterator[Agents]:
    made = Agents()
    if request.param == "fake":

        async def told(ask: Ask) -> Told | str:
            try:
                return await made.run(ask.messages[-1].content, ask.request.trial)
            except ProblemError as error:
                return problem(error.code, error.detail, error.status)

        fake = FakeCalls(told)
        made.calls, made.another = fake, lambda: fake
        yield made
        return

    async def answered(request: InvokeRequest) -> str:
        return await made.run(request.messages[-1].content, request.trial)

    async with make_world(settings={"tasks": {"poll": 0.02, "backoff": 0.01}}) as world:
        await world.host(answer=answered)
        for tenant in ENVIRONMENTS:
            for name in AGENTS:
                world.store.put_agent(builders.document(name, tenant=tenant), "cell-1", protocols=("http",))
        processes: list[TaskCalls] = []

        def another() -> TaskCalls:
            store = TaskStorage(world.database, keep=60.0, lease=2.0)
            processes.append(TaskCalls(store, SystemClock(), patience=60.0, poll=0.02))
            return processes[-1]

        made.calls, made.another = another(), another
        yield made
        for one in processes:
            await one.aclose()


def ask(said: str = "hi", key: str = "k", *, seconds: float = 20.0, **fields: Any) -> Ask:
    fields.setdefault("environment", ENVIRONMENTS[0])
    fields.setdefault("agent", AGENTS[0])
    fields.setdefault("request", TrialRequest(model="real"))
    return Ask(key=key, messages=(Message(role="user", content=said),), seconds=seconds, **fields)


def code_of(told: Told) -> str:
    assert told.problem is not None, told
    return told.problem.code


async def test_an_answer_is_told_and_what_makes_it_a_trial_reaches_the_agent(agents: Agents) -> None:
    trial = Trial(tools="scripted", answers=(ToolAnswer(tool="pay", output="paid"),))
    told = await agents.calls.call(ask(request=TrialRequest(model="real", trial=trial)))
    assert (told.output, told.problem) == ("echo: hi", None) and told.seconds >= 0
    assert agents.trials == [trial]


async def test_an_agent_that_fails_is_told_with_its_problem(agents: Agents) -> None:
    async def fails(_: str) -> str:
        raise AgentFailed("it divided by zero")

    agents.answer = fails
    told = await agents.calls.call(ask())
    assert code_of(told) == "agent-failed" and told.problem is not None and told.problem.detail == "it divided by zero"
    assert len(agents.ran) == 1, "a trial is tried once"


async def test_the_same_key_is_the_same_call_at_once_and_later(agents: Agents) -> None:
    go = asyncio.Event()

    async def waits(said: str) -> str:
        await go.wait()
        return f"answer {len(agents.ran)}"

    agents.answer = waits
    both = asyncio.gather(agents.calls.call(ask()), agents.calls.call(ask()))
    await until(lambda: agents.ran)
    third = asyncio.create_task(agents.calls.call(ask()))
    await asyncio.sleep(0.05)
    go.set()
    assert [one.output for one in await both] == ["answer 1"] * 2 and (await third).output == "answer 1"
    assert (await agents.calls.call(ask())).output == "answer 1"
    assert (await agents.another().call(ask())).output == "answer 1"
    assert agents.ran == ["hi"]


async def test_a_key_counts_for_one_agent_of_one_environment(agents: Agents) -> None:
    places = [(tenant, name) for tenant in ENVIRONMENTS for name in AGENTS]
    asked = [ask(f"{tenant} {name}", environment=tenant, agent=name) for tenant, name in places]
    told = await asyncio.gather(*(agents.calls.call(one) for one in asked))
    assert [one.output for one in told] == [f"echo: {tenant} {name}" for tenant, name in places]


async def test_a_key_of_another_call_is_refused(agents: Agents) -> None:
    await agents.calls.call(ask("one"))
    with pytest.raises(NotRun):
        await agents.calls.call(ask("two"))
    with pytest.raises(NotRun):
        await agents.calls.call(ask("one", request=TrialRequest(model="scripted")))
    assert agents.ran == ["one"]


async def test_a_call_that_never_ends_is_over_at_its_deadline(agents: Agents) -> None:
    async def forever(_: str) -> str:
        await asyncio.Event().wait()
        return ""

    agents.answer = forever
    assert code_of(await agents.calls.call(ask(seconds=0.3))) in LATE
    await until(lambda: agents.ended)


async def test_a_call_that_nobody_waits_for_is_cancelled_and_made_anew_when_it_is_asked_for_again(
    agents: Agents,
) -> None:
    async def forever(_: str) -> str:
        await asyncio.Event().wait()
        return ""

    meant, agents.answer = agents.answer, forever
    waiting = asyncio.create_task(agents.calls.call(ask()))
    await until(lambda: agents.ran)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    agents.answer = meant
    # Such as by the control plane that goes on with the work of one that ended.
    told = await agents.another().call(ask())
    assert (told.problem, told.output, agents.ran) == (None, "echo: hi", ["hi", "hi"])
    await until(lambda: len(agents.ended) == 2)


async def test_a_call_goes_on_while_somebody_waits(agents: Agents) -> None:
    go = asyncio.Event()

    async def waits(said: str) -> str:
        await go.wait()
        return said

    agents.answer = waits
    first, second = (asyncio.create_task(agents.calls.call(ask())) for _ in range(2))
    await until(lambda: agents.ran)
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    go.set()
    assert (await second).output == "hi" and agents.ran == ["hi"]


async def test_many_calls_are_each_told_their_own(agents: Agents) -> None:
    told = await asyncio.gather(*(agents.calls.call(ask(f"{number}", f"k{number}")) for number in range(30)))
    assert [one.output for one in told] == [f"echo: {number}" for number in range(30)]
