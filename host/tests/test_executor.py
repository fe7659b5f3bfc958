"""Blocking work that a call's coroutines hand to a thread."""

import asyncio
import threading
import time

import pytest

from chimera_host.contract.call import Message
from chimera_host.executor import CallExecutor
from chimera_host.ports import RunResult, current_call
from chimera_host.testing.builders import document, invoke_request
from chimera_host.testing.doubles import ScriptedAdapter, refused, until


@pytest.fixture
async def running(platform, local_host):
    """`await running(run, …)`: a host whose agents do `run`, in a loop with the host's executor; and a call."""

    async def start(run, **fields):
        host = await local_host(ScriptedAdapter(run), **fields)
        asyncio.get_running_loop().set_default_executor(host.host.executor)
        agent = document()
        revision = platform.add(agent)
        return host, lambda **fields: invoke_request(agent, revision, **fields)

    return start


async def test_it_runs_as_its_call_and_counts_to_its_processor_time(running):
    used = []

    def work(call):
        assert current_call.get() is call and threading.current_thread().name.startswith("agent-")
        began = time.thread_time()
        while time.thread_time() - began < 0.03:
            pass
        return "worked"

    async def run(call):
        output = await asyncio.to_thread(work, call)
        used.append(call.cpu_seconds)
        return RunResult(output=output)

    host, call = await running(run)
    assert (await host.invoke(call())).output == "worked"
    assert used[0] >= 0.03


@pytest.mark.parametrize("error", [KeyError("k"), SystemExit(3), StopIteration()], ids=lambda e: type(e).__name__)
async def test_what_it_raises_reaches_the_coroutine(running, error):
    def work():
        raise error

    async def run(call):
        try:
            await asyncio.to_thread(work)
        except Exception as raised:
            return RunResult(output=repr(raised))

    host, call = await running(run)
    assert type(error).__name__ in (await host.invoke(call())).output


async def test_a_cancelled_call_runs_until_its_thread_is_back(running):
    entered, leave = threading.Event(), threading.Event()

    def work():
        entered.set()
        leave.wait(20)

    async def run(call):
        await asyncio.to_thread(work)

    host, call = await running(run)
    assert (await refused(host.invoke(call(deadline=0.2)))).code == "deadline-exceeded"
    assert entered.is_set() and host.host.in_flight == 1
    assert [one.agent for one in host.host.observe().cancelled] == ["agent"]
    leave.set()
    await until(lambda: host.host.in_flight == 0)
    assert not host.host.observe().cancelled


async def test_a_thread_that_a_call_leaves_behind_is_told(running):
    leave = threading.Event()

    async def run(call):
        try:
            async with asyncio.timeout(0.05):
                await asyncio.to_thread(leave.wait, 20)
        except TimeoutError:
            return RunResult(output="went on")

    host, call = await running(run)
    assert (await host.invoke(call())).output == "went on"
    assert [(one.agent, one.call) for one in host.host.observe().cancelled] == [("agent", "")]
    leave.set()
    await until(lambda: not host.host.observe().cancelled)


async def test_work_that_waits_for_a_thread_is_dropped_with_its_call(running):
    leave, ran = threading.Event(), []

    async def run(call):
        await asyncio.to_thread(leave.wait if call.prompt == "hold" else lambda: ran.append(1))
        return RunResult(output="done")

    host, call = await running(run, threads=1)
    holding = asyncio.create_task(host.invoke(call(messages=(Message(role="user", content="hold"),))))
    await until(lambda: host.host.in_flight == 1)
    assert (await refused(host.invoke(call(deadline=0.1)))).code == "deadline-exceeded"
    await until(lambda: host.host.in_flight == 1)
    leave.set()
    assert (await holding).output == "done" and not ran


async def test_names_are_looked_up_while_all_threads_are_taken(running):
    async def run(call):
        loop = asyncio.get_running_loop()

        def work():
            return asyncio.run_coroutine_threadsafe(loop.getaddrinfo("localhost", 80), loop).result(10)

        return RunResult(output=str(bool(await asyncio.to_thread(work))))

    host, call = await running(run, threads=1)
    assert (await host.invoke(call())).output == "True"


async def test_outside_of_calls_it_is_any_executor():
    executor = CallExecutor(1, asyncio.get_running_loop())
    assert executor.submit(lambda: threading.current_thread().name).result(5).startswith("host")
    assert not executor.missing(time.monotonic())
    executor.shutdown()
