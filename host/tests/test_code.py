"""Agents that bring code: their own folder and modules, threads, prints, storage, and their share of the processor."""

import asyncio
import time

import pytest

from chimera_host.contract.agent import AgentResources, SourceCode
from chimera_host.contract.behaviour import Behaviour, FunctionBehaviour
from chimera_host.contract.problem import RemoteProblem
from chimera_host.contract.tools import FunctionTool
from chimera_host.testing.builders import RESOURCES, document, invoke_request
from chimera_host.testing.doubles import PATIENCE, refused, until
from chimera_host.testing.platform import tool_answer


@pytest.fixture
def code_agent(platform):
    """An agent made of the text of its module `agent`, whose entrypoint is `factory`."""

    def make(text: str, name: str = "coder", *, entrypoint: str = "agent:factory", files=(), **fields):
        bundle = platform.add_bundle({"agent.py": text, **dict(files)})
        agent = document(name, source=SourceCode(bundle=bundle, entrypoint=entrypoint), **fields)
        return agent, platform.add(agent)

    return make


SYNC = """
import helpers

def factory(context):
    assert context.document.name and context.work_dir
    def answer(prompt, call):
        said = call.chat_blocking({"messages": [{"role": "user", "content": prompt}]})
        return helpers.decorate(said["choices"][0]["message"]["content"])
    return answer
"""


async def test_two_agents_with_modules_of_the_same_name(platform, local_host, code_agent):
    host = await local_host()
    made = [
        code_agent(SYNC, name, files={"helpers.py": f"def decorate(text): return '{mark}' + text"}.items())
        for name, mark in (("stars", "*"), ("dots", "."))
    ]
    answers = await asyncio.gather(*(host.invoke(invoke_request(*one, "hi")) for one in made for _ in range(5)))
    assert [a.output for a in answers] == ["*echo: hi"] * 5 + [".echo: hi"] * 5
    report = {a["agent"]: a for a in (await host.client.loaded())["agents"]}
    assert report["stars"]["cpu_seconds"] > 0
    host.host.agents.unload_idle(-1.0)
    assert (await host.invoke(invoke_request(*made[0], "hi"))).timings.loaded


async def test_asynchronous_code_streams_and_keeps_values(platform, local_host, code_agent):
    agent = code_agent(
        "from chimera_host.ports import RunResult\n"
        "def factory(context):\n"
        "    async def answer(prompt, call):\n"
        "        call.emit('thinking', 'me')\n"
        "        await call.in_thread(call.emit, 'in a thread')\n"
        "        return RunResult(output=prompt.upper())\n"
        "    return answer\n"
    )
    host = await local_host()
    events = [event async for event in host.stream(invoke_request(*agent, "hi"))]
    assert events[0] == ("delta", {"text": "thinking", "source": "me"})
    assert events[1] == ("delta", {"text": "in a thread"})
    assert events[2][1]["output"] == "HI"


@pytest.mark.parametrize(
    ("text", "entrypoint", "words"),
    [
        ("def factory(c): return 7", "agent:factory", "not a callable"),
        ("def factory(c): raise OSError('no disk')", "agent:factory", "no disk"),
        ("import nothing_like_this", "agent:factory", "nothing_like_this"),
        ("syntax error", "agent:factory", "SyntaxError"),
        ("x = 1", "other:factory", "its modules: agent"),
        ("import sys; sys.exit(3)", "agent:factory", "SystemExit"),
        ("def factory(c): return lambda p, c: 7", "agent:factory", "returned int"),
    ],
)
async def test_code_that_doesnt_work_is_explained(local_host, code_agent, text, entrypoint, words):
    host = await local_host()
    problem = await refused(host.invoke(invoke_request(*code_agent(text, entrypoint=entrypoint))))
    assert problem.code in ("agent-load-failed", "agent-failed") and words in problem.detail
    assert problem.agent == "coder" and host.host.in_flight == 0


