"""A call ends early: by its deadline, its caller, or a request; and the code that runs learns of it."""

import asyncio
import threading

from chimera_host.errors import CallCancelled
from chimera_host.ports import RunResult
from chimera_host.testing.builders import document, invoke_request
from chimera_host.testing.doubles import ScriptedAdapter, refused, until


async def test_a_deadline_cancels_the_call_down_to_the_model(platform, local_host):
    host = await local_host()
    agent = document()
    platform.model_delay = 30.0
    late = await refused(host.invoke(invoke_request(agent, platform.add(agent), deadline=0.2)))
    assert (late.code, late.status, late.agent) == ("deadline-exceeded", 504, "agent")
    await until(lambda: host.host.in_flight == 0 and platform.chats[0].cancelled)


async def test_the_hosts_own_limit_holds_too(platform, local_host):
    host = await local_host(request_timeout=0.2)
    agent = document()
    platform.model_delay = 30.0
    assert (await refused(host.invoke(invoke_request(agent, platform.add(agent))))).code == "deadline-exceeded"


async def test_who_goes_away_cancels(platform, local_host):
    host = await local_host()
    agent = document()
    platform.model_delay = 30.0
    task = asyncio.ensure_future(host.invoke(invoke_request(agent, platform.add(agent))))
    await until(lambda: platform.chats)
    task.cancel()
    await until(lambda: host.host.in_flight == 0 and platform.chats[0].cancelled)
    assert host.host.metrics.outcomes["call-cancelled"] == 1


async def test_leaving_a_stream_cancels(platform, local_host):
    host = await local_host()
    agent = document()
    platform.model_delay = 30.0

    async def read():
        async for _ in host.stream(invoke_request(agent, platform.add(agent))):
            pass

    task = asyncio.ensure_future(read())
    await until(lambda: platform.chats)
    task.cancel()
    await until(lambda: host.host.in_flight == 0 and platform.chats[0].cancelled)


async def test_a_call_is_cancelled_on_request(platform, local_host):
    host = await local_host()
    agent = document()
    platform.model_delay = 30.0
    request = invoke_request(agent, platform.add(agent))
    task = asyncio.ensure_future(host.invoke(request))
    await until(lambda: platform.chats)
    assert await host.client.cancel(request.call) == 202
    assert (await refused(task)).code == "call-cancelled"
    await until(lambda: host.host.in_flight == 0)
    assert await host.client.cancel(request.call) == 404


async def test_a_blocking_framework_learns_of_it_at_its_next_model_call(platform, local_host):
    seen = []

    def blocking(call, first_done):
        call.chat_blocking({"messages": []})
        first_done.set()
        try:
            while True:
                call.chat_blocking({"messages": []})
        except Exception as error:
            seen.append(error.code)
            raise

    first_done = threading.Event()

    async def run(call):
        await call.in_thread(blocking, call, first_done)

    host = await local_host(ScriptedAdapter(run))
    agent = document()
    platform.default = "x"
    request = invoke_request(agent, platform.add(agent))
    task = asyncio.ensure_future(host.invoke(request))
    await until(first_done.is_set)
    await host.client.cancel(request.call)
    assert (await refused(task)).code == "call-cancelled"
    await until(lambda: host.host.in_flight == 0)
    assert seen == ["call-cancelled"]


async def test_a_blocking_call_waiting_for_the_model_is_woken(platform, local_host):
    async def run(call):
        return RunResult(output=await call.in_thread(lambda: str(call.chat_blocking({"messages": []}))))

    host = await local_host(ScriptedAdapter(run))
    agent = document()
    platform.model_delay = 30.0
    assert (await refused(host.invoke(invoke_request(agent, platform.add(agent), deadline=0.3)))).status == 504
    await until(lambda: host.host.in_flight == 0 and platform.chats[0].cancelled)


async def test_a_framework_that_swallows_the_cancellation_still_ends_cancelled(platform, local_host):
    async def stubborn(call):
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return RunResult(output="I finished anyway")

    host = await local_host(ScriptedAdapter(stubborn))
    agent = document()
    assert (await refused(host.invoke(invoke_request(agent, platform.add(agent), deadline=0.1)))).status == 504
    await until(lambda: host.host.in_flight == 0)
    assert host.host.metrics.outcomes == {"deadline-exceeded": 1}


async def test_blocking_on_the_loop_is_refused_in_clear_words(platform, local_host):
    async def run(call):
        return RunResult(output=call.chat_blocking({"messages": []}))

    host = await local_host(ScriptedAdapter(run))
    agent = document()
    failed = await refused(host.invoke(invoke_request(agent, platform.add(agent))))
    assert "on the event loop" in failed.detail


async def test_a_call_cancelled_before_its_task_began_leaves_nothing_behind(platform, local_host):
    host = await local_host()
    agent = document()
    call = host.host.begin(invoke_request(agent, platform.add(agent)), None, None)
    call.cancel(CallCancelled("at once"))
    await until(lambda: host.host.in_flight == 0)
    assert isinstance(call.answer.exception(), CallCancelled) and host.host.metrics.outcomes == {"call-cancelled": 1}
    assert host.host._by_task == {}


async def test_a_deadline_that_has_passed_already(platform, local_host):
    host = await local_host()
    agent = document()
    assert (await refused(host.invoke(invoke_request(agent, platform.add(agent), deadline=-1.0)))).status == 504
    await until(lambda: host.host.in_flight == 0)


async def test_a_quiet_stream_says_that_it_lives_and_ends_when_idle_for_too_long(platform, local_host, monkeypatch):
    monkeypatch.setattr("chimera_host.server.COMMENT_EVERY", 0.05)
    host = await local_host(stream_idle=0.3)
    agent = document()
    platform.model_delay = 30.0
    events = [event async for event in host.stream(invoke_request(agent, platform.add(agent)))]
    assert [name for name, _ in events[:3]] == ["comment"] * 3
    assert events[-1][0] == "error" and "said nothing" in events[-1][1]["detail"]
    await until(lambda: host.host.in_flight == 0)
