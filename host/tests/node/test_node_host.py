"""The host's HTTP contract on Node.js: the same calls, events, errors and ends as the Python host's."""

import asyncio
import os
import signal

import aiohttp
import msgspec
import pytest

from chimera_host.blackbox import read_black_box
from chimera_host.contract.agent import ModelChoice, SourceCode
from chimera_host.contract.behaviour import Behaviour, FunctionBehaviour
from chimera_host.contract.call import LoadedReport
from chimera_host.contract.tools import FunctionTool
from chimera_host.testing.builders import document, invoke_request, session
from chimera_host.testing.doubles import refused, until
from chimera_host.testing.platform import problem
from chimera_host.trace import new_trace

CODE = """
export function factory({ document, workDir }) {
  if (!document.name || !workDir) throw new Error("no context");
  return async (prompt, call) => {
    const [word] = prompt.split(" ");
    if (word === "spin") while (true);
    if (word === "late") setTimeout(() => { throw new Error("thrown by a timer"); }, 0);
    if (word === "wait" || word === "late") await new Promise((done) => setTimeout(done, 60_000));
    if (word === "exit") process.exit(3);
    if (word === "throw") throw new TypeError("no such luck");
    if (word === "number") return 7;
    if (word === "print") {
      console.log("printed by", document.name);
      process.stderr.write("two\\nlines\\n");
    }
    if (word === "count") return { output: "counted", values: { n: (call.session.values.n ?? 0) + 1 } };
    if (word === "pieces") { call.emit("one "); call.emit("two", "me"); return "one two"; }
    const said = await call.chat({ messages: [{ role: "user", content: prompt }] });
    return said.choices[0].message.content;
  };
}
const answer = { content: "by a graph" };
export const graph = () => ({ invoke: async ({ messages }) => ({ messages: [...messages, answer] }) });
export const wrong = () => 7;
export const broken = () => { throw new Error("no disk"); };
"""


@pytest.fixture
def code_agent(platform):
    """An agent of the module above, `file` in its folder, and its revision."""

    def make(entrypoint="agent:factory", file="agent.mjs", text=CODE, **fields):
        bundle = platform.add_bundle({file: text})
        agent = document("coder", source=SourceCode(bundle=bundle, entrypoint=entrypoint), **fields)
        return agent, platform.add(agent)

    return make


async def test_a_declared_agent_asks_the_model(platform, node_host):
    host = await node_host()
    agent = document(
        "poet",
        behaviour=Behaviour(function=FunctionBehaviour(system_message="You rhyme on {input}, {nothing}.")),
        model=ModelChoice(name="big", temperature=0.5),
    )
    platform.say("a rhyme")
    trace = new_trace()
    call = invoke_request(agent, platform.add(agent), "$& cats", deadline=20.0, session=session(("user", "before")))
    answer = await host.invoke(call, traceparent=trace.header())
    assert answer.output == "a rhyme" and answer.model_calls == 1 and answer.timings.loaded
    (chat,) = platform.chats
    assert [m["content"] for m in chat.body["messages"]] == ["You rhyme on $& cats, {nothing}.", "before", "$& cats"]
    assert chat.body["model"] == "big" and chat.body["temperature"] == 0.5
    assert chat.call == answer.call and 19 < chat.deadline <= 20
    assert chat.traceparent.split("-")[1] == trace.trace_id
    assert [m.content for m in answer.session.messages] == ["before", "$& cats", "a rhyme"]


@pytest.mark.parametrize(("entrypoint", "file"), [("agent:factory", "agent.mjs"), ("in.side:factory", "in/side.mjs")])
async def test_code_answers_and_keeps_values(platform, node_host, code_agent, entrypoint, file):
    host = await node_host()
    agent = code_agent(entrypoint, file)
    assert (await host.invoke(invoke_request(*agent, "hello", model_override="other"))).output == "echo: hello"
    assert platform.chats[0].body["model"] == "other"
    first = await host.invoke(invoke_request(*agent, "count", session=session()))
    second = await host.invoke(invoke_request(*agent, "count", session=first.session))
    assert second.session.values == {"n": 2} and len(second.session.messages) == 4
    assert not second.timings.loaded and platform.fetched.count(agent[1]) == 1


async def test_a_compiled_graph_is_run(node_host, code_agent):
    host = await node_host()
    assert (await host.invoke(invoke_request(*code_agent("agent:graph"), "hello"))).output == "by a graph"


