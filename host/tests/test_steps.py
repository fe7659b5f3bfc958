"""Keys that stay the same when a step runs again, and a call's steps on a fake platform."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera_host.contract.agent import SourceCode
from chimera_host.contract.state import SharedBody, SharedWrite
from chimera_host.contract.tools import AgentTool, FunctionTool
from chimera_host.ports import RunResult
from chimera_host.steps import Scope
from chimera_host.testing.builders import document, invoke_request
from chimera_host.testing.doubles import ScriptedAdapter, refused
from chimera_host.testing.platform import problem

ASKED = st.lists(st.sampled_from(["a", "b", "c"]), max_size=12)


def keys(scope, asked):
    made = []
    for one in asked:
        with scope.asking("model", {"messages": [one]}) as key:
            made.append((one, key))
    return made


# -- keys -------------------------------------------------------------------------------------------------------------


@given(ASKED.flatmap(lambda asked: st.tuples(st.just(asked), st.permutations(asked))))
def test_the_order_of_branches_changes_no_key(orders):
    first, again = (keys(Scope("run", "step", "one"), asked) for asked in orders)
    assert sorted(first) == sorted(again)
    assert len({key for _, key in first}) == len(first)


@given(ASKED)
def test_nothing_of_another_run_step_or_kind_has_the_same_key(asked):
    scopes = [Scope("run", "step", "one"), Scope("run", "step", "two"), Scope("nur", "step", "one"), Scope("run", "on")]
    made = [key for scope in scopes for _, key in keys(scope, asked)]
    assert len(set(made)) == len(made)
    with scopes[0].asking("model", "x") as model, scopes[0].asking("tool", "x") as tool:
        assert model != tool


def test_the_same_request_has_the_same_key_however_its_fields_are_ordered():
    one, other = Scope("r"), Scope("r")
    with one.asking("model", {"a": 1, "b": 2}) as first, other.asking("model", {"b": 2, "a": 1}) as second:
        assert first == second and len(first) == 40


def test_what_failed_and_is_asked_again_has_the_same_key():
    scope = Scope("r")
    with scope.asking("model", "x") as first:
        pass
    with pytest.raises(ValueError, match="lost"), scope.asking("model", "x") as failed:
        raise ValueError("lost")
    with scope.asking("model", "x") as again:
        assert again == failed != first


# -- calls ------------------------------------------------------------------------------------------------------------


class Working:
    """An agent whose `run` is replaced from test to test, and which notes what it saw."""

    def __init__(self, platform, local_host):
        self.platform = platform
        self.local_host = local_host
        self.agent = document()
        self.seen = []

    async def attempt(self, work, run="run-1", prompt="Hello"):
        async def once(call):
            self.seen.append(await work(call))
            return RunResult(output="done")

        host = await self.local_host(ScriptedAdapter(once))
        request = invoke_request(self.agent, self.platform.add(self.agent), prompt)
        if run is not None:
            request = self.platform.runs.begin(request, run)
        return await host.invoke(request)


@pytest.fixture
def working(platform, local_host):
    return Working(platform, local_host)


def asked(text):
    return {"messages": [{"role": "user", "content": text}]}


async def test_a_call_without_a_run_sends_no_key_and_saves_nothing(working, platform):
    async def work(call):
        with call.step("one"):
            await call.chat(asked("a"))
        assert await call.save_step("one", "step", 1) == 0
        assert await call.once("two", lambda: asyncio.sleep(0, 2)) == 2
        await call.shared("board", SharedBody(write=(SharedWrite(key="k", value=1),)))
        return call.finished, call.idempotency_key

    await working.attempt(work, run=None)
    assert working.seen == [({}, None)] and platform.chats[0].key is None and platform.keys == [None]
    assert not platform.runs.by_name


async def test_the_step_in_flight_is_asked_again_with_the_same_keys(working, platform):
    """Finished: one. In flight when it fails: two, whose model call was answered. Nothing of either is paid again."""

    async def work(call):
        first = await call.once("one", lambda: call.chat(asked("same")))
        with call.step("two"):
            second = await call.chat(asked("same"))
            third = await call.chat(asked("same"))
            if len(working.seen) == 0:
                working.seen.append("failed")
                raise RuntimeError("the host is gone")
        await call.save_step("two", "step", "x")
        return [answer["choices"][0]["message"]["content"] for answer in (first, second, third)]

    platform.say("1", "2", "3")
    assert (await refused(working.attempt(work))).code == "agent-failed"
    await working.attempt(work)
    assert working.seen[-1] == ["1", "2", "3"] and len(platform.chats) == 3
    run = platform.runs["run-1"]
    assert run.names == ["one", "two"] and run.asked[1:3] == run.asked[3:5] and len(set(run.asked)) == 3


async def test_between_saves_the_number_of_finished_steps_names_the_step(working, platform):
    """Code that names nothing: what comes after a save isn't taken for what came before it."""

    async def work(call):
        if "one" not in call.finished:
            await call.chat(asked("go on"))
            await call.save_step("one", "step", None)
        await call.chat(asked("go on"))
        if not working.seen:
            working.seen.append("failed")
            raise RuntimeError("the host is gone")
        return list(call.finished)

    await refused(working.attempt(work))
    await working.attempt(work)
    one, two, again = platform.runs["run-1"].asked
    assert one != two == again and len(platform.chats) == 2 and working.seen[-1] == ["one"]


