"""The pipeline: function and agent tools through the broker, and what happens when they misbehave."""

import asyncio
import logging
import threading
import time

import pytest

from chimera_host.broker import Broker, ToolContext
from chimera_host.broker.running import THREADS
from chimera_host.contract.problem import RemoteProblem
from chimera_host.contract.tools import AgentTool, FunctionTool, ToolLimits
from chimera_host.errors import AgentLoadError, CallCancelled, DeadlineExceeded, ToolFailed, ToolRefused
from chimera_host.ports import current_call
from chimera_host.testing.builders import document
from chimera_host.testing.doubles import until
from chimera_host.testing.platform import problem

SECRET = "sk-0123456789"


def tool(name="do", **fields):
    return FunctionTool(name=name, function="m:f", **fields)


async def opened(open_broker, function, **fields):
    return await open_broker(tool(**fields), functions={"m:f": function})


def spans(caplog):
    return [record.span for record in caplog.records if record.getMessage() == "span"]


# -- functions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "text"),
    [("plain", "plain"), ({"a": [1, None]}, '{"a":[1,null]}'), (None, ""), (3, "3"), (True, "true"), (["ü"], '["ü"]')],
)
async def test_what_a_function_returns_becomes_text(open_broker, returned, text):
    broker = await opened(open_broker, lambda: returned)
    assert await broker.call("do") == text


async def test_a_function_that_isnt_a_coroutine_may_block(open_broker):
    on = []

    def blocking(a: int) -> int:
        on.append(threading.current_thread())
        return a + 1

    async def coroutine(a: int) -> int:
        on.append(threading.current_thread())
        return a + 2

    blocks, awaits = await opened(open_broker, blocking), await opened(open_broker, coroutine)
    assert (await blocks.call("do", a=1), await awaits.call("do", a=1)) == ("2", "3")
    assert on[0] is not threading.current_thread() and on[1] is threading.current_thread()


async def test_a_function_gets_its_context(open_broker, dict_platform, tmp_path):
    dict_platform.secrets["secret:key"] = SECRET

    def look(term: str, context: ToolContext) -> str:
        assert context.credentials == {"token": SECRET} and SECRET not in repr(context)
        return f"{term} {context.tenant} {context.agent} {context.tool} {context.work_dir} {context.call.remaining()}"

    broker = await opened(open_broker, look, credentials={"token": "secret:key"})
    assert dict_platform.asked == []
    assert await broker.call("do", term="x") == f"x default agent do {tmp_path / 'work'} 120.0"
    assert dict_platform.asked == [("call-1", ("secret:key",))]


async def test_a_functions_http_client_holds_to_the_egress_list(open_broker, serve):
    from aiohttp import web

    async def hello(_):
        return web.Response(text="hello")

    url = await serve(hello)

    def fetch(url: str, context: ToolContext) -> str:
        return context.http.request_blocking("GET", url).text

    broker = await opened(open_broker, fetch, limits=ToolLimits(egress=("127.0.0.1",)))
    assert await broker.call("do", url=url) == "hello"
    with pytest.raises(ToolRefused, match=r"may not connect to 169\.254\.169\.254"):
        await broker.call("do", url="http://169.254.169.254/latest/meta-data/")


async def test_what_a_function_returns_may_have_no_text(open_broker):
    broker = await opened(open_broker, lambda: object())
    with pytest.raises(ToolFailed, match="returned object, which has no JSON form"):
        await broker.call("do")


async def test_a_functions_error_is_told_without_the_secret_in_it(open_broker, dict_platform, caplog):
    dict_platform.secrets["secret:key"] = SECRET
    caplog.set_level(logging.INFO)

    def leaks(context: ToolContext) -> str:
        raise ValueError(f"401 for {context.credentials['token']}")

    broker = await opened(open_broker, leaks, credentials={"token": "secret:key"})
    with pytest.raises(ToolFailed) as failed:
        await broker.call("do")
    assert failed.value.detail == "tool 'do' raised ValueError: 401 for [secret:key]"
    assert failed.value.__cause__ is None and failed.value.__context__ is None
    logged = "\n".join(str(vars(record)) for record in caplog.records)
    assert SECRET not in logged and "in leaks" in logged


