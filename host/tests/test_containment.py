"""What one agent can do to a real host process, and that the host ends in a way that names it."""

import asyncio
import os
import signal
import subprocess
import sys

import aiohttp
import pytest

from chimera_host.blackbox import read_black_box
from chimera_host.contract.agent import SourceCode
from chimera_host.contract.behaviour import Behaviour, FunctionBehaviour
from chimera_host.contract.tools import FunctionTool, ToolLimits
from chimera_host.testing.builders import document, invoke_request
from chimera_host.testing.doubles import refused, until
from chimera_host.testing.platform import tool_answer
from chimera_host.watchdog import ExitCode

CODE = """
import asyncio, ctypes, os, sys, time

def _spin(call):
    while True:
        pass

def _sleep(call):
    time.sleep(3600)

def _segfault(call):
    ctypes.string_at(0)

def _abort(call):
    os.abort()

def _leak(call):
    held = []
    while True:
        held.append(b"x" * (8 * 1024**2))
        call.remaining()
        time.sleep(0.01)

def _print(call):
    print("printed by", call.document.name)
    os.write(1, b"written past Python\\n")
    print("to stderr", file=sys.stderr)

def _exit(call):
    sys.exit(3)

def factory(context):
    def answer(prompt, call):
        globals()["_" + prompt](call)
        return "done"
    return answer

def on_loop(context):
    async def answer(prompt, call):
        if prompt == "spawn":
            async def leave():
                sys.exit(3)
            await asyncio.gather(leave())
        globals()["_" + prompt](call)
        return "done"
    return answer
"""


@pytest.fixture
def agent(platform):
    def make(name, entrypoint="agent:factory"):
        bundle = platform.add_bundle({"agent.py": CODE})
        made = document(name, source=SourceCode(bundle=bundle, entrypoint=entrypoint))
        return made, platform.add(made)

    return make


@pytest.fixture
def neighbour(platform):
    """An innocent agent whose model takes a while."""
    made = document("innocent")
    return made, platform.add(made)


async def broken(awaitable) -> None:
    with pytest.raises(aiohttp.ClientError):
        await awaitable


async def test_an_endless_loop_in_a_thread_costs_the_host_and_is_named(platform, host_process, agent, neighbour):
    host = await host_process(grace=1.0)
    looper = agent("looper")
    platform.model_delay = 2.0
    late = asyncio.ensure_future(host.invoke(invoke_request(*looper, "spin", deadline=0.5)))
    await asyncio.sleep(0.4)
    other = asyncio.ensure_future(host.invoke(invoke_request(*neighbour, "hi")))
    assert (await refused(late)).code == "deadline-exceeded"
    assert not other.done(), "the caller must not wait for the thread"
    assert (await other).output == "echo: hi", "others finish within the grace"
    assert await host.ended(10) == ExitCode.CALL_OVERDUE
    recording = read_black_box(host.black_box)
    assert recording.last_words.exit == "CALL_OVERDUE" and recording.last_words.agents == ("looper",)
    assert [(call.agent, call.cancelled) for call in recording.calls] == [("looper", True)]
    (line,) = [line for line in host.log_lines() if line["message"] == "host ends itself"]
    assert line["agents"] == ["looper"] and line["level"] == "critical"


async def test_a_tool_that_never_comes_back_costs_the_host_and_is_named(platform, host_process):
    bundle = platform.add_bundle({"tools.py": "import time\ndef rest() -> str:\n    time.sleep(3600)\n"})
    agent = document(
        "idler",
        behaviour=Behaviour(function=FunctionBehaviour(system_message="s", tools=("rest",))),
        tools=(
            FunctionTool(name="rest", function="tools:rest", description="d", limits=ToolLimits(deadline_seconds=1)),
        ),
        source=SourceCode(bundle=bundle),
    )
    host = await host_process(grace=1.0)
    platform.say(tool_answer(("rest", {})), "it took too long")
    assert (await host.invoke(invoke_request(agent, platform.add(agent)))).output == "it took too long"
    assert await host.ended(10) == ExitCode.CALL_OVERDUE
    assert read_black_box(host.black_box).last_words.agents == ("idler",)


async def test_a_host_that_gave_itself_up_takes_no_more(platform, host_process, agent, neighbour):
    host = await host_process(grace=1.0)
    platform.model_delay = 60.0
    stays = asyncio.ensure_future(host.invoke(invoke_request(*neighbour, "hi")))
    await until(lambda: platform.chats)
    await refused(host.invoke(invoke_request(*agent("sleeper"), "sleep", deadline=0.2)))

    async def not_ready():
        return (await host.client.get("/readyz"))[0] == 503

    await until(not_ready)
    assert (await refused(host.invoke(invoke_request(*neighbour, "more")))).code == "host-draining"
    assert await host.ended(10) == ExitCode.CALL_OVERDUE
    await broken(stays)


async def test_an_endless_loop_on_the_event_loop_is_noticed_and_named(host_process, agent):
    host = await host_process(grace=2.0)
    hung = asyncio.ensure_future(host.invoke(invoke_request(*agent("hog", "agent:on_loop"), "spin")))
    assert await host.ended(10) == ExitCode.LOOP_STALLED
    await broken(hung)
    words = read_black_box(host.black_box).last_words
    assert words.exit == "LOOP_STALLED" and words.agents == ("hog",)
    (line,) = [line for line in host.log_lines() if line["message"] == "host ends itself"]
    assert "in _spin" in line["stack"]