async def test_a_stream_gives_the_pieces_and_then_the_whole_answer(node_host, code_agent):
    host = await node_host()
    agent = code_agent()
    events = [event async for event in host.client.stream(invoke_request(*agent, "pieces"))]
    assert events[:2] == [("delta", {"text": "one "}), ("delta", {"text": "two", "source": "me"})]
    assert events[2][0] == "done" and events[2][1]["output"] == "one two"
    events = [event async for event in host.client.stream(invoke_request(*agent, "throw"))]
    assert [name for name, _ in events] == ["error"] and events[0][1]["agent"] == "coder"


@pytest.mark.parametrize(
    ("entrypoint", "prompt", "code", "words"),
    [
        ("agent:wrong", "x", "agent-load-failed", "no function and nothing"),
        ("agent:broken", "x", "agent-load-failed", "no disk"),
        ("agent:missing", "x", "agent-load-failed", "has no function missing"),
        ("other:factory", "x", "agent-load-failed", "no module other"),
        ("agent:factory", "throw", "agent-failed", "no such luck"),
        ("agent:factory", "number", "agent-failed", "returned number"),
    ],
)
async def test_an_agent_at_fault_is_named(node_host, code_agent, entrypoint, prompt, code, words):
    host = await node_host()
    problem = await refused(host.invoke(invoke_request(*code_agent(entrypoint), prompt)))
    assert (problem.code, problem.agent) == (code, "coder") and words in problem.detail


async def test_a_module_that_does_not_parse_and_tools_are_refused(platform, node_host, code_agent):
    host = await node_host()
    problem = await refused(host.invoke(invoke_request(*code_agent(text="this is no module"))))
    assert problem.code == "agent-load-failed"
    behaviour = Behaviour(function=FunctionBehaviour(system_message="x", tools=("t",)))
    agent = document(behaviour=behaviour, tools=(FunctionTool(name="t", function="a:b", description="d"),))
    problem = await refused(host.invoke(invoke_request(agent, platform.add(agent))))
    assert problem.code == "agent-load-failed" and "declares tools" in problem.detail


async def test_a_revision_of_another_agent_and_a_bundle_that_is_not_what_it_says(platform, node_host, code_agent):
    host = await node_host()
    agent, revision = code_agent()
    other = msgspec.structs.replace(agent, name="other")
    assert (await refused(host.invoke(invoke_request(other, revision)))).code == "agent-load-failed"
    platform.bundles[agent.source.bundle] = b"something else"
    assert (await refused(host.invoke(invoke_request(agent, revision)))).code == "bundle-refused"


async def test_the_platforms_problems_come_through(platform, node_host):
    host = await node_host()
    agent = document()
    platform.say(problem("budget-exceeded", 429, "nothing left", retry_after=60.0))
    refusal = await refused(host.invoke(invoke_request(agent, platform.add(agent))))
    assert (refusal.code, refusal.status, refusal.retry_after) == ("budget-exceeded", 429, 60.0)


async def test_everything_but_the_probes_wants_the_key(node_host):
    host = await node_host()
    for path in ("/livez", "/readyz"):
        assert (await host.client.get(path, key=False))[0] == 200
    for path in ("/metrics", "/v1/loaded", "/v1/invoke", "/elsewhere"):
        status, body = await host.client.get(path, key=False)
        assert status == 401 and msgspec.json.decode(body)["code"] == "unauthorized"
    assert "chimera_host_in_flight 0" in (await host.client.get("/metrics"))[1]


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"\xff", b"null", b"[]", b'{"call":"a"}', b"{" * 5000, b'{"call":1,"tenant":"a"}'),
        b'{"call":"a","tenant":"a","agent":"a","revision":"a","deadline":-1,"messages":[{"content":"x"}]}',
        b'{"call":"a","tenant":"a","agent":"a","revision":"a","deadline":1,"messages":[]}',
        b'{"call":"a","tenant":"a","agent":"a","revision":"a","deadline":1,"messages":[{"content":"x"}],"session":5}',
        b'{"call":"a","tenant":"a","agent":"a","revision":"a","deadline":1,"messages":[null]}',
    ],
)
async def test_any_body_gets_a_problem(node_host, body):
    host = await node_host()
    status, answer = await host.client.request("POST", "/v1/invoke", body)
    assert status == 400 and msgspec.json.decode(answer)["code"] == "invalid-call"


async def test_a_body_too_large_is_refused(platform, node_host):
    host = await node_host(max_body_bytes=10_000)
    agent = document()
    refusal = await refused(host.invoke(invoke_request(agent, platform.add(agent), "x" * 20_000)))
    assert (refusal.code, refusal.status) == ("call-too-large", 413)


