"""The operator, the catalogue and the cells at full size, against a real API server with simulated nodes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from benchmarks import applying
from benchmarks.agents import Agent
from benchmarks.cluster import processes
from benchmarks.cluster.api import COUNTED, PODS, Cluster, Counters, Pod, Row, all_of, until
from benchmarks.cluster.one_each import ready
from benchmarks.http import Client
from chimera.adapters.substrates.knative.following import Following
from chimera.adapters.substrates.knative.installer import KINDS
from chimera.adapters.substrates.knative.objects import KNATIVE_SERVICES, KnativeService, Meta, Resource
from chimera.adapters.substrates.knative.resources.crds import GROUP, VERSION, definitions
from chimera.agents import yaml
from chimera.testing.postgresql import PostgreSQLServer

SERVING = "serving.knative.dev"
WRITES = ("APPLY", "PATCH", "PUT", "POST", "DELETE", "DELETECOLLECTION", "UPDATE", "CREATE")
IMAGE = "dev.local/none:1"

POOL_PATIENCE = 1500.0

Say = Callable[[str], None]


def told(say: Say, rows: Sequence[Row]) -> Sequence[Row]:
    """`rows`, said as they come: a measurement that breaks off has shown what it had."""
    for row in rows:
        say(f"{row.what}: {row.value:.2f} {row.unit} ({row.note})")
    return rows


class AgentStatus(Struct, frozen=True, kw_only=True):
    """What became of an agent."""

    phase: str = ""


class AgentSeen(Struct, frozen=True, kw_only=True):
    """An Agent, as far as it is counted."""

    metadata: Meta = Meta()
    status: AgentStatus = AgentStatus()


AGENTS = Resource(GROUP, VERSION, "agents", "Agent", AgentSeen)


class Watched:
    """What is seen of the cluster, by watches of our own."""

    def __init__(self, cluster: Cluster, agents: str, cells: str) -> None:
        """Nothing runs before `run`."""
        self.agents: Following[AgentSeen] = Following(cluster.api, AGENTS, namespace=agents)
        self.services: Following[KnativeService] = Following(cluster.api, KNATIVE_SERVICES, namespace=cells)
        self.pods: Following[Pod] = Following(cluster.api, PODS, namespace=cells)

    def live(self) -> int:
        """Agents whose status says so."""
        return sum(one.status.phase == "Live" for one in self.agents.objects.values())

    def ready_cells(self) -> int:
        """Cells that Knative says are ready."""
        return sum(ready(one) for one in self.services.objects.values())

    def running(self) -> int:
        """Pods that "run", those that end left out."""
        return sum(
            one.status.phase == "Running" and one.metadata.deletion_timestamp is None
            for one in self.pods.objects.values()
        )

    @asynccontextmanager
    async def run(self, *of: Following[Any]) -> AsyncIterator[None]:
        """Watch while the block runs."""
        tasks = [asyncio.create_task(one.run()) for one in of]
        try:
            for one in of:
                await one.synced.wait()
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def kinds(cluster: Cluster) -> AsyncIterator[None]:
    """Chimera's kinds, gone afterwards with every object of them."""
    resource = KINDS["CustomResourceDefinition"]
    for one in definitions():
        await cluster.api.apply(resource, one, force=True)
    await asyncio.sleep(3.0)  # until the API server serves them
    try:
        yield
    finally:
        for one in definitions():
            await cluster.api.delete(resource, None, one["metadata"]["name"])