async def test_a_bundle_that_isnt_what_it_says(platform, local_host, code_agent):
    agent, revision = code_agent("def factory(c): ...")
    platform.bundles = {digest: data + b"x" for digest, data in platform.bundles.items()}
    host = await local_host()
    assert (await refused(host.invoke(invoke_request(agent, revision)))).code == "bundle-refused"


WRITER = """
from pathlib import Path
def factory(context):
    def write(prompt, call):
        (Path(context.work_dir) / "file").write_bytes(b"x" * int(prompt))
        return "written"
    return write
"""


async def test_an_agent_over_its_storage_is_refused_until_it_is_cleaned_up(
    local_host, code_agent, tmp_path, monkeypatch
):
    monkeypatch.setattr("chimera_host.quota.LOOK_EVERY", 0.0)
    resources = AgentResources(cpu_millicores=250, memory_bytes=RESOURCES.memory_bytes, storage_bytes=50_000)
    agent = code_agent(WRITER, resources=resources)
    host = await local_host()
    await host.invoke(invoke_request(*agent, "100"))
    await host.invoke(invoke_request(*agent, "100000"))

    async def used():
        (found,) = (await host.client.loaded())["agents"]
        return found["storage_bytes"]

    await _eventually(lambda used: used > 50_000, used)
    problem = await refused(host.invoke(invoke_request(*agent, "1")))
    assert (problem.code, problem.status) == ("agent-storage-full", 507) and "resources.storage" in problem.next_step
    (tmp_path / "agents" / "default" / "coder" / "file").unlink()

    async def answer():
        try:
            return (await host.invoke(invoke_request(*agent, "1"))).output
        except RemoteProblem as problem:
            return problem.code

    await _eventually(lambda said: said == "written", answer)


async def test_an_agent_that_used_more_than_its_share_waits_while_others_run(local_host, code_agent, monkeypatch):
    monkeypatch.setattr("chimera_host.quota.BURST_SECONDS", 0.01)
    resources = AgentResources(cpu_millicores=1, memory_bytes=2**30, storage_bytes=2**30)
    hungry = code_agent(
        "import time\ndef factory(c):\n    def f(p, call):\n        until = time.thread_time() + 0.05\n"
        "        while time.thread_time() < until: pass\n        return 'done'\n    return f\n",
        "hungry",
        resources=resources,
    )
    slow = code_agent(
        "import asyncio\ndef factory(c):\n    async def f(p, call): await asyncio.sleep(30)\n    return f\n",
        "slow",
    )
    host = await local_host()
    for _ in range(2):
        await host.invoke(invoke_request(*hungry))
    other = asyncio.ensure_future(host.invoke(invoke_request(*slow)))
    await until(lambda: not host.host.agents._runs_alone(hungry[1]))
    problem = await refused(host.invoke(invoke_request(*hungry)))
    assert (problem.code, problem.status) == ("agent-over-share", 429) and problem.retry_after
    other.cancel()
    await until(lambda: host.host.in_flight == 0)
    assert (await host.invoke(invoke_request(*hungry))).output == "done"


async def _eventually(condition, value, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition(await value()):
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def test_an_agents_own_tools_count_to_its_share_of_the_processor(platform, local_host):
    bundle = platform.add_bundle({"tools.py": "def busy() -> str:\n    return str(sum(range(3_000_000)))\n"})
    agent = document(
        "reckoner",
        behaviour=Behaviour(function=FunctionBehaviour(system_message="s", tools=("busy",))),
        tools=(FunctionTool(name="busy", function="tools:busy", description="Reckons."),),
        source=SourceCode(bundle=bundle),
    )
    host = await local_host()
    platform.say(tool_answer(("busy", {})), "done")
    assert (await host.invoke(invoke_request(agent, platform.add(agent)))).tool_calls == 1
    (report,) = (await host.client.loaded())["agents"]
    assert report["cpu_seconds"] > 0.01
