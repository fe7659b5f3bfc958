"""The loss of whoever works among several: control planes and operators in pods, killed without a word.

Two of each share the cluster's database; whoever holds the lease is found by its metrics and killed with SIGKILL, which
leaves it no time to give anything back. Meanwhile calls are answered, and changes as soon as anybody takes them. The
program that kills is a pod that sees the node's processes (`hostPID`), in a namespace of its own.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from chimera.adapters.substrates.knative.access import from_kubeconfig
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterError
from chimera.adapters.substrates.knative.forwarding import Forwarding
from chimera.adapters.substrates.knative.installation import MODULES, PROBED
from chimera.adapters.substrates.knative.installer import KINDS, NAMESPACES, wait_for
from chimera.adapters.substrates.knative.labelling import selector
from chimera.adapters.substrates.knative.objects import PODS
from chimera.adapters.substrates.knative.pods import READY, SEEN_PODS, phase
from chimera.adapters.substrates.knative.resources.claims import CLAIM
from chimera.adapters.substrates.knative.resources.kinds import AGENTS
from chimera.adapters.substrates.knative.rights import CONTROL_PLANE, OPERATOR
from chimera.bootstrap.control_plane import LEASE_LIFE
from chimera.kernel.clock import SystemClock
from chimera.testing.definitions import definition

from .homes import NEEDED, PATIENCE, Cluster

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

LEADING = {CONTROL_PLANE: "chimera_control_plane_leading 1.0", OPERATOR: "chimera_operator_leading 1.0"}
BOUND = LEASE_LIFE + LEASE_LIFE / 3 + 25.0  # the lease ends, another asks for it; and looking takes its time
KILL = """
import os, signal, sys
pod, module = (word.encode() for word in sys.argv[1:])
killed = 0
for number in filter(str.isdigit, os.listdir("/proc")):
    try:
        told = open(f"/proc/{number}/environ", "rb").read().split(b"\\0")
        words = open(f"/proc/{number}/cmdline", "rb").read()
    except OSError:
        continue
    if b"HOSTNAME=" + pod in told and module in words:
        os.kill(int(number), signal.SIGKILL)
        killed += 1
