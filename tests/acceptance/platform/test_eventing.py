"""Events on a real cluster: by its Broker, between agents of three frameworks, while the Broker's pods are killed.

Events of others go round three frameworks, agents write to each other in all six directions and hear the replies, none
of it is lost while all pods that carry events end, and what fails or is given up is a dead letter that can be replayed.
In the order of its tests; an image for each framework is needed. Agents in the script's rules are those of
`test_messages`, which holds the same on one machine, within the gateway.
"""

import asyncio
import itertools
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from msgspec import Struct

from chimera.adapters.substrates.knative.access import from_kubeconfig
from chimera.adapters.substrates.knative.eventing import BROKER, KNATIVE_EVENTING, TRIGGER, trigger
from chimera.adapters.substrates.knative.forwarding import Forwarding, any_ready
from chimera.adapters.substrates.knative.installation import CONFIG
from chimera.adapters.substrates.knative.installer import CARRIERS, TRIGGERS
from chimera.adapters.substrates.knative.labelling import meta
from chimera.adapters.substrates.knative.objects import PODS, Meta, Resource
from chimera.kernel.clock import SystemClock

from .conftest import SCRIPT
from .homes import NEEDED, PATIENCE, Cluster, together
from .test_messages import BEHAVIOUR, FRAMEWORKS
from .test_messages import DEFINITION as TALKER

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

DEFINITION = """
schema_version: ADaC v2.0
metadata: {{name: {name}, version: 1.0.0, description: Passes on what it hears.}}
specification: {{framework: {framework}, resources: {{cpu: 100m, memory: 512Mi}}}}
capabilities: {{primary_functions: [pass on], communication_protocols: [http, events]}}
subscriptions: [{{name: heard, types: {types}, {more}input: "{input}"}}]
"""
RING = (
    ("ring-autogen", "AutoGen", "[com.example.begin]", "", "{data.word}"),
    ("ring-crewai", "CrewAI", "[task.succeeded]", "subjects: ['agents/ring-autogen/*'], ", "on {data.task}"),
    ("ring-langgraph", "LangGraph", "[task.succeeded]", "subjects: ['agents/ring-crewai/*'], ", "on {data.task}"),
)
OTHERS = (
    ("probe", "function", "[com.example.probe, com.example.given-up]", "", "{id}"),
    ("failing", "LangGraph", "[com.example.wrong]", "attempts: 1, ", "{id}"),
)
RULES = '- {when: {agent: "^failing"}, status: 400}\n'
PAIRS = list(itertools.permutations(FRAMEWORKS, 2))
EVENTS = 20
STARTING = 180  # seconds a new host may take: four start at once, on as few cores as the machine has
CARRYING = {
    "filter": "eventing.knative.dev/brokerRole=filter",
    "ingress": "eventing.knative.dev/brokerRole=ingress",
    "channel": "messaging.knative.dev/role=dispatcher",
}


class Config(Struct, frozen=True, kw_only=True):
    metadata: Meta = Meta()
    data: dict[str, str] = {}


CONFIGS = Resource("", "v1", "configmaps", "ConfigMap", Config)


