"""Messages between agents on a real gateway with fake hosts: sent once, answered, refused, ended in circles."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from chimera.testing.hosts import FakeHost
from chimera_host.contract.call import InvokeRequest
from chimera_host.contract.tools import MessageTool
from chimera_host.errors import AgentFailed
from chimera_host.testing import builders

from .eventing import QUICK, TENANT, until
from .test_agent_events import open_bus

TASKS = {"poll": 0.02, "lease": 2.0, "backoff": 0.01, "rest": 0.1, "attempts": 2}


@pytest.fixture
async def world(make_world: Callable[..., Any]) -> AsyncIterator[Any]:
    events = {**QUICK, "hops": 3, "message_bytes": 1_024}
    async with make_world(settings={"events": events, "tasks": TASKS}) as made:
        await open_bus(made)
        yield made


async def agent(world: Any, name: str, *others: str, reply: bool = True, **fields: Any) -> None:
    """An agent that may write to `others`."""
    tools = tuple(MessageTool(name=f"tell_{other}", agent=other, reply=reply) for other in others)
    await world.agent(document=builders.document(name, tools=tools), **{"protocols": ["events", "http"], **fields})


class Talk:
    """A host whose agents do what they are told: `tell NAME TEXT` writes a message."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.sent: list[tuple[int, Any]] = []
        self.heard: list[tuple[str, str]] = []
        self.fails: set[str] = set()
        self.key: str | None = None

    async def __call__(self, request: InvokeRequest) -> str:
        text = request.messages[-1].content
        self.heard.append((request.agent, text))
        if request.agent in self.fails:
            raise AgentFailed("no", agent=request.agent)
        if text.startswith("tell "):
            _, other, said = text.split(" ", 2)
            headers = {"Idempotency-Key": self.key} if self.key else {}
            for _ in range(2 if self.key else 1):
                self.sent.append(
                    await self.world.internal(
                        f"/internal/v1/agents/{other}/messages", {"message": said}, call=request.call, **headers
                    )
                )
            return "told"
        return f"{request.agent} heard it"


@pytest.fixture
async def talk(world: Any) -> Talk:
    host: FakeHost = await world.host()
    host.answer = Talk(world)
    return host.answer


async def ended(world: Any, name: str, count: int = 1) -> list[dict[str, Any]]:
    async def all_ended() -> list[dict[str, Any]] | None:
        found = (await world.get(f"{TENANT}/agents/{name}/tasks"))[1]["tasks"]
        return found if len(found) >= count and all(one.get("finished") for one in found) else None

    return list(await until(all_ended))


async def test_a_message_is_answered_in_the_session_of_who_asked(world: Any, talk: Talk) -> None:
    await agent(world, "anna", "bert")
    await agent(world, "bert")
    status, answer = await world.invoke("anna", "tell bert how are you?", session="s1")
    assert (status, answer["output"]) == (200, "told")
    message = talk.sent[0][1]["id"]

    (asked,), (heard,) = await ended(world, "bert"), await ended(world, "anna")

    assert talk.heard[1] == ("bert", "A message from agent anna:\nhow are you?")
    assert talk.heard[2] == ("anna", "Agent bert answers your message 'how are you?':\nbert heard it")
    assert (asked["by"], asked["session"], asked["subscription"]) == ("agent:anna", f"messages.{message}", "messages")
    assert (heard["by"], heard["session"]) == ("agent:anna", "s1")
    kept = (await world.get(f"{TENANT}/agents/anna/sessions/s1"))[1]["state"]["messages"]
    assert [one["content"].partition("\n")[2] or one["content"] for one in kept] == [
        *("tell bert how are you?", "told", "bert heard it", "anna heard it")
    ]
    _, page = await world.get(f"{TENANT}/events?type=message.")
    sent, back = page["events"]
    assert (sent["correlationid"], sent["replyto"]) == (message, "anna") and "chimerahops" not in sent
    assert (back["correlationid"], back["causationid"], back["chimerahops"]) == (message, message, 1)
    assert "how are you" not in str(page) and "heard it" not in str(page)


async def test_a_message_of_a_step_is_sent_once(world: Any, talk: Talk) -> None:
    await agent(world, "anna", "bert", reply=True)
    await agent(world, "bert")
    talk.key = "step-1"
    await world.invoke("anna", "tell bert hello", session="s1")
    first, second = talk.sent
    assert first[1]["id"] == second[1]["id"]
    await ended(world, "anna")
    assert [name for name, _ in talk.heard] == ["anna", "bert", "anna"]


async def test_who_asks_hears_of_a_failure_and_the_message_is_a_dead_letter(world: Any, talk: Talk) -> None:
    await agent(world, "anna", "bert")
    await agent(world, "bert")
    talk.fails = {"bert"}
    await world.invoke("anna", "tell bert hello", session="s1")
    await ended(world, "anna")
    assert talk.heard[-1] == (
        "anna",
        "Agent bert gives no answer to your message 'hello':\nagent-failed: The agent failed",
    )
    ((letter,),) = [(await world.get(f"{TENANT}/dead-letters?agent=bert"))[1]["dead_letters"]]
    assert letter["subscription"] == "messages" and "hello" not in str(letter["event"])
    talk.fails = set()
    assert (await world.post(f"{TENANT}/dead-letters/replay", {"agent": "bert"}))[1]["dead_letters"] == 1
    await ended(world, "anna", 2)
    assert talk.heard[-1][1].endswith("answers your message 'hello':\nbert heard it")


async def test_a_message_that_may_not_be_sent_is_refused(world: Any, talk: Talk) -> None:
    await agent(world, "anna", "bert", "deaf")
    await agent(world, "bert")
    await agent(world, "carl")
    await agent(world, "deaf", protocols=["http"])
    for other, code in (("carl", "forbidden"), ("deaf", "protocol-not-offered"), ("bert", "payload-too-large")):
        text = "x" * 2_000 if other == "bert" else "hello"
        await world.invoke("anna", f"tell {other} {text}")
        assert talk.sent[-1][1]["code"] == code
    policy = 'forbid (principal == Agent::"default/anna", action, resource == Agent::"default/bert");'
    async with world.http.put(f"{world.url}{TENANT}/policies", json={"policies": {"quiet": policy}}) as put:
        assert put.status < 300
    await world.invoke("anna", "tell bert hello")
    assert talk.sent[-1][1]["code"] == "not-allowed"
    assert (await world.get(f"{TENANT}/events?type=message."))[1]["events"] == []


async def test_agents_that_go_on_telling_each_other_are_stopped(world: Any) -> None:
    others = {"anna": "bert", "bert": "anna"}
    for name, other in others.items():
        await agent(world, name, other, reply=False)
    sent: list[tuple[int, Any]] = []

    async def answer(request: InvokeRequest) -> str:
        path = f"/internal/v1/agents/{others[request.agent]}/messages"
        sent.append(await world.internal(path, {"message": "and you?", "reply": False}, call=request.call))
        return "told"

    (await world.host()).answer = answer
    await world.invoke("anna", "begin")
    await until(lambda: asyncio.sleep(0, len(sent) == 4))
    assert [status for status, _ in sent] == [200, 200, 200, 409] and sent[-1][1]["code"] == "event-loop"