async def test_a_secret_in_an_answer_is_taken_out(open_broker, dict_platform):
    dict_platform.secrets["secret:key"] = SECRET

    def echo(context: ToolContext) -> dict[str, str]:
        return {"used": context.credentials["token"]}

    broker = await opened(open_broker, echo, credentials={"token": "secret:key"})
    assert await broker.call("do") == '{"used":"[secret:key]"}'


async def test_a_missing_credential_is_named(open_broker):
    def needs(context: ToolContext) -> None: ...

    broker = await opened(open_broker, needs, credentials={"token": "secret:none"})
    with pytest.raises(ToolFailed, match="there is no credential secret:none"):
        await broker.call("do")


# -- the pipeline ---------------------------------------------------------------------------------------------------


async def test_nothing_runs_with_wrong_arguments_or_for_a_wrong_name(open_broker):
    ran = []

    def function(a: int) -> None:
        ran.append(a)

    broker = await opened(open_broker, function)
    for name, arguments in (("do", {"a": "1"}), ("do", {}), ("do", {"a": 1, "b": 2}), ("done", {"a": 1})):
        with pytest.raises(ToolRefused):
            await broker.call(name, **arguments)
    assert ran == []


async def test_an_output_that_is_too_large_is_refused(open_broker):
    broker = await opened(open_broker, lambda: "ü" * 6, limits=ToolLimits(max_output_bytes=11))
    with pytest.raises(ToolFailed, match="answered 12 bytes, more than the 11 it may"):
        await broker.call("do")


async def test_a_call_is_one_span_that_tells_no_arguments(open_broker, caplog):
    caplog.set_level(logging.INFO)

    def function(a: str) -> str:
        return a

    broker = await opened(open_broker, function)
    await broker.call("do", a="prompt-text")
    with pytest.raises(ToolRefused):
        await broker.call("do")
    first, second = spans(caplog)
    assert first["name"] == "tool" and first["attributes"] == {"tool": "do", "kind": "function", "bytes": 11}
    assert second["error"] == "ToolRefused" and "prompt-text" not in str([vars(r) for r in caplog.records])


async def test_a_coroutine_that_hangs_is_ended_by_the_tools_deadline(open_broker):
    ended = []

    async def hangs() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    broker = await opened(open_broker, hangs, limits=ToolLimits(deadline_seconds=0.05))
    with pytest.raises(ToolFailed, match=r"took longer than its 0.05 s"):
        await broker.call("do")
    assert ended == [True] and broker.broker.missing(time.monotonic()) == []


async def test_a_thread_that_hangs_is_left_behind_and_counted(open_broker):
    release = threading.Event()
    broker = await opened(open_broker, lambda: release.wait(20), limits=ToolLimits(deadline_seconds=0.05))
    with pytest.raises(ToolFailed, match="took longer"):
        await broker.call("do")
    [(agent, seconds)] = broker.broker.missing(time.monotonic())
    assert agent == "agent" and 0 <= seconds < 5
    release.set()
    await until(lambda: not broker.broker.missing(time.monotonic()))


async def test_functions_that_hang_take_no_more_than_their_threads(open_broker):
    release, started = threading.Event(), []

    def hangs() -> None:
        started.append(1)
        release.wait(20)

    broker = await opened(open_broker, hangs, limits=ToolLimits(deadline_seconds=0.3))
    failed = await asyncio.gather(*(broker.call("do") for _ in range(THREADS + 5)), return_exceptions=True)
    assert all(isinstance(one, ToolFailed) for one in failed) and len(started) == THREADS
    release.set()
    await until(lambda: not broker.broker.missing(time.monotonic()))
    assert await broker.call("do") == "" and len(started) == THREADS + 1


async def test_the_calls_own_deadline_is_the_shorter_one(open_broker, fake_call):
    async def hangs() -> None:
        await asyncio.sleep(60)

    broker = await opened(open_broker, hangs)
    with pytest.raises(ToolFailed, match="were left of the call"):
        await broker.broker.call("do", {}, call=fake_call(remaining=0.05))
    with pytest.raises(DeadlineExceeded):
        await broker.broker.call("do", {}, call=fake_call(remaining=0))


async def test_a_cancelled_call_waits_for_its_tool(open_broker):
    release, entered = threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        release.wait(20)

    broker = await opened(open_broker, slow)
    task = asyncio.create_task(broker.call("do"))
    await until(entered.is_set)
    task.cancel()
    await asyncio.sleep(0.02)
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_inside_a_tool_stays_one(open_broker):
    async def cancelled() -> None:
        raise CallCancelled("the call was cancelled")

    broker = await opened(open_broker, cancelled)
    with pytest.raises(CallCancelled):
        await broker.call("do")