@pytest.mark.parametrize(("deed", "number"), [("segfault", signal.SIGSEGV), ("abort", signal.SIGABRT)])
async def test_a_crash_leaves_a_black_box_that_names_who_ran(platform, host_process, agent, deed, number):
    host = await host_process()
    crash = asyncio.ensure_future(host.invoke(invoke_request(*agent("crasher"), deed)))
    assert await host.ended() == -number
    await broken(crash)
    recording = read_black_box(host.black_box)
    assert [call.agent for call in recording.calls] == ["crasher"] and recording.last_words is None
    assert f"_{deed}" in host.log_text(), "the stack is in the log"


async def test_kill_9_leaves_a_black_box_too(platform, host_process, neighbour):
    host = await host_process()
    platform.model_delay = 30.0
    running = [asyncio.ensure_future(host.invoke(invoke_request(*neighbour))) for _ in range(3)]
    await until(lambda: len(platform.chats) == 3)
    os.kill(host.pid, signal.SIGKILL)
    assert await host.ended() == -signal.SIGKILL
    for call in running:
        await broken(call)
    assert [call.agent for call in read_black_box(host.black_box).calls] == ["innocent"] * 3


async def test_a_leak_costs_the_host_and_is_named(host_process, agent, neighbour):
    host = await host_process(memory_bytes=400 * 1024**2, grace=1.0)
    await host.invoke(invoke_request(*neighbour))
    request = invoke_request(*agent("leaky"), "leak")
    leak = asyncio.ensure_future(host.invoke(request))
    assert await host.ended() == ExitCode.OUT_OF_MEMORY
    await broken(leak)
    words = read_black_box(host.black_box).last_words
    assert words.exit == "OUT_OF_MEMORY" and words.agents == ("leaky",) and words.calls == (request.call,)


async def test_leaving_python_ends_the_call_alone(host_process, agent, neighbour):
    host = await host_process()
    for entrypoint in ("agent:factory", "agent:on_loop"):
        problem = await refused(host.invoke(invoke_request(*agent("leaver", entrypoint), "exit")))
        assert problem.code == "agent-failed" and "SystemExit" in problem.detail
    assert (await host.invoke(invoke_request(*neighbour, "hi"))).output == "echo: hi"


async def test_leaving_python_in_a_task_of_its_own_costs_the_host(host_process, agent):
    host = await host_process()
    leaving = asyncio.ensure_future(host.invoke(invoke_request(*agent("leaver", "agent:on_loop"), "spawn")))
    assert await host.ended() == ExitCode.FAILED
    await broken(leaving)
    assert "SystemExit" in host.log_text()


async def test_what_is_printed_is_attributed(host_process, agent):
    host = await host_process()
    request = invoke_request(*agent("printer"), "print")
    await host.invoke(request)
    host.terminate()
    assert await host.ended() == 0
    lines = {line["message"]: line for line in host.log_lines()}
    assert lines["printed by printer"]["agent"] == "printer" and lines["printed by printer"]["request"] == request.call
    assert lines["to stderr"]["level"] == "warning" and lines["to stderr"]["agent"] == "printer"
    assert "written past Python\n" in host.log_text()


async def test_no_prompt_reaches_the_log(platform, host_process, neighbour):
    host = await host_process()
    platform.say("the answer 4711")
    await host.invoke(invoke_request(*neighbour, "the question 4711"))
    host.terminate()
    assert await host.ended() == 0 and "4711" not in host.log_text()


async def test_sigterm_drains_and_exits_with_0(platform, host_process, neighbour):
    host = await host_process()
    platform.model_delay = 0.5
    running = asyncio.ensure_future(host.invoke(invoke_request(*neighbour, "hi")))
    await until(lambda: platform.chats)
    host.terminate()
    assert (await running).output == "echo: hi"
    assert await host.ended() == 0
    assert read_black_box(host.black_box).calls == ()


async def test_sigterm_with_a_thread_that_never_returns(host_process, agent):
    host = await host_process(drain=0.2, grace=1.0)
    stuck = asyncio.ensure_future(host.invoke(invoke_request(*agent("sleeper"), "sleep")))
    await until(lambda: len(read_black_box(host.black_box).calls) == 1)
    await asyncio.sleep(0.2)
    host.terminate()
    assert await host.ended(10) in (ExitCode.DRAINED, ExitCode.CALL_OVERDUE)
    with pytest.raises(Exception, match=r"shut down|disconnected|reset"):
        await stuck


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "loop-busy"])
async def test_a_cut_lifeline_ends_the_host_at_once(host_process, agent, busy):
    host = await host_process(grace=30.0)
    if busy:
        task = asyncio.ensure_future(host.invoke(invoke_request(*agent("hog", "agent:on_loop"), "spin")))
        await until(lambda: len(read_black_box(host.black_box).calls) == 1)
        await asyncio.sleep(0.2)
    host.cut_lifeline()
    assert await host.ended(5) == ExitCode.LIFELINE
    assert read_black_box(host.black_box).last_words.exit == "LIFELINE"
    if busy:
        await broken(task)


def test_a_wrong_configuration_is_explained():
    command = [sys.executable, "-m", "chimera_host", "serve"]
    done = subprocess.run(command, capture_output=True, text=True, env={}, timeout=30, check=False)
    assert done.returncode == 64 and "CHIMERA_" in done.stderr and "Traceback" not in done.stderr
