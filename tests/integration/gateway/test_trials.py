"""Calls that are tests: on a real gateway and a real host, through the queue of tasks, in a tenant of their own."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chimera.adapters.storage.tasks.store import TaskStorage
from chimera.adapters.storage.trials.calls import TaskCalls
from chimera.delivery.trials.asking import Ask, Told, TrialRequest
from chimera.gateway.credentials import Credentials
from chimera.gateway.errors import CredentialMissing
from chimera.kernel.clock import SystemClock
from chimera.kernel.ids import is_environment
from chimera.platform.model import Endpoint
from chimera_host.contract.agent import SourceCode
from chimera_host.contract.behaviour import Behaviour, FunctionBehaviour, FunctionEndpoint
from chimera_host.contract.call import Message
from chimera_host.contract.tools import AgentTool, FunctionTool
from chimera_host.contract.trial import AskedTool, CheckAsk, ModelAnswer, ToolAnswer, Trial
from chimera_host.testing import builders
from chimera_host.testing.doubles import until
from chimera_host.testing.process import HostProcess

ENV = "env--0123456789abcdef"
QUICK = {"poll": 0.02, "lease": 2.0, "backoff": 0.01}
CODE = """
import os, signal

def pay(amount: int) -> str:
    "Pay."
    return "really paid"

def polite(answer, case):
    assert "please" in answer, "it isn't polite"

def die(answer, case):
    os.kill(os.getpid(), signal.SIGKILL)

def hang(answer, case):
    while True:
        pass
"""


@pytest.fixture
async def world(make_world: Callable[..., Any]) -> AsyncIterator[Any]:
    async with make_world(settings={"tasks": QUICK}) as made:
        yield made


@pytest.fixture
async def calls(world: Any) -> AsyncIterator[TaskCalls]:
    store = TaskStorage(world.database, keep=60.0, lease=2.0)
    made = TaskCalls(store, SystemClock(), patience=60.0, poll=0.02)
    yield made
    await made.aclose()


@asynccontextmanager
async def hosted(world: Any, **fields: Any) -> AsyncIterator[HostProcess]:
    """A real host of the cell that environments' agents have here."""

    class Platform:
        url = world.gateway.internal_url

    process = HostProcess(
        Platform(),  # type: ignore[arg-type]
        "function",
        python=sys.executable,
        host="host-1",
        cell="cell-1",
        platform_token=world.token("host-1"),
        **fields,
    )
    async with process as host:
        world.pool.add(Endpoint(host="host-1", cell="cell-1", url=host.client.url, key="host-key"))
        yield host


def coder(world: Any, name: str = "coder", *, tenant: str = ENV, scripted: bool = True) -> None:
    """An agent with code and tools; the gateway is told of it by the store alone."""
    bundle = builders.bundle({"code.py": CODE})
    digest = builders.digest(bundle)
    world.store.bundles[digest] = bundle
    made = builders.document(
        name,
        tenant=tenant,
        behaviour=Behaviour(function=FunctionBehaviour(system_message="s", tools=("pay", "ask"))),
        tools=(FunctionTool(name="pay", function="code:pay"), AgentTool(name="ask", agent="other")),
        source=SourceCode(bundle=digest),
        scripted=scripted,
    )
    world.store.put_agent(made, "cell-1", protocols=("http",))


def ask(request: TrialRequest, key: str = "k", *, agent: str = "coder", seconds: float = 20.0, **fields: Any) -> Ask:
    fields.setdefault("environment", ENV)
    messages = (Message(role="user", content="pay 7"),)
    return Ask(agent=agent, key=key, messages=messages, seconds=seconds, request=request, **fields)


def scripted(*says: ModelAnswer, answers: tuple[ToolAnswer, ...] = (), **trial: Any) -> TrialRequest:
    return TrialRequest(model="scripted", says=says, trial=Trial(answers=answers, **trial))


PAYS = ModelAnswer(
    tools=(AskedTool(name="pay", arguments={"amount": 7}), AskedTool(name="ask", arguments={"message": "m"}))
)


def code_of(told: Told) -> str:
    assert told.problem is not None, told
    return told.problem.code


async def test_a_scripted_case_runs_in_a_host_and_asks_no_model_tool_or_agent(world: Any, calls: TaskCalls) -> None:
    coder(world)
    answers = (ToolAnswer(tool="pay", output="paid"), ToolAnswer(tool="ask", error="nobody there"))
    async with hosted(world):
        told = await calls.call(ask(scripted(PAYS, ModelAnswer(text="done, please"), answers=answers)))
    assert (told.problem, told.output) == (None, "done, please")
    assert (told.model_calls, told.tool_calls, told.tokens) == (2, 2, 0)
    assert world.model.requests == []


async def test_the_same_key_is_the_same_call_also_for_another_process(world: Any, calls: TaskCalls) -> None:
    coder(world)
    again = TaskCalls(TaskStorage(world.database, keep=60.0, lease=2.0), SystemClock(), patience=60.0, poll=0.02)
    async with hosted(world) as host:
        asked = ask(scripted(ModelAnswer(text="one")))
        first = await calls.call(asked)
        assert await again.call(asked) == first
        other = await calls.call(ask(scripted(ModelAnswer(text="two")), "other"))
        assert other.output == "two"
        assert (await host.client.loaded())["loaded"] == 1