async def resources(
    cluster: Cluster, folder: Path, roster: Sequence[Agent], nodes: int, pools: Sequence[int], say: Say
) -> list[Row]:
    """Agents as resources, until each is live; their cells; then warm pools of each size."""
    rows: list[Row] = []
    agents, cells = "chimera-scale", "chimera-scale-cells"
    watched = Watched(cluster, agents, cells)
    with PostgreSQLServer(durable=True) as server:
        database = server.new_database()
        async with (
            kinds(cluster),
            cluster.namespace(agents, of=cells),
            cluster.namespace(cells),
            cluster.simulated_nodes(nodes),
            processes.operator(folder, database, cluster.kubeconfig, cells) as operator,
            watched.run(watched.agents, watched.services, watched.pods),
        ):
            await account(cluster, cells)
            specs = await asyncio.to_thread(lambda: [(one.name, yaml.load(one.file.read_text())) for one in roster])
            types = len({one.framework for one in roster})
            say(f"{len(specs):,} agents as resources")
            before, idle, cpu = await cluster.counters(), operator.memory(), operator.cpu()
            async with processes.control_plane(folder, database, cluster.kubeconfig, settings(cells)) as control_plane:
                began = time.monotonic()
                await all_of(specs, lambda one: _agent(cluster, agents, *one))
                created = time.monotonic() - began
                await until(lambda: watched.live() == len(specs), 400)
                live = time.monotonic() - began
                await until(lambda: watched.ready_cells() >= types, 200)
                celled = time.monotonic() - began
                cost = (await cluster.counters()).since(before)
                rows += told(say, _of_agents(len(specs), created, live, celled, cost))
                rows += [
                    Row(what="memory of the operator, no agents", value=idle, unit="MiB"),
                    Row(what="memory of the operator, all agents", value=operator.memory(), unit="MiB"),
                    Row(what="CPU of the operator", value=operator.cpu() - cpu, unit="s"),
                    Row(what="memory of the control plane", value=control_plane.memory(), unit="MiB"),
                    Row(what="cells", value=len(watched.services.objects), unit=""),
                ]
                say("quiet")
                rows += told(say, await _quiet(cluster))
                rows += told(say, _sizes(len(specs), (await cluster.counters()).since(before)))
            for size in pools:
                say(f"a warm pool of {size}")
                warm = {**settings(cells), "warm_pool": size, "most_kept": size * types}
                async with processes.control_plane(folder, database, cluster.kubeconfig, warm):
                    rows += told(say, [await _pool(cluster, watched, size, types)])
    return rows


async def records(
    cluster: Cluster, folder: Path, roster: Sequence[Agent], tenants: int, nodes: int, say: Say
) -> list[Row]:
    """Agents in the catalogue alone, of several tenants, which have cells of their own."""
    cells = "chimera-scale-cells"
    watched = Watched(cluster, "", cells)
    with PostgreSQLServer(durable=True) as server:
        database = server.new_database()
        async with (
            cluster.namespace(cells),
            cluster.simulated_nodes(nodes),
            processes.control_plane(folder, database, cluster.kubeconfig, settings(cells)) as control_plane,
            watched.run(watched.services),
        ):
            await account(cluster, cells)
            before, idle = await cluster.counters(), control_plane.memory()
            began = time.monotonic()
            client = Client(control_plane.url, processes.KEY)
            files = [one.file for one in roster]
            for number in range(tenants):
                say(f"{len(files):,} records of tenant {number + 1} of {tenants}")
                where = f"/v1/tenants/team{number}"
                await asyncio.to_thread(applying.apply, client, files, where)
            applied = time.monotonic() - began
            wanted = tenants * len({one.framework for one in roster})
            await until(lambda: watched.ready_cells() >= wanted, 300)
            celled = time.monotonic() - began
            cost = (await cluster.counters()).since(before)
            rows = [
                Row(what="records in the catalogue", value=tenants * len(files), unit=""),
                Row(what="until all were applied", value=applied, unit="s", note=f"{tenants} batches, one by one"),
                Row(what="until all cells were ready", value=celled, unit="s", note="from the beginning"),
                Row(what="cells", value=len(watched.services.objects), unit=""),
                Row(what="applies of cells", value=cost.calls(SERVING, "APPLY"), unit="requests"),
                Row(what="growth of etcd's file", value=cost.database / 2**20, unit="MiB"),
                Row(what="memory of the control plane, none applied", value=idle, unit="MiB"),
                Row(what="memory of the control plane, all applied", value=control_plane.memory(), unit="MiB"),
            ]
            say("quiet")
            rows += told(say, await _quiet(cluster))
    return rows


