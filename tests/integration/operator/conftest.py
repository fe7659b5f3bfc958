"""The operator on a cluster in memory and a catalogue of both databases."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.changes.store import ChangeStorage
from chimera.adapters.storage.conditions import StoredConditions
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.reading import JournalStorage
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.sides.store import SideStorage
from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.resources.kinds import AGENTS, ROLLOUTS, TEMPLATES
from chimera.adapters.substrates.knative.resources.settings import OperatorSettings
from chimera.bootstrap.operator import deliver_by
from chimera.delivery.pipeline import Parts, Pipeline
from chimera.delivery.policy import DeliveryPolicy
from chimera.delivery.rollout.model import ENDED, Policy
from chimera.delivery.service import Asker
from chimera.delivery.settings import DeliverySettings
from chimera.entrypoints.operator.service import Operator
from chimera.gateway.sides.ports import Loads
from chimera.kernel.clock import SystemClock
from chimera.kernel.leases import Lease, work_while_held
from chimera.platform.cells import unservable_in_cluster
from chimera.testing.cluster import FakeCluster
from chimera.testing.definitions import definition

PATIENCE = 30.0
CELLS = "cells"


class Rig:
    """A cluster, a catalogue, and operators that run."""

    def __init__(self, cluster: FakeCluster, database: Database, **settings: Any) -> None:
        self.cluster = cluster
        self.database = database
        self.catalogue = Catalogue(database, max_hosts=7, unservable=unservable_in_cluster)
        self.leases = StoredLeases(database)
        access = ClusterAccess(server=cluster.url, tls=None, credentials=NoToken(), namespace="default")
        self.api = Kubernetes(access)
        chosen = {
            "poll": 0.05,
            "settle": 0.02,
            "statuses_per_second": 10_000.0,
            "grace": 0.0,
            "gather": 0.1,
            **settings,
        }
        self.settings = OperatorSettings(**chosen)
        self.conditions: StoredConditions | None = None
        self.installation = "chimera"
        self.policy = Policy(
            canary=1, waves=(1.0,), steps=(50.0,), step_seconds=0.0, bake_seconds=0.0, hold_seconds=0.0
        )
        self.delivery = deliver_by(database, self.catalogue, self.policy, SystemClock())
        self.operator = self.make()
        self.tasks: list[asyncio.Task[None]] = []

    def make(self) -> Operator:
        kept = self.conditions
        return Operator(
            *(self.api, self.catalogue, SystemClock(), self.settings),
            cells=CELLS,
            installation=self.installation,
            delivery=self.delivery,
            conditions=kept,
        )

    def start(self, owner: str = "one") -> None:
        self.tasks.append(asyncio.create_task(self.operator.run(self.leases, owner)))

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()

    async def again(self, **settings: Any) -> None:
        """End the operator and start another, which knows nothing."""
        await self.stop()
        self.operator = self.make()
        self.start("two")

    async def apply(self, name: str, namespace: str = "team", **changes: Any) -> None:
        """As `kubectl apply` does."""
        spec = definition(name, **changes)
        await self.api.apply(AGENTS, manifest("Agent", name, namespace, spec), force=True, manager="kubectl")

    async def template(self, name: str, namespace: str = "team", **spec: Any) -> None:
        await self.api.apply(TEMPLATES, manifest("AgentTemplate", name, namespace, spec), force=True, manager="kubectl")

    async def only_changes(self, tenant: str = "default") -> None:
        """The tenant's delivery policy takes no direct changes."""
        admin = Asker(actor="user:me", roles=frozenset({"admin"}))
        await self.delivery.changes.put_policy(tenant, admin, DeliveryPolicy(direct=False), expect=None)

    async def changes(self, tenant: str = "default") -> dict[str, str]:
        """All change requests and their states, the oldest first."""
        page = await self.delivery.changes.page(tenant, state=None, agent=None, after=None, limit=100)
        return {one.id: one.state for one in reversed(page)}

    async def decide(self, change: str, decision: str = "approved") -> None:
        """The pipeline builds a change, somebody decides on it, and the pipeline goes on."""
        store = ChangeStorage(self.database, self.catalogue)
        pipeline = Pipeline(store, Parts(), SystemClock(), DeliverySettings())
        await pipeline.settle()
        ben = Asker(actor="user:ben", roles=frozenset({"approver", "admin"}))
        found = await self.delivery.changes.change("default", change)
        await self.delivery.changes.decide("default", ben, change, decision, content=found.content, comment="so")
        await pipeline.settle()

    async def govern(self, name: str, namespace: str = "team", **spec: Any) -> None:
        await self.api.apply(ROLLOUTS, manifest("Rollout", name, namespace, spec), force=True, manager="kubectl")

    async def roll(self) -> None:
        """A control plane and a gateway bring rollouts on, until the test ends."""
        sides = SideStorage(self.database, max_hosts=7, unservable=unservable_in_cluster)

        async def lead(held: Lease) -> None:
            while True:
                for one in await self.delivery.rollouts.page("default", "", 10):
                    if one.rollout.state in ENDED:
                        continue
                    await self.delivery.rollouts.step(one.rollout, held)
                    members = await self.delivery.rollouts.members("default", one.rollout.id, -1, 100)
                    stand = await sides.look("default", [member.agent for member in members])
                    loads = [
                        Loads(tenant="default", agent=name, revision=how.green, wanted=0, holding=0, problem=None)
                        for name, how in stand.items()
                        if how.green is not None and not how.loaded
                    ]
                    if loads:
                        await sides.loaded(loads, held=held)
                await asyncio.sleep(0.05)

        self.tasks.append(asyncio.create_task(work_while_held(self.leases, "rollouts", "cp", 15.0, lead)))

    async def delete(self, name: str, namespace: str = "team") -> None:
        await self.api.delete(AGENTS, namespace, name)

    def status(self, name: str, namespace: str = "team", plural: str = "agents") -> dict[str, Any]:
        found = self.cluster.object(plural, namespace, name)
        return {} if found is None else dict(found.get("status", {}))

    def condition(self, name: str, namespace: str = "team", kind: str = "Ready", plural: str = "agents") -> Any:
        told = self.status(name, namespace, plural).get("conditions", [])
        return next((one for one in told if one["type"] == kind), None)

    async def until(self, condition: Callable[[], Any], patience: float = PATIENCE) -> None:
        """Wait until a function, or one that is awaited, says yes."""
        async with asyncio.timeout(patience):
            while True:
                found = condition()
                if await found if asyncio.iscoroutine(found) else found:
                    return
                await asyncio.sleep(0.01)

    async def phase(self, name: str, phase: str, namespace: str = "team", plural: str = "agents") -> dict[str, Any]:
        await self.until(lambda: self.status(name, namespace, plural).get("phase") == phase)
        return self.status(name, namespace, plural)

    async def owners(self, tenant: str = "default") -> dict[str, str | None]:
        return {row["name"]: row["owner"] for row in await self.catalogue.agents(tenant, {}, "", 1_000)}

    async def facts(self, kind: str) -> list[Any]:
        """The data of all facts of a kind."""
        found: list[Any] = []
        after = 0
        while page := await JournalStorage(self.database).facts(after, 5_000):
            found += [msgspec.json.decode(one.data) for one in page if one.type == kind]
            after = page[-1].seq
        return found

    async def quiet(self, seconds: float = 0.3) -> None:
        """Wait until nothing was asked or written for a while."""
        async with asyncio.timeout(PATIENCE):
            before = -1
            while before != sum(self.cluster.calls.values()):
                before = sum(self.cluster.calls.values())
                await asyncio.sleep(seconds)


def manifest(kind: str, name: str, namespace: str, spec: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": AGENTS.api_version, "kind": kind, "metadata": meta, "spec": spec}


@pytest.fixture
async def make(database: Database) -> AsyncIterator[Callable[..., Rig]]:
    rigs: list[Rig] = []
    async with FakeCluster() as cluster:

        def made(**settings: Any) -> Rig:
            rigs.append(Rig(cluster, database, **settings))
            return rigs[-1]

        yield made
        for rig in rigs:
            await rig.stop()
            await rig.api.aclose()


@pytest.fixture
async def rig(make: Callable[..., Rig]) -> Rig:
    found = make()
    found.start()
    return found