async def test_a_model_that_is_asked_more_than_the_case_answers_fails_the_call(world: Any, calls: TaskCalls) -> None:
    coder(world)
    async with hosted(world):
        told = await calls.call(ask(scripted(PAYS, answers=(ToolAnswer(tool="pay"), ToolAnswer(tool="ask")))))
    assert code_of(told) == "script-over"


async def test_a_tool_that_the_case_does_not_answer_for_fails_the_call(world: Any, calls: TaskCalls) -> None:
    coder(world)
    async with hosted(world):
        told = await calls.call(ask(scripted(PAYS, ModelAnswer(text="sorry"))))
    assert code_of(told) == "trial-misfit"


async def test_a_real_model_is_asked_and_metered_in_the_environment(world: Any, calls: TaskCalls) -> None:
    coder(world)
    async with hosted(world):
        told = await calls.call(ask(TrialRequest(model="real")))
    assert (told.output, told.tokens) == ("model: pay 7", 12)
    assert [one.tenant for one in world.model.requests] == [ENV]


async def test_a_check_of_the_agents_own_runs_in_its_host(world: Any, calls: TaskCalls) -> None:
    coder(world)

    def judging(function: str, answer: str) -> TrialRequest:
        return scripted(check=CheckAsk(function=f"code:{function}", answer=answer, case="c"))

    async with hosted(world, grace=0.5):
        good, bad = await asyncio.gather(
            calls.call(ask(judging("polite", "yes please"), "a")), calls.call(ask(judging("polite", "no"), "b"))
        )
        assert msgspec.json.decode(good.output) == {"passed": True}
        assert msgspec.json.decode(bad.output) == {"passed": False, "reason": "it isn't polite"}
        # One that never ends is over at its deadline, whatever it does.
        slow = await calls.call(ask(judging("hang", "x"), "c", seconds=0.5))
        assert code_of(slow) in ("deadline-exceeded", "call-timeout")


async def test_a_case_that_kills_its_host_is_told_so_and_runs_once(world: Any, calls: TaskCalls) -> None:
    coder(world)
    asked = scripted(check=CheckAsk(function="code:die", answer="x", case="c"))
    async with hosted(world) as host:
        told = await calls.call(ask(asked))
        assert code_of(told) == "host-failed"
        assert await host.ended() != 0


async def test_a_case_that_nobody_waits_for_any_more_is_cancelled(world: Any, calls: TaskCalls) -> None:
    coder(world)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def forever(_: Any) -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    world.model.say = forever
    async with hosted(world):
        waiting = asyncio.create_task(calls.call(ask(TrialRequest(model="real"))))
        await begun.wait()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await until(ended.is_set)


async def test_a_function_elsewhere_is_not_called_by_a_test(world: Any, calls: TaskCalls) -> None:
    endpoint = FunctionEndpoint(url="https://fn.invalid/answer")
    made = builders.document(
        "remote", tenant=ENV, behaviour=Behaviour(function=FunctionBehaviour(endpoint=endpoint)), scripted=True
    )
    world.store.put_agent(made, "cell-1", protocols=("http",))
    async with hosted(world):
        told = await calls.call(ask(scripted(ModelAnswer(text="as it would say")), agent="remote"))
        assert told.output == "as it would say"
        assert code_of(await calls.call(ask(TrialRequest(model="real"), "k2", agent="remote"))) == "forbidden"


async def test_production_is_no_place_for_a_script(world: Any, calls: TaskCalls) -> None:
    """A request that says that it is a trial changes nothing outside of an environment."""
    await world.host()
    world.store.put_agent(builders.document("plain"), "cell-1", protocols=("http",))
    told = await calls.call(ask(scripted(ModelAnswer(text="made up")), agent="plain", environment="default"))
    assert told.output == "echo: pay 7"


async def test_tenants_of_that_name_are_the_platforms_own(world: Any) -> None:
    assert is_environment(ENV)
    status, told = await world.post("/v1/tenants", {"name": ENV})
    assert (status, told["code"]) == (400, "invalid-request")


async def test_an_environment_has_credentials_of_its_own(tmp_path: Path) -> None:
    for name, value in (("erp", "production"), ("staging_mail", "staging")):
        (tmp_path / name).write_text(value)
        (tmp_path / name).chmod(0o600)
    credentials = Credentials(tmp_path, {"staging_web": "from outside"})
    tool = FunctionTool(
        name="t", function="m:f", credentials={"A": "secret:erp", "B": "secret:mail", "C": "secret:web"}
    )
    there, here = (builders.document(tenant=tenant, tools=(tool,)) for tenant in (ENV, "default"))
    assert await credentials.resolve(there, ["secret:mail", "secret:web"]) == {
        "secret:mail": "staging",
        "secret:web": "from outside",
    }
    with pytest.raises(CredentialMissing, match="secret:staging_erp"):
        await credentials.resolve(there, ["secret:erp"])
    assert await credentials.resolve(here, ["secret:erp"]) == {"secret:erp": "production"}


async def test_a_call_that_no_gateway_runs_says_so(database: Any) -> None:
    calls = TaskCalls(TaskStorage(database, keep=60.0, lease=2.0), SystemClock(), patience=-40.0, poll=0.01)
    told = await calls.call(ask(TrialRequest(model="real"), seconds=1.0))
    assert code_of(told) == "trial-not-run"
    await calls.aclose()