class World(Cluster):
    """A cluster with agents that hear events, and the Broker's ingress, reached as pods reach it."""

    port = 0

    async def begin(self) -> None:
        await self.install(start_timeout=STARTING, script=RULES + SCRIPT)
        await self.connect()
        folder = self.folder / "agents"
        folder.mkdir()
        for name, framework, types, more, told in (*RING, *OTHERS):
            text = DEFINITION.format(name=name, framework=framework, types=types, more=more, input=told)
            (folder / f"{name}.yaml").write_text(text)
        for name, framework in FRAMEWORKS.items():
            others = [other for other in FRAMEWORKS if other != name]
            tools = "\n".join(f"  - {{type: message, name: tell_{one}, agent: talk-{one}}}" for one in others)
            behaviour = BEHAVIOUR[name] % ", ".join(f"tell_{one}" for one in others)
            text = TALKER.format(name=name, framework=framework, tools=tools, behaviour=behaviour)
            (folder / f"talk-{name}.yaml").write_text(text)
        await self.run("apply", str(folder))

    async def awake(self, *agents: str) -> None:
        """Have agents answer: a task that an event starts uses its attempts up while a new cell is on its way."""
        async with asyncio.timeout(2 * PATIENCE):
            for agent in agents:
                while (answered := await self.call(agent, "hello"))[0] != 200:
                    assert (answered[0], answered[1]["code"]) == (503, "cell-unavailable"), answered
                    await asyncio.sleep(answered[1].get("retry_after") or 1)

    async def send(self, type_: str, id_: str) -> bool:
        """Send an event into the Broker; whether it was acknowledged."""
        headers = {"ce-specversion": "1.0", "ce-id": id_, "ce-source": "urn:test", "ce-type": f"com.example.{type_}"}
        url = f"http://127.0.0.1:{self.port}/{self.namespace}/{BROKER}"
        try:
            timeout = aiohttp.ClientTimeout(total=20)  # who passes it on may be killed meanwhile
            async with self.session.post(url, json={"word": f"word-{id_}"}, headers=headers, timeout=timeout) as answer:
                return answer.status == 202
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def send_surely(self, type_: str, id_: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while not await self.send(type_, id_):  # noqa: ASYNC110 - it happens elsewhere
                await asyncio.sleep(0.3)

    async def ended(self, agent: str) -> list[dict[str, Any]]:
        found = (await self.get(f"/v1/tenants/default/agents/{agent}/tasks?limit=200"))["tasks"]
        return [one for one in found if one["state"] == "succeeded"]

    async def until_ended(self, agent: str, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(await self.ended(agent)) < count:  # noqa: ASYNC110 - it happens elsewhere
                await asyncio.sleep(1.0)

    async def tell(self, asker: str, other: str, session: str) -> None:
        """Have one agent write to another; its cell may have to wake first."""
        async with asyncio.timeout(PATIENCE):
            while (answered := await self.call(f"talk-{asker}", f"tell {other}", session=session))[0] != 200:
                assert (answered[0], answered[1]["code"]) == (503, "cell-unavailable"), answered
                await asyncio.sleep(answered[1].get("retry_after") or 1)
        assert answered[1]["output"] == "told", (asker, other, answered)

    async def said(self, asker: str, session: str) -> list[str]:
        """What stands in an asker's session."""
        kept = await self.get(f"/v1/tenants/default/agents/talk-{asker}/sessions/{session}")
        return [message["content"] for message in kept["state"]["messages"]]

    async def until_heard(self, prefix: str) -> None:
        """Until each of the six sessions holds the reply, and what its agent makes of it."""
        async with asyncio.timeout(2 * PATIENCE):
            for asker, other in PAIRS:
                while len(await self.said(asker, f"{prefix}-{other}")) < 4:  # noqa: ASYNC110 - it happens elsewhere
                    await asyncio.sleep(1.0)

    async def hold_replies(self, prefix: str) -> None:
        """Hold that each asker heard the reply to its own message, once, in the session in which it asked."""
        for asker, other in PAIRS:
            reply = f"Agent talk-{other} answers your message 'hear':\n{other} listens"
            said = await self.said(asker, f"{prefix}-{other}")
            assert said == [f"tell {other}", "told", reply, "understood"], (asker, other, said)

    async def letters(self) -> list[dict[str, Any]]:
        return list(json.loads(await self.run("events", "dead-letters", "list", "--output", "json")))

    async def until_letter(self, id_: str) -> dict[str, Any]:
        """The dead letter of an event."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for letter in await self.letters():
                    if letter["event"]["id"] == id_:
                        return letter
                await asyncio.sleep(1.0)

    async def kill(self, what: str) -> None:
        listing = await self.api.list(PODS, KNATIVE_EVENTING, CARRYING[what])
        assert listing.items, what
        for one in listing.items:
            await self.api.delete(PODS, KNATIVE_EVENTING, one.metadata.name)

    async def until_carried(self) -> None:
        """Until Broker and Trigger say that they are ready, as they are now."""
        async with asyncio.timeout(PATIENCE):
            for kind, name in CARRIERS:
                while not (await self.api.get(kind, self.namespace, name)).ready:  # noqa: ASYNC110
                    await asyncio.sleep(0.5)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    if missing := [name for name in NEEDED if not os.environ.get(name)]:
        pytest.skip(f"no cluster: {', '.join(missing)} not set")
    made = World(tmp_path_factory.mktemp("home"), os.environ["CHIMERA_TEST_KUBECONFIG"])
    try:
        await made.begin()
        access = from_kubeconfig(Path(made.kubeconfig), SystemClock())
        choose = any_ready(made.api, KNATIVE_EVENTING, CARRYING["ingress"])
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        connector = aiohttp.TCPConnector(force_close=True)  # a way to a pod that was killed is no way any more
        async with (
            Forwarding(access, KNATIVE_EVENTING, choose, 8080) as way,
            aiohttp.ClientSession(timeout=timeout, connector=connector) as made.session,
        ):
            made.port = way.port
            await made.awake("probe", *(name for name, *_ in RING))
            yield made
    finally:
        await made.remove()


async def test_what_is_installed_carries_events_by_the_broker_and_the_first_one_arrives(world: World) -> None:
    told = json.loads((await world.api.get(CONFIGS, world.namespace, CONFIG)).data["gateway.json"])
    assert told["broker"].endswith(f"/{world.namespace}/{BROKER}"), "gateways have no other way for events"
    for kind, name in CARRIERS:
        assert (await world.api.get(kind, world.namespace, name)).ready, "`chimera install` waits for both"
    began = time.monotonic()
    await world.send_surely("probe", "first")
    await world.until_ended("probe", 1)
    print(f"the first event started an agent after {time.monotonic() - began:.1f} s")


async def test_an_event_goes_round_three_frameworks(world: World) -> None:
    began = time.monotonic()
    await world.send_surely("begin", "one")
    await world.until_ended("ring-langgraph", 1)
    print(f"one event round three frameworks: {time.monotonic() - began:.1f} s")
    for name, *_ in RING:
        assert len(await world.ended(name)) == 1, name


async def test_agents_of_three_frameworks_write_to_each_other_and_each_reply_finds_its_asker(world: World) -> None:
    began = time.monotonic()
    await together(*(world.tell(asker, other, f"well-{other}") for asker, other in PAIRS))
    await world.until_heard("well")
    print(f"six messages and their replies: {time.monotonic() - began:.1f} s")
    await world.hold_replies("well")
    page = await world.get("/v1/tenants/default/events?type=message.&limit=100")
    assert len(page["events"]) == 2 * len(PAIRS), "six messages and six replies, each sent once"


async def test_nothing_is_lost_or_done_twice_while_all_pods_that_carry_events_are_killed(world: World) -> None:
    async def send_all() -> None:
        for number in range(EVENTS):
            await world.send_surely("begin", f"n{number}")
            await asyncio.sleep(0.1)

    began = time.monotonic()
    sending = asyncio.create_task(send_all())
    await asyncio.sleep(0.7)
    for what in CARRYING:
        await world.kill(what)
    await together(*(world.tell(asker, other, f"killed-{other}") for asker, other in PAIRS))
    await sending
    for name, *_ in RING:
        await world.until_ended(name, EVENTS + 1)
    await world.until_heard("killed")
    took = time.monotonic() - began
    print(f"{EVENTS} events round three frameworks and six messages, all of the Broker's pods killed: {took:.1f} s")
    await world.until_carried()
    await asyncio.sleep(5.0)  # for what would come twice
    for name, *_ in RING:
        found = await world.ended(name)
        assert len(found) == len({one["event"] for one in found}) == EVENTS + 1, name
    await world.hold_replies("killed")
    assert await world.letters() == []


async def test_what_fails_and_what_the_broker_gives_up_is_seen_and_can_be_replayed(world: World) -> None:
    await world.send_surely("wrong", "wrong")
    letter = await world.until_letter("wrong")
    assert (letter["agent"], letter["subscription"]) == ("failing", "heard"), letter
    before = len(await world.ended("probe"))
    whole = trigger(meta(world.namespace, TRIGGER), world.namespace)
    away = {**whole, "metadata": {"name": TRIGGER, "namespace": world.namespace}}
    nowhere = {"uri": whole["spec"]["subscriber"]["uri"].replace("/events", "/nowhere")}
    away["spec"] = {"broker": BROKER, "subscriber": nowhere, "delivery": {"retry": 1}}
    await world.api.apply(TRIGGERS, away, force=True, manager="tests")
    try:
        await world.until_carried()
        await world.send_surely("given-up", "given-up")
        letter = await world.until_letter("given-up")
    finally:
        await world.api.apply(TRIGGERS, whole, force=True)
        await world.until_carried()
    assert letter["subscription"] == "broker" and letter["reason"].startswith("the broker gave it up: 404"), letter
    assert len(await world.ended("probe")) == before
    await world.run("events", "dead-letters", "replay", letter["letter"])
    await world.until_ended("probe", before + 1)
    assert "given-up" not in {one["event"]["id"] for one in await world.letters()}