sys.exit(0 if killed else "nothing was found to kill")
"""


class World(Cluster):
    """Two control planes and two operators."""

    def __init__(self, folder: Path, kubeconfig: str) -> None:
        super().__init__(folder, kubeconfig)
        self.access = from_kubeconfig(Path(kubeconfig), SystemClock())
        self.team, self.elsewhere = f"{self.namespace}-team", f"{self.namespace}-kill"

    async def begin(self) -> None:
        await self.install(start_timeout=120)
        for component in LEADING:
            few = {"name": component, "resources": {"requests": {"cpu": "50m"}}}  # so that all fit on two cores
            spec = {"replicas": 2, "template": {"spec": {"containers": [few]}}}
            meta = {"name": f"chimera-{component}", "namespace": self.namespace}
            more = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}
            await self.api.apply(KINDS["Deployment"], more, force=True, manager="tests")
        wanted = [f"chimera-{component}" for component in LEADING]
        assert not await wait_for(self.api, self.namespace, wanted, PATIENCE)
        for named in ({"name": self.team, "labels": {CLAIM: self.namespace}}, {"name": self.elsewhere}):
            await self.api.apply(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": named})
        await self.connect()

    async def ready(self, component: str) -> list[str]:
        chosen = ",".join(f"{name}={value}" for name, value in selector(component).items())
        found = (await self.api.list(SEEN_PODS, self.namespace, chosen)).items
        return [one.metadata.name for one in found if phase(one) == READY]

    async def leads(self, component: str, pod: str) -> bool:
        """What a pod's metrics say; one that doesn't answer doesn't lead."""

        async def choose() -> str:
            return pod

        try:
            async with (
                Forwarding(self.access, self.namespace, choose, PROBED[component]) as way,
                self.session.get(f"http://127.0.0.1:{way.port}/metrics") as answer,
            ):
                return LEADING[component] in (await answer.text()).splitlines()
        except (aiohttp.ClientError, ClusterError, TimeoutError):
            return False

    async def leader(self, component: str) -> str:
        """The pod that leads, once one of two does."""
        async with asyncio.timeout(PATIENCE):
            while True:
                pods = await self.ready(component)
                found = [pod for pod in pods if await self.leads(component, pod)]
                assert len(found) < 2, f"{found} both work"
                if len(pods) == 2 and found:
                    return found[0]
                await asyncio.sleep(0.5)

    async def kill(self, component: str, pod: str) -> None:
        """SIGKILL for a pod's process; it is dead when this returns."""
        name = f"kill-{component}"
        container = {
            "name": "kill",
            "image": self.images.replace("{name}", "chimera-platform"),
            "command": ["python3", "-c", KILL, pod, MODULES[component]],
            "securityContext": {"runAsUser": 0, "capabilities": {"add": ["KILL", "SYS_PTRACE"]}},
        }
        spec = {"hostPID": True, "restartPolicy": "Never", "containers": [container]}
        meta = {"name": name, "namespace": self.elsewhere}
        await self.api.apply(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        async with asyncio.timeout(PATIENCE):
            while (found := (await self.api.get(SEEN_PODS, self.elsewhere, name)).status).phase != "Succeeded":
                assert found.phase != "Failed", [line async for line in self.api.log(self.elsewhere, name, {})]
                await asyncio.sleep(0.1)

    async def until_taken(self, component: str) -> float:
        """Until somebody leads; the seconds it took."""
        began = time.monotonic()
        async with asyncio.timeout(BOUND):
            while not [pod for pod in await self.ready(component) if await self.leads(component, pod)]:  # noqa: ASYNC110
                await asyncio.sleep(0.3)
        return time.monotonic() - began


class Calling:
    """Calls of an agent and looks at the catalogue, one after the other, while the block runs."""

    def __init__(self, world: World, agent: str) -> None:
        self.world, self.agent = world, agent
        self.answers: list[tuple[int, Any]] = []
        self.looks: list[int] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Calling":
        self._tasks = [asyncio.create_task(self._call()), asyncio.create_task(self._look())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    async def _call(self) -> None:
        while True:
            self.answers.append(await self.world.call(self.agent, "hello"))
            await asyncio.sleep(0.3)

    async def _look(self) -> None:
        url = f"{self.world.url}/v1/tenants/default/agents"
        headers = {"Authorization": f"Bearer {self.world.key}"}
        while True:
            async with self.world.session.get(url, headers=headers) as answer:
                self.looks.append(answer.status)
            await asyncio.sleep(0.3)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    if missing := [name for name in NEEDED if not os.environ.get(name)]:
        pytest.skip(f"no cluster: {', '.join(missing)} not set")
    made = World(tmp_path_factory.mktemp("home"), os.environ["CHIMERA_TEST_KUBECONFIG"])
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    connector = aiohttp.TCPConnector(force_close=True)  # a way to a pod that was killed is no way any more
    try:
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as made.session:
            await made.begin()
            await made.apply("steady")
            assert await made.answer("steady", "hello") == "hello"
            yield made
    finally:
        cleaning = Kubernetes(made.access)
        for name in (made.team, made.elsewhere):
            await cleaning.delete(NAMESPACES, None, name)
        await cleaning.aclose()
        await made.remove()


async def test_where_the_leading_control_plane_is_killed_another_works_in_time_and_calls_go_on(world: World) -> None:
    leader = await world.leader(CONTROL_PLANE)
    async with Calling(world, "steady") as calling:
        await world.kill(CONTROL_PLANE, leader)
        took = await world.until_taken(CONTROL_PLANE)
        await world.apply("later")  # a cell of its own, which only the one that leads makes
        assert await world.answer("later", "hello") == "hello"
    failed = [answered for answered in calling.answers if answered[0] != 200]
    print(
        f"another control plane leads after {took:.1f} s; {len(calling.answers)} calls meanwhile, {len(failed)} failed;"
        f" {len(calling.looks)} looks at the catalogue, {len(calling.looks) - calling.looks.count(200)} not answered"
    )
    assert calling.answers and not failed, failed[:3]
    assert calling.looks[-1] == 200


async def test_where_the_leading_operator_is_killed_another_applies_resources(world: World) -> None:
    leader = await world.leader(OPERATOR)
    await world.kill(OPERATOR, leader)
    print(f"another operator leads after {await world.until_taken(OPERATOR):.1f} s")
    spec = definition("by-resource", specification={"framework": "function"})
    del spec["metadata"]["name"]
    meta = {"name": "by-resource", "namespace": world.team}
    resource = {"apiVersion": AGENTS.api_version, "kind": "Agent", "metadata": meta, "spec": spec}
    await world.api.apply(AGENTS, resource, manager="kubectl")
    async with asyncio.timeout(PATIENCE):
        while (await world.api.get(AGENTS, world.team, "by-resource")).status.phase != "Live":  # noqa: ASYNC110
            await asyncio.sleep(0.5)
    await world.api.delete(AGENTS, world.team, "by-resource")