async def test_deadlines_cancellation_and_bounds(platform, node_host, code_agent):
    host = await node_host(concurrency=2)
    agent, revision = code_agent(concurrency=1)
    late = await refused(host.invoke(invoke_request(agent, revision, "wait", deadline=0.2)))
    assert (late.code, late.status) == ("deadline-exceeded", 504)
    # The agent ignores the signal, and what it does still counts.
    busy = await refused(host.invoke(invoke_request(agent, revision, "hello")))
    assert (busy.code, busy.status) == ("agent-busy", 429)
    assert await host.client.cancel("call-nowhere") == 404
    assert (await host.client.loaded())["agents"][0]["calls"] == 1
    other = document("other")
    second = invoke_request(other, platform.add(other), "wait")
    platform.model_delay = 30.0
    running = asyncio.ensure_future(host.invoke(second))
    await until(lambda: platform.chats)
    assert (await refused(host.invoke(second))).code == "host-busy"
    assert await host.client.cancel(second.call) == 202
    assert (await refused(running)).code == "call-cancelled"


async def test_a_cancelled_model_call_ends_at_once(platform, node_host):
    host = await node_host()
    agent = document()
    platform.model_delay = 30.0
    request = invoke_request(agent, platform.add(agent))
    running = asyncio.ensure_future(host.invoke(request))
    await until(lambda: platform.chats)
    assert await host.client.cancel(request.call) == 202
    assert (await refused(running)).code == "call-cancelled"
    gone = asyncio.ensure_future(host.invoke(invoke_request(agent, request.revision)))
    await until(lambda: len(platform.chats) == 2)
    gone.cancel()
    await until(lambda: platform.chats[1].cancelled)


async def test_what_is_loaded_and_printed_is_known(node_host, code_agent):
    host = await node_host()
    agent, revision = code_agent()
    answer = await host.invoke(invoke_request(agent, revision, "print"))
    report = msgspec.convert(await host.client.loaded(), LoadedReport)
    assert [one["agent"] for one in report.agents] == ["coder"] and report.in_flight == 0
    said = {line["message"]: line for line in host.log_lines() if line.get("logger") == "agent"}
    assert list(said) == ["printed by coder", "two", "lines"]
    assert {(line["agent"], line["request"], line["revision"]) for line in said.values()} == {
        ("coder", answer.call, revision)
    }


async def test_an_idle_agent_is_unloaded(node_host, platform):
    host = await node_host(idle_unload=0.1)
    agent = document()
    request = invoke_request(agent, platform.add(agent))
    await host.invoke(request)

    async def unloaded():
        return not (await host.client.loaded())["agents"]

    await until(unloaded)
    assert (await host.invoke(invoke_request(agent, request.revision))).timings.loaded


@pytest.mark.parametrize(("prompt", "returncode"), [("exit", 3), ("late", 1)])
async def test_the_black_box_names_an_agent_that_ends_its_host(node_host, code_agent, prompt, returncode):
    host = await node_host()
    agent, revision = code_agent()
    request = invoke_request(agent, revision, prompt)
    with pytest.raises(aiohttp.ClientError):
        await host.invoke(request)
    assert await host.ended() == returncode
    recording = read_black_box(host.black_box)
    assert [(one.agent, one.call, one.revision) for one in recording.calls] == [("coder", request.call, revision)]
    assert 0 <= recording.calls[0].seconds(recording.heartbeat + 1) < 20


async def test_an_endless_loop_stops_the_heartbeat_and_leaves_its_name(node_host, code_agent):
    host = await node_host()
    agent, revision = code_agent()
    spinning = asyncio.ensure_future(host.invoke(invoke_request(agent, revision, "spin")))
    await until(lambda: (box := read_black_box(host.black_box)) is not None and len(box.calls) == 1)
    with pytest.raises(TimeoutError):
        while True:  # until the agent is loaded and spins
            async with asyncio.timeout(2.0):
                await host.client.get("/livez")
    os.kill(host.pid, signal.SIGKILL)
    with pytest.raises(aiohttp.ClientError):
        await spinning
    assert read_black_box(host.black_box).calls[0].agent == "coder"


async def test_it_drains_on_sigterm_and_ends_with_its_parent(platform, node_host):
    host, orphan = await node_host(), await node_host()
    agent = document()
    platform.model_delay = 0.5
    running = asyncio.ensure_future(host.invoke(invoke_request(agent, platform.add(agent))))
    await until(lambda: platform.chats)
    host.terminate()

    async def drains():
        return (await host.client.get("/readyz"))[0] == 503

    await until(drains)
    assert (await refused(host.invoke(invoke_request(agent, platform.add(agent))))).code == "host-draining"
    assert (await running).output.startswith("echo")
    assert await host.ended() == 0
    orphan.cut_lifeline()
    assert await orphan.ended() == 80