async def test_calls_run_at_once(open_broker):
    both = threading.Barrier(2, timeout=5)

    def meet() -> int:
        return both.wait()

    broker = await opened(open_broker, meet)
    assert sorted(await asyncio.gather(broker.call("do"), broker.call("do"))) == ["0", "1"]


# -- loading --------------------------------------------------------------------------------------------------------


async def test_two_tools_of_one_name_are_refused(open_broker):
    with pytest.raises(AgentLoadError, match="two tools that are called 'do'"):
        await open_broker(tool(), tool(), functions={"m:f": lambda: ""})


async def test_a_function_that_cant_be_had_says_so(dict_platform, tmp_path):
    def functions(path):
        raise AgentLoadError(f"{path!r} names no module")

    broker = Broker(document(tools=(tool(),)), dict_platform, str(tmp_path), functions)
    with pytest.raises(AgentLoadError, match="'m:f' names no module") as failed:
        await broker.specs()
    assert failed.value.agent == "agent"
    await broker.aclose()


async def test_the_end_of_the_call_that_loads_is_not_that_of_the_others(dict_platform, tmp_path):
    class Over:
        async def in_thread(self, function):
            raise CallCancelled("the caller went away")

    token = current_call.set(Over())
    broker = Broker(document(tools=(tool(),)), dict_platform, str(tmp_path), {"m:f": lambda: ""}.__getitem__)
    with pytest.raises(AgentLoadError, match="cut short") as failed:
        await broker.specs()
    current_call.reset(token)
    assert failed.value.retry_after
    await broker.aclose()


# -- agents ---------------------------------------------------------------------------------------------------------


async def test_another_agent_is_asked_through_the_platform(open_broker, dict_platform):
    dict_platform.agents["helper"] = lambda message: f"heard {message}"
    broker = await open_broker(AgentTool(name="ask", agent="helper", limits=ToolLimits(deadline_seconds=7)))
    assert broker.flat["ask"].parameters["required"] == ["message"] and "helper" in broker.flat["ask"].description
    assert await broker.call("ask", message="hi") == "heard hi"
    assert dict_platform.invoked == [("call-1", "helper", "hi", 7.0)] and dict_platform.keys == [None]


async def test_an_agent_that_is_at_work_on_the_same_already_is_waited_for(open_broker, dict_platform, fake_call):
    """Another host had asked, and is gone; what it had asked for goes on for a moment, or has come to its end."""
    answers = [RemoteProblem(problem("run-in-progress", 409, "at work", retry_after=0.001)), "done"]

    def helper(message):
        said = answers.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    dict_platform.agents["helper"] = helper
    broker = await open_broker(AgentTool(name="ask", agent="helper", limits=ToolLimits(deadline_seconds=7)))
    call = fake_call()
    call.idempotency_key = "key"
    assert await broker.broker.call("ask", {"message": "hi"}, call=call) == "done"
    assert dict_platform.keys == ["key", "key"]
    for wrong in ({}, {"message": 1}, {"message": ""}, {"message": "a", "to": "b"}):
        with pytest.raises(ToolRefused):
            await broker.call("ask", **wrong)


@pytest.mark.parametrize(
    ("status", "kind"), [(403, ToolRefused), (404, ToolRefused), (429, ToolFailed), (500, ToolFailed)]
)
async def test_another_agents_problem_is_a_tools(open_broker, dict_platform, status, kind):
    def refuses(_):
        raise RemoteProblem(problem("some-code", status, "it would not", retry_after=2.0))

    dict_platform.agents["helper"] = refuses
    broker = await open_broker(AgentTool(name="ask", agent="helper"))
    with pytest.raises(kind, match="agent helper did not answer: it would not") as failed:
        await broker.call("ask", message="hi")
    assert failed.value.retry_after == 2.0


async def test_another_agent_that_doesnt_answer_is_given_up(open_broker, dict_platform):
    async def silent(_):
        await asyncio.sleep(60)

    dict_platform.agents["helper"] = silent
    broker = await open_broker(AgentTool(name="ask", agent="helper", limits=ToolLimits(deadline_seconds=0.05)))
    with pytest.raises(ToolFailed, match=r"took longer than its 0\.05 s"):
        await broker.call("ask", message="hi")
