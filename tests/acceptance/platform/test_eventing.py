"""Events on a real cluster: by its Broker, between three frameworks, while the Broker's pods are killed."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from chimera.adapters.substrates.knative.access import from_kubeconfig
from chimera.adapters.substrates.knative.eventing import BROKER, KNATIVE_EVENTING
from chimera.adapters.substrates.knative.forwarding import Forwarding, any_ready
from chimera.adapters.substrates.knative.objects import PODS
from chimera.kernel.clock import SystemClock

from .homes import NEEDED, PATIENCE, Cluster

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

DEFINITION = """
schema_version: ADaC v2.0
metadata: {{name: ring-{name}, version: 1.0.0, description: Passes on what it hears.}}
specification: {{framework: {framework}, resources: {{cpu: 100m, memory: 512Mi}}}}
capabilities: {{primary_functions: [pass on], communication_protocols: [http, events]}}
subscriptions: [{{name: heard, types: ["{type}"], {subjects}input: "{input}"}}]
"""
RING = (
    ("autogen", "AutoGen", "com.example.begin", "", "{data.word}"),
    ("crewai", "CrewAI", "task.succeeded", "subjects: ['agents/ring-autogen/*'], ", "on {data.task}"),
    ("langgraph", "LangGraph", "task.succeeded", "subjects: ['agents/ring-crewai/*'], ", "on {data.task}"),
)
EVENTS = 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    if missing := [name for name in NEEDED if name not in os.environ]:
        pytest.skip(f"{', '.join(missing)} say which cluster")
    made = Cluster(tmp_path_factory.mktemp("home"), os.environ["CHIMERA_TEST_KUBECONFIG"])
    try:
        await made.install()
        await made.connect()
        async with aiohttp.ClientSession() as made.session:
            yield made
    finally:
        await made.remove()


class Ingress:
    """The Broker's ingress, reached as pods reach it; what was acknowledged."""

    def __init__(self, cluster: Cluster, port: int) -> None:
        self.cluster = cluster
        self.url = f"http://127.0.0.1:{port}/{cluster.namespace}/{BROKER}"
        self.acknowledged: set[str] = set()

    async def send(self, id_: str) -> bool:
        headers = {"ce-specversion": "1.0", "ce-id": id_, "ce-source": "urn:test", "ce-type": "com.example.begin"}
        try:
            body = {"word": f"word-{id_}"}
            async with self.cluster.session.post(self.url, json=body, headers=headers) as answer:
                if answer.status == 202:
                    self.acknowledged.add(id_)
                return answer.status == 202
        except aiohttp.ClientError:
            return False

    async def send_surely(self, id_: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while not await self.send(id_):  # noqa: ASYNC110 - it happens elsewhere
                await asyncio.sleep(0.3)


async def ended(cluster: Cluster, agent: str) -> list[dict[str, Any]]:
    url = f"{cluster.url}/v1/tenants/default/agents/{agent}/tasks?limit=200"
    async with cluster.session.get(url, headers={"Authorization": f"Bearer {cluster.key}"}) as answer:
        found = (await answer.json())["tasks"]
    return [one for one in found if one["state"] == "succeeded"]


async def until_ended(cluster: Cluster, agent: str, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(PATIENCE):
        while len(found := await ended(cluster, agent)) < count:  # noqa: ASYNC110 - it happens elsewhere
            await asyncio.sleep(1.0)
    return found


async def kill(cluster: Cluster, app: str) -> None:
    listing = await cluster.api.list(PODS, KNATIVE_EVENTING, f"eventing.knative.dev/brokerRole={app}")
    assert listing.items, app
    for one in listing.items:
        await cluster.api.delete(PODS, KNATIVE_EVENTING, one.metadata.name)


async def test_events_go_round_three_frameworks_and_none_is_lost_while_the_brokers_pods_are_killed(
    cluster: Cluster, tmp_path: Path
) -> None:
    for name, framework, type_, subjects, told in RING:
        text = DEFINITION.format(name=name, framework=framework, type=type_, subjects=subjects, input=told)
        (tmp_path / f"{name}.yaml").write_text(text)
    await cluster.run("apply", str(tmp_path))
    access = from_kubeconfig(Path(cluster.kubeconfig), SystemClock())
    choose = any_ready(cluster.api, KNATIVE_EVENTING, "eventing.knative.dev/brokerRole=ingress")
    async with Forwarding(access, KNATIVE_EVENTING, choose, 8080) as way:
        ingress = Ingress(cluster, way.port)
        began = time.monotonic()
        async with asyncio.timeout(PATIENCE):
            # A channel in memory takes an event that it has no subscriber for yet, and forgets it. The same one again
            # starts nothing twice, as the end of this test counts.
            while not await ended(cluster, "ring-autogen"):
                await ingress.send_surely("first")
                await asyncio.sleep(3.0)
        await until_ended(cluster, "ring-langgraph", 1)
        print(f"one event round three sleeping cells: {time.monotonic() - began:.1f} s")

        async def send_all() -> None:
            for number in range(EVENTS):
                await ingress.send_surely(f"n{number}")
                await asyncio.sleep(0.1)

        began = time.monotonic()
        sending = asyncio.create_task(send_all())
        await asyncio.sleep(0.7)
        for app in ("filter", "ingress"):
            await kill(cluster, app)
        await sending
        for name, *_ in RING:
            await until_ended(cluster, f"ring-{name}", len(ingress.acknowledged))
        print(f"{EVENTS} events round three frameworks, ingress and filter killed: {time.monotonic() - began:.1f} s")
    await asyncio.sleep(5.0)
    assert len(ingress.acknowledged) == EVENTS + 1
    for name, *_ in RING:
        found = await ended(cluster, f"ring-{name}")
        assert len(found) == len({one["event"] for one in found}) == EVENTS + 1, name
    letters = json.loads(await cluster.run("events", "dead-letters", "list", "--output", "json"))
    assert letters == []
