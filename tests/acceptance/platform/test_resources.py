"""Agents by `kubectl apply` in a real cluster: into the catalogue, called, refused to others, and out again.

Wants what `test_homes.py` wants of a cluster, and is skipped without.
"""

import asyncio
import base64
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from msgspec import Struct

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.access import from_kubeconfig
from chimera.adapters.substrates.knative.admission.manifests import configuration_name
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterRefused, NotInCluster
from chimera.adapters.substrates.knative.forwarding import Forwarding
from chimera.adapters.substrates.knative.installer import DEPLOYMENTS, KINDS, NAMESPACES, SECRETS
from chimera.adapters.substrates.knative.objects import PODS, Meta, Resource
from chimera.adapters.substrates.knative.plan import concerns_all
from chimera.adapters.substrates.knative.resources.claims import CLAIM
from chimera.adapters.substrates.knative.resources.kinds import AGENTS, CELLS, TEMPLATES
from chimera.kernel.clock import SystemClock
from chimera.testing.definitions import definition

from .homes import NEEDED

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

CHIMERA = str(Path(sys.executable).with_name("chimera"))
MANY = int(os.environ.get("CHIMERA_TEST_AGENTS", "200"))
PATIENCE = 180.0


class Secret(Struct, frozen=True, kw_only=True):
    metadata: Meta = Meta()
    data: dict[str, str] = {}


R = TypeVar("R", bound="Rig")


class Rig:
    """An installation in a cluster, and a namespace of a team's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kubeconfig = os.environ["CHIMERA_TEST_KUBECONFIG"]
        self.access = from_kubeconfig(Path(self.kubeconfig), SystemClock())
        self.api = Kubernetes(self.access)
        self.namespace = f"chimera-test-{uuid4().hex[:8]}"
        self.cells, self.team = f"{self.namespace}-cells", f"{self.namespace}-team"
        self.url = self.key = ""

    async def run(self, *words: str, code: int = 0) -> str:
        environ = {**os.environ, "CHIMERA_URL": self.url, "CHIMERA_KEY": self.key}
        process = await asyncio.create_subprocess_exec(
            *(CHIMERA, *words), env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate()
        assert process.returncode == code, output.decode()
        return output.decode()

    def place(self, command: str) -> list[str]:
        where = ["--kubeconfig", self.kubeconfig, "--namespace", self.namespace, "--wait", str(PATIENCE)]
        return ["--home", str(self.folder), command, "--substrate", "knative", *where]

    async def install(self) -> None:
        images = os.environ["CHIMERA_TEST_IMAGES"]
        (self.folder / "settings.toml").write_text(
            f"""