async def test_branches_side_by_side_keep_their_keys_in_any_order(working, platform):
    async def branch(call, name, wait):
        await asyncio.sleep(wait)
        with call.step(name):
            await call.chat(asked("what all ask"))

    async def forward(call):
        await asyncio.gather(*(branch(call, name, wait) for name, wait in (("a", 0), ("b", 0.01), ("c", 0.02))))

    async def backward(call):
        await asyncio.gather(*(branch(call, name, wait) for name, wait in (("a", 0.02), ("b", 0.01), ("c", 0))))

    await working.attempt(forward)
    await working.attempt(backward)
    asked_for = platform.runs["run-1"].asked
    assert asked_for[:3] == asked_for[:2:-1] and len(platform.chats) == 3


async def test_all_pages_of_finished_steps_are_read(working, platform):
    async def save(call):
        for number in range(8):
            await call.save_step(f"step-{number}", "step", {"n": number})

    async def look(call):
        return [(one.version, name, one.output["n"]) for name, one in call.finished.items()]

    await working.attempt(save)
    await working.attempt(look)
    assert working.seen[-1] == [(n + 1, f"step-{n}", n) for n in range(8)]


async def test_a_call_that_another_has_taken_over_saves_no_more(working, platform):
    async def overtaken(call):
        platform.runs.begin(call.request, "run-1")
        platform.runs["run-1"].call = "call-of-another-host"
        await call.save_step("late", "step", None)

    assert (await refused(working.attempt(overtaken))).code == "run-taken"
    assert platform.runs["run-1"].names == []


async def test_from_a_thread_it_is_the_same(working, platform):
    def blocking(call):
        with call.step("one"):
            call.chat_blocking(asked("a"))
        call.save_step_blocking("one", "step", 1)
        board = SharedBody(write=(SharedWrite(key="votes", op="add", value=1),), read=("other",))
        answer = call.once_blocking("two", lambda: call.shared_blocking("board", board).version)
        return answer, call.once_blocking("one", lambda: 5)

    async def work(call):
        return await call.in_thread(blocking, call)

    await working.attempt(work, run=None)
    assert working.seen.pop() == (1, 5)
    await refused(working.attempt(work))  # `one` is finished with another content by then
    await working.attempt(work)
    assert working.seen == [(2, 1)] and platform.runs["run-1"].names == ["one", "two"]
    assert platform.spaces["board"]["votes"].value == 2


async def test_a_model_call_that_failed_is_paid_once_when_it_is_asked_again(working, platform):
    async def work(call):
        try:
            await call.chat(asked("a"))
        except Exception:
            await call.chat(asked("a"))

    platform.say(problem("model-failed", 502, "no answer"), "at last")
    await working.attempt(work)
    await working.attempt(work)
    assert len(set(platform.runs["run-1"].asked)) == 1 and len(platform.chats) == 2


async def test_a_streamed_answer_has_a_key_too(platform, local_host):
    host = await local_host()
    agent = document()
    revision = platform.add(agent)
    for _ in range(2):
        events = host.stream(platform.runs.begin(invoke_request(agent, revision, "Hello"), "run-1"))
        assert [name async for name, _ in events][-1] == "done"
    assert len(platform.chats) == 1 and len(set(platform.runs["run-1"].asked)) == 1


# -- tools ------------------------------------------------------------------------------------------------------------

CODE = """
from chimera_host.broker.context import ToolContext
from chimera_host.ports import current_call

def factory(context):
    async def answer(prompt, call):
        both = [await call.tool("act", {"what": what}) for what in ("one", "one", "two")]
        told = await call.tool("ask", {"message": "hello"})
        return " ".join(both)
    return answer

def act(what: str, context: ToolContext) -> str:
    assert context.idempotency_key == current_call.get().idempotency_key
    said = context.call.chat_blocking({"messages": [{"role": "user", "content": "the same"}]})
    return str(context.idempotency_key)
"""


async def test_tools_and_agents_are_given_a_key(platform, local_host):
    host = await local_host()
    tools = (FunctionTool(name="act", function="agent:act"), AgentTool(name="ask", agent="other"))
    bundle = platform.add_bundle({"agent.py": CODE})
    agent = document(tools=tools, source=SourceCode(bundle=bundle, entrypoint="agent:factory"))
    revision = platform.add(agent)
    platform.agents["other"] = lambda message: "heard"
    answers = [
        await host.invoke(platform.runs.begin(invoke_request(agent, revision, "Hello"), "run-1")) for _ in range(2)
    ]
    assert answers[0].output == answers[1].output and len(set(answers[0].output.split())) == 3
    assert len(platform.chats) == 3  # each of the three asked for itself
    assert platform.keys[0] == platform.keys[1] not in (None, *answers[0].output.split())
    without = await host.invoke(invoke_request(agent, revision, "Hello"))
    assert without.output == "None None None" and platform.keys[2] is None
