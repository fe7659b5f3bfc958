"""The function framework's tool loop, and how a host gives an agent its tools: on a stand-in for the broker."""

import msgspec
import pytest

from chimera_host.contract.behaviour import Behaviour, FunctionBehaviour
from chimera_host.contract.tools import AgentTool
from chimera_host.errors import AgentLoadError, ToolFailed
from chimera_host.ports import ToolSpec
from chimera_host.testing.builders import document, invoke_request
from chimera_host.testing.doubles import refused, until
from chimera_host.testing.platform import tool_answer


class FakeBroker:
    def __init__(self, document):
        self.document = document
        self.called = []
        self.closed = 0
        self.running = []
        self.looked_for = 0

    async def specs(self):
        parameters = {"type": "object", "properties": {"message": {"type": "string"}}}
        return {
            tool.name: [ToolSpec(name=tool.name, description="d", parameters=parameters)]
            for tool in self.document.tools
        }

    async def call(self, name, arguments, *, call):
        self.called.append((name, dict(arguments), call.request.call))
        if arguments.get("message") == "fail":
            raise ToolFailed("it broke")
        return f"{name} says {arguments.get('message')}"

    async def aclose(self):
        self.closed += 1

    def missing(self, now):
        self.looked_for += 1
        return self.running


@pytest.fixture
def brokers():
    return []


@pytest.fixture
def make_broker(brokers):
    def make(document, platform, work_dir, code):
        assert work_dir
        brokers.append(FakeBroker(document))
        return brokers[-1]

    return make


def agent_with_tools(*tools, **behaviour):
    declared = FunctionBehaviour(system_message="s", tools=tools, **behaviour)
    listed = tuple(AgentTool(name=name, agent="other") for name in ("ask", "tell"))
    return document(behaviour=Behaviour(function=declared), tools=listed)


async def test_tools_are_offered_called_and_answered(platform, local_host, make_broker, brokers):
    host = await local_host(make_broker=make_broker)
    agent = agent_with_tools("ask")
    platform.say(tool_answer(("ask", {"message": "a"}), ("ask", {"message": "b"})), "both done")
    request = invoke_request(agent, platform.add(agent))
    answer = await host.invoke(request)
    assert answer.output == "both done" and answer.tool_calls == 2 and answer.model_calls == 2
    assert [tool["function"]["name"] for tool in platform.chats[0].body["tools"]] == ["ask"]
    said = platform.chats[1].body["messages"]
    assert [(m["role"], m.get("content")) for m in said[-2:]] == [("tool", "ask says a"), ("tool", "ask says b")]
    assert said[-3]["tool_calls"][0]["id"] == said[-2]["tool_call_id"]
    assert brokers[0].called == [("ask", {"message": text}, request.call) for text in "ab"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"message": "fail"}, "Error: it broke"),
        ("not json", "Error: the arguments are not JSON"),
        ([1], "not a JSON object"),
    ],
)
async def test_a_tools_failure_is_told_to_the_model(platform, local_host, make_broker, arguments, words):
    host = await local_host(make_broker=make_broker)
    agent = agent_with_tools("ask")
    asked = tool_answer(("ask", {}))
    encoded = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    asked["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] = encoded
    platform.say(asked, "sorry")
    assert (await host.invoke(invoke_request(agent, platform.add(agent)))).output == "sorry"
    assert words in platform.chats[1].body["messages"][-1]["content"]


async def test_a_model_that_only_calls_tools_is_stopped(platform, local_host, make_broker):
    host = await local_host(make_broker=make_broker)
    agent = agent_with_tools("ask", max_rounds=3)
    platform.default = lambda _: tool_answer(("ask", {"message": "again"}))
    problem = await refused(host.invoke(invoke_request(agent, platform.add(agent))))
    assert problem.code == "agent-failed" and "3 rounds" in problem.detail and len(platform.chats) == 3


async def test_a_stream_tells_of_tools_and_assembles_their_calls(platform, local_host, make_broker):
    host = await local_host(make_broker=make_broker)
    agent = agent_with_tools("ask")
    platform.say(tool_answer(("ask", {"message": "a"}), ("ask", {"message": "fail"})), "fine then")
    events = [event async for event in host.stream(invoke_request(agent, platform.add(agent)))]
    assert sorted(data["phase"] for name, data in events if name == "tool") == ["end", "error", "start", "start"]
    assert "".join(data["text"] for name, data in events if name == "delta") == "fine then"


async def test_tools_are_let_go_with_their_agent(platform, local_host, make_broker, brokers):
    host = await local_host(make_broker=make_broker)
    agent = agent_with_tools()
    await host.invoke(invoke_request(agent, platform.add(agent)))
    host.host.agents.unload_idle(-1.0)
    await until(lambda: brokers[0].closed == 1)


async def test_a_tool_that_outlives_its_agent_is_looked_for_until_it_comes_back(
    platform, local_host, make_broker, brokers
):
    host = await local_host(make_broker=make_broker)
    agent = agent_with_tools()
    await host.invoke(invoke_request(agent, platform.add(agent)))
    agents, (broker,) = host.host.agents, brokers
    broker.running = [("agent", 1.0)]
    agents.unload_idle(-1.0)
    await until(lambda: broker.closed == 1)
    agents.unload_idle(-1.0)
    assert agents.missing_tools(0.0) == [("agent", 1.0)]
    broker.running = []
    agents.unload_idle(-1.0)
    looked_for = broker.looked_for
    assert agents.missing_tools(0.0) == [] and broker.looked_for == looked_for


async def test_tools_are_let_go_when_the_agent_cant_be_made(platform, local_host, make_broker, brokers):
    host = await local_host(make_broker=make_broker)
    agent = agent_with_tools("missing")
    problem = await refused(host.invoke(invoke_request(agent, platform.add(agent))))
    assert problem.code == "agent-load-failed" and "'missing' is not among" in problem.detail
    assert brokers[0].closed == 1


async def test_an_agent_without_tools_pays_for_none_and_may_call_none(platform, local_host, brokers):
    def never(*_):
        raise AgentLoadError("a broker was made")

    host = await local_host(make_broker=never)
    agent = document()
    platform.say(tool_answer(("ask", {})), "no tools")
    assert (await host.invoke(invoke_request(agent, platform.add(agent)))).output == "no tools"
    assert "has no tools" in platform.chats[1].body["messages"][-1]["content"]