[node]
database = "{os.environ["CHIMERA_TEST_CLUSTER_DATABASE"]}"
[knative]
namespace = "{self.cells}"
image = "{images.replace("{name}", "chimera-host-{framework}")}"
window = 6
request_share = 0.05
warm_pool = 0
[model.default]
provider = "scripted"
"""
        )
        image = images.replace("{name}", "chimera-platform")
        await self.run(*self.place("install"), "--image", image, "--replicas", "1", "--database-secret", "")
        await self.claim(self.namespace)
        kept = await self.api.get(Resource("", "v1", "secrets", "Secret", Secret), self.namespace, "chimera-keys")
        self.key = base64.b64decode(kept.data["chimera.key"]).decode()

    async def claim(self, installation: str) -> None:
        """Say whose the team's namespace is: others may be in this cluster, and older."""
        meta = {"name": self.team, "labels": {CLAIM: installation}}
        await self.api.apply(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}, force=True)

    async def pod(self, component: str) -> str:
        selector = f"app.kubernetes.io/name=chimera,app.kubernetes.io/component={component}"
        listing = await self.api.list(PODS, self.namespace, selector)
        return next(one.metadata.name for one in listing.items if one.metadata.deletion_timestamp is None)

    async def apply(self, name: str, **changes: Any) -> None:
        spec = definition(name, **{"specification": {"framework": "function"}, **changes})
        del spec["metadata"]["name"]
        meta = {"name": name, "namespace": self.team}
        manifest = {"apiVersion": AGENTS.api_version, "kind": "Agent", "metadata": meta, "spec": spec}
        await self.api.apply(AGENTS, manifest, manager="kubectl", force=True)

    async def phases(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for one in (await self.api.list(AGENTS, self.team)).items:
            found[one.status.phase] = found.get(one.status.phase, 0) + 1
        return found

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not await condition():  # noqa: ASYNC110 - it happens in the cluster
                await asyncio.sleep(0.3)

    async def until_phases(self, wanted: dict[str, int]) -> None:
        async def reached() -> bool:
            return await self.phases() == wanted

        await self.until(reached)

    async def listed(self) -> dict[str, Any]:
        rows = json.loads(await self.run("get", "agents", "--limit", "1000", "--output", "json"))
        return {row["name"]: row for row in rows}


@asynccontextmanager
async def installed(kind: type[R], folder: Path) -> AsyncIterator[R]:
    """An installation with a way to its gateway, until it is left; who has no cluster skips what would use it."""
    if missing := [name for name in NEEDED if not os.environ.get(name)]:
        pytest.skip(f"no cluster: {', '.join(missing)} not set")
    made = kind(folder)
    try:
        await made.install()
        gateway = await made.pod("gateway")

        async def choose() -> str:
            return gateway

        async with Forwarding(made.access, made.namespace, choose, 8080) as forwarding:
            made.url = f"http://127.0.0.1:{forwarding.port}"
            yield made
    finally:
        await made.api.delete(NAMESPACES, None, made.team)
        print(await made.run(*made.place("uninstall")))
        await made.api.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with installed(Rig, tmp_path_factory.mktemp("resources")) as made:
        yield made


async def test_agents_come_are_called_and_refused_to_others(rig: Rig) -> None:
    began = time.monotonic()
    for number in range(MANY):
        await rig.apply(f"agent-{number:05d}")
    sent = time.monotonic() - began
    await rig.until_phases({"Live": MANY})
    print(f"{MANY} Agents sent in {sent:.1f} s, all told that they are live after {time.monotonic() - began:.1f} s")
    listed = await rig.listed()
    assert len(listed) == MANY and {row["owner"] for row in listed.values()} == {
        f"{rig.team}/{name}" for name in listed
    }

    address = f"{rig.url}/v1/tenants/default/agents/agent-00007/invoke"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session:
        headers = {"Authorization": f"Bearer {rig.key}"}
        async with session.post(address, json={"input": "hello"}, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            assert "hello" in (await answer.json())["output"]

    refused = await rig.run("delete", "agent-00007", code=65)
    assert f"kubectl -n {rig.team} edit agents.chimera.ecosystem agent-00007" in refused
    file = rig.folder / "agent.yaml"
    file.write_text(msgspec.json.encode(definition("agent-00007")).decode())
    assert "belongs to the resource Agent" in await rig.run("apply", str(file), code=65)


async def test_an_operator_that_is_killed_in_the_middle_loses_nothing(rig: Rig) -> None:
    before = len((await rig.api.list(AGENTS, rig.team)).items)
    for number in range(50):
        await rig.apply(f"more-{number:05d}")
        if number == 20:
            await rig.api.delete(PODS, rig.namespace, await rig.pod("operator"))
        if number == 30:
            await rig.api.delete(AGENTS, rig.team, "more-00010")
    await rig.until_phases({"Live": before + 49})
    began = time.monotonic()
    for number in range(50):
        await rig.api.delete(AGENTS, rig.team, f"more-{number:05d}")

    async def gone() -> bool:
        # What was deleted while no operator ran goes when the grace is over, five minutes later.
        return not any(name.startswith("more-") and name != "more-00010" for name in await rig.listed())

    await rig.until(gone)
    print(f"49 Agents deleted, out of the catalogue after {time.monotonic() - began:.1f} s")


async def test_a_template_of_the_namespace_and_a_cell_that_is_scaled(rig: Rig) -> None:
    meta = {"name": "careful", "namespace": rig.team}
    spec = {"specification": {"framework": "function"}, "metadata": {"tags": ["domain:test"]}}
    manifest = {"apiVersion": TEMPLATES.api_version, "kind": "AgentTemplate", "metadata": meta, "spec": spec}
    await rig.api.apply(TEMPLATES, manifest, manager="kubectl")
    await asyncio.sleep(1.0)  # the webhook hears of the template by its watch
    await rig.apply("templated", extends="careful", specification=None)

    async def live() -> bool:
        return (await rig.api.get(AGENTS, rig.team, "templated")).status.phase == "Live"

    await rig.until(live)
    assert (await rig.listed())["templated"]["tags"] == ["domain:test"]

    name = next(item.metadata.name for item in (await rig.api.list(CELLS, rig.cells)).items if item.status.agents)
    scaled = {
        "apiVersion": CELLS.api_version,
        "kind": "Cell",
        "metadata": {"name": name, "namespace": rig.cells},
        "spec": {"minScale": 1},
    }
    await rig.api.apply(CELLS, scaled, manager="kubectl")

    async def kept() -> bool:
        status = (await rig.api.get(CELLS, rig.cells, name)).status
        return status.min_replicas == 1 and status.replicas >= 1

    await rig.until(kept)


async def test_what_is_no_definition_is_refused_by_the_api_server_itself(rig: Rig) -> None:
    for changes, words in (
        ({"metadata": {"version": "one"}}, "version"),
        ({"nonsense": {"a": 1}}, "nonsense"),
        ({"specification": None}, "specification.framework"),
    ):
        with pytest.raises(ClusterRefused, match=words):
            await rig.apply("wrong", **changes)
    other = {"apiVersion": AGENTS.api_version, "kind": "Agent", "metadata": {"name": "one", "namespace": rig.team}}
    with pytest.raises(ClusterRefused, match="resource's name"):
        await rig.api.apply(AGENTS, {**other, "spec": definition("another")}, manager="kubectl")


async def test_a_status_makes_no_agent_and_a_wrong_one_does_not_last(rig: Rig) -> None:
    def told(name: str) -> dict[str, Any]:
        meta = {"name": name, "namespace": rig.team}
        return {"apiVersion": AGENTS.api_version, "kind": "Agent", "metadata": meta, "status": {"phase": "Odd"}}

    with pytest.raises(NotInCluster) as refused:
        await rig.api.apply(AGENTS, told("nobody"), manager="teller", force=True, part="status")
    assert not concerns_all(refused.value)
    with pytest.raises(NotInCluster):
        await rig.api.get(AGENTS, rig.team, "nobody")

    # An API server looks at no UID here: what is told of one that was deleted may reach another of its name.
    await rig.apply("anew")
    await rig.api.apply(AGENTS, told("anew"), manager="teller", force=True, part="status")

    async def live() -> bool:
        return (await rig.api.get(AGENTS, rig.team, "anew")).status.phase == "Live"

    await rig.until(live)


async def test_an_installation_that_is_not_there_takes_nothing_and_that_is_told(rig: Rig) -> None:
    known = (await rig.api.list(KINDS["ValidatingWebhookConfiguration"], None, names.managed())).items
    if {one.metadata.name for one in known} != {configuration_name(rig.namespace)}:
        pytest.skip("another installation is in this cluster, and may be the one that tells it")
    before = await rig.phases()
    await rig.claim("nobody-here")
    await rig.until_phases({"NotClaimed": sum(before.values())})
    assert set(await rig.listed()) >= {"anew"}, "its agents have a while left"
    await rig.claim(rig.namespace)
    await rig.until_phases(before)


async def test_nothing_is_written_where_nothing_changes(rig: Rig) -> None:
    await asyncio.sleep(3.0)
    before = {one.metadata.name: one.metadata.resource_version for one in (await rig.api.list(AGENTS, rig.team)).items}
    await asyncio.sleep(10.0)
    after = {one.metadata.name: one.metadata.resource_version for one in (await rig.api.list(AGENTS, rig.team)).items}
    assert before == after
    assert (await rig.api.get(DEPLOYMENTS, rig.namespace, "chimera-operator")).done
    with pytest.raises(NotInCluster):
        await rig.api.get(SECRETS, rig.team, "chimera-keys")
    assert (await rig.api.get(KINDS["CustomResourceDefinition"], None, "agents.chimera.ecosystem")).metadata.uid