def settings(cells: str) -> dict[str, Any]:
    """Cells whose pods can be nowhere but on simulated nodes: nobody has their image."""
    return {"namespace": cells, "image": IMAGE, "service_account": "default", "warm_pool": 0}


async def account(cluster: Cluster, namespace: str) -> None:
    """Wait for the namespace's own service account."""
    resource = KINDS["ServiceAccount"]
    async with asyncio.timeout(30):
        while not (await cluster.api.list(resource, namespace)).items:  # noqa: ASYNC110 - a controller makes it
            await asyncio.sleep(0.1)


def _of_agents(count: int, created: float, live: float, celled: float, cost: Counters) -> list[Row]:
    statuses = cost.calls(GROUP, "APPLY", "PATCH") - count
    return [
        Row(what="agents as resources", value=count, unit=""),
        Row(what="until all were made", value=created, unit="s", note="by server-side apply, 16 at once"),
        Row(what="until all were live", value=live, unit="s", note="from the first apply to the last status"),
        Row(what="until all cells were ready", value=celled, unit="s", note="likewise"),
        Row(what="statuses written", value=statuses, unit="requests", note=f"{statuses / count:.2f} an agent"),
        Row(what="lists of agents", value=cost.calls(GROUP, "LIST"), unit="requests"),
        Row(what="applies of cells", value=cost.calls(SERVING, "APPLY"), unit="requests"),
    ]


def _sizes(count: int, cost: Counters) -> list[Row]:
    size = cost.sizes[f"agents.{GROUP}"]
    told = [
        Row(what="size of an agent in etcd", value=size / max(1, count) / 1024, unit="KiB"),
        Row(what="size of all agents in etcd", value=size / 2**20, unit="MiB"),
    ]
    file = Row(
        what="growth of etcd's file", value=cost.database / 2**20, unit="MiB", note="with history, not compacted"
    )
    # The API server estimates sizes from time to time: in a short run it may not have done so yet.
    return [*(told if size else []), file]


async def _quiet(cluster: Cluster) -> list[Row]:
    before = await cluster.counters()
    await asyncio.sleep(COUNTED)
    cost = (await cluster.counters()).since(before)
    writes = sum(cost.calls(group, *WRITES) for group in (GROUP, SERVING))
    lists = sum(cost.calls(group, "LIST", "GET") for group in (GROUP, SERVING))
    watches = sum(cost.calls(group, "WATCH") for group in (GROUP, SERVING))
    note = "of agents, templates and cells, and Knative's own kinds"
    return [
        Row(what=f"writes in {COUNTED:.0f} quiet seconds", value=writes, unit="requests", note=note),
        Row(what="lists and single reads meanwhile", value=lists, unit="requests", note=note),
        Row(what="watches that ended meanwhile", value=watches, unit="requests", note="each began again"),
    ]


async def _pool(cluster: Cluster, watched: Watched, size: int, types: int) -> Row:
    began, before = time.monotonic(), await cluster.counters()
    wanted, note = size * types, ""
    try:
        await until(lambda: watched.running() >= wanted and watched.ready_cells() >= types, POOL_PATIENCE, each=0.5)
    except TimeoutError:
        note = f"; {watched.running():,} of them after that"
    took = time.monotonic() - began
    calls = (await cluster.counters()).since(before).calls(SERVING, "APPLY")
    return Row(
        what=f"a warm pool of {size} for each of {types} types, until all pods run",
        value=took,
        unit="s",
        note=f"{wanted:,} pods on simulated nodes, {calls} applies{note}",
    )


async def _agent(cluster: Cluster, namespace: str, name: str, spec: Any) -> None:
    manifest = {
        "apiVersion": AGENTS.api_version,
        "kind": AGENTS.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
    await cluster.api.apply(AGENTS, manifest, manager="chimera-benchmark")
