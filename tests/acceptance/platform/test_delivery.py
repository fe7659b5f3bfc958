"""Delivery in both homes: from a change request to production and back, while calls go on.

On Knative (`homes` says what a cluster must be, with an image for each framework) agents of every framework are tested
and staged in pods of environments of their own, and rolled out by waves while two gateways take calls and the control
plane's pod is killed; a bad revision is taken back by itself, and a good one by hand, at both gateways. The tests are
in the order of an ecosystem's life. It takes about five minutes on a cluster of two cores.
"""

import asyncio
import datetime
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec
import pytest
import pytest_asyncio
import yaml

from chimera.adapters.substrates.knative import names, places
from chimera.adapters.substrates.knative.access import from_kubeconfig
from chimera.adapters.substrates.knative.forwarding import Forwarding
from chimera.adapters.substrates.knative.installer import DEPLOYMENTS, KINDS, wait_for
from chimera.adapters.substrates.knative.ledger import CONFIG_MAPS
from chimera.adapters.substrates.knative.objects import KNATIVE_SERVICES, PODS
from chimera.kernel.clock import SystemClock
from chimera.kernel.ids import is_environment

from .homes import NEEDED, PATIENCE, Cluster, Home, Machine

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

PUBLIC = 8080
RESTING = ("failed", "rejected", "aborted", "superseded", "rolled-back", "done")
WHO = "who"
CODE = """\
def factory(context):
    def answer(prompt, call):
        if SAYS == "fault" and prompt == "who":
            raise RuntimeError("this revision is bad, and its tests don't show it")
        return f"{{SAYS}}: I am well"
    return answer


SAYS = {says!r}
"""
CODED = ("uno", "due")
DECLARED: dict[str, tuple[str, dict[str, Any]]] = {
    "autogen": ("AutoGen", {"autogen": {"kind": "task_execution", "system_message": "Answer."}}),
    "crewai": (
        "CrewAI",
        {
            "crewai": {
                "members": [{"name": "one", "role": "Clerk", "goal": "Answer", "backstory": "You answer."}],
                "tasks": [{"name": "first", "member": "one", "description": "{input}", "expected_output": "A text"}],
            }
        },
    ),
    "langgraph": (
        "LangGraph",
        {"langgraph": {"start": ["say"], "nodes": [{"type": "agent", "name": "say", "system_message": "Answer."}]}},
    ),
}
TEST = {
    "name": "is well",
    "integration": True,
    "input": "How are you?",
    "answers": [{"text": "I am well. TERMINATE"}],
    "expect": {"contains": ["well"]},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "delivery": {
        "interval": 1.0,
        "rollout_steps": [20.0, 60.0],
        "rollout_step_seconds": 3.0,
        "rollout_bake_seconds": 6.0,
        "rollout_waves": [0.5],
        "rollout_least_calls": 10,
        "rollout_hold_seconds": 60.0,
    },
    "trials": {"staging_calls": 3},
    "scanning": {"advisories": ["advisories.json"]},
    "audit": {"checkpoint_seconds": 5.0},
}


def advisories() -> str:
    """One advisory of today about a package that nobody has: without any, no scan of dependencies passes."""
    package = {"ecosystem": "PyPI", "name": "no-such-package"}
    record = {"id": "OSV-1", "modified": datetime.datetime.now(datetime.UTC).isoformat()}
    return json.dumps([{**record, "affected": [{"package": package, "versions": ["1"]}]}])


def toml(groups: dict[str, dict[str, Any]]) -> str:
    return "\n".join(
        f"[{group}]\n" + "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
        for group, values in groups.items()
    )


class Delivered(Cluster):
    """A cluster with two gateways, and what scanners know in a ConfigMap."""

    async def prepare(self) -> None:
        """Install."""
        labels = {"app.kubernetes.io/managed-by": "chimera", "app.kubernetes.io/part-of": "chimera"}
        head = {"apiVersion": "v1", "metadata": {"name": self.namespace, "labels": labels}, "kind": "Namespace"}
        await self.api.apply(KINDS["Namespace"], head, force=True)
        meta = {"name": places.SCANNING, "namespace": self.namespace}
        known = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"advisories.json": advisories()}}
        await self.api.apply(CONFIG_MAPS, known, force=True)
        await self.install(start_timeout=180, more=toml(SETTINGS))
        # Another gateway alone, and both asking for less: a node of two cores has no room for two of everything.
        small = {"name": "gateway", "resources": {"requests": {"cpu": "50m"}}}
        spec = {"replicas": 2, "template": {"spec": {"containers": [small]}}}
        meta = {"name": "chimera-gateway", "namespace": self.namespace}
        scaled = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}
        await self.api.apply(DEPLOYMENTS, scaled, force=True, manager="test")
        assert not await wait_for(self.api, self.namespace, ["chimera-gateway"], PATIENCE)
        await self.connect()

    async def gateways(self) -> list[str]:
        selector = "app.kubernetes.io/name=chimera,app.kubernetes.io/component=gateway"
        listing = await self.api.list(PODS, self.namespace, selector)
        return sorted(one.metadata.name for one in listing.items if one.metadata.deletion_timestamp is None)

    async def kill_control_plane(self) -> None:
        """As a node's death does: without a word."""
        options = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}
        path = PODS.path(self.namespace, await self.pod("control-plane"))
        await self.api._request("DELETE", path, None, msgspec.json.encode(options), "application/json")

    async def ledger(self, key: str) -> list[str]:
        return (await self.api.get(CONFIG_MAPS, self.namespace, places.LEDGER)).data.get(key, "").splitlines()

    async def environments(self) -> list[str]:
        """The Knative Services of environments."""
        listing = await self.api.list(KNATIVE_SERVICES, self.cells, names.managed())
        return [
            one.metadata.name for one in listing.items if is_environment(one.metadata.annotations.get(names.CELL, ""))
        ]


@dataclass(frozen=True, kw_only=True)
class Called:
    """One call: when it began, by which gateway, and what came of it."""

    began: float
    ended: float
    gateway: int
    agent: str
    status: int
    revision: str
    said: str


@dataclass
class World:
    """A home with a tenant of its own, whose agents are changed by change requests alone."""

    home: Home
    urls: list[str]
    tenant: str = field(default_factory=lambda: f"delivered-{uuid4().hex[:8]}")
    keys: dict[str, str] = field(default_factory=dict)
    change: str = ""

    @property
    def agents(self) -> list[str]:
        return [*CODED, *(f"{framework}-{number}" for framework in DECLARED for number in (1, 2))]

    async def cli(self, *arguments: str, who: str = "") -> tuple[int, str]:
        """A command's exit code, and all that it said."""
        key = ("--key", self.keys[who]) if who else ()
        process = await self.home.start("--tenant", self.tenant, *key, *arguments)
        output, wrong = await process.communicate()
        return process.returncode or 0, output.decode() + wrong.decode()

    async def data(self, *arguments: str, who: str = "") -> Any:
        key = ("--key", self.keys[who]) if who else ()
        return await self.home.data("--tenant", self.tenant, *key, *arguments)

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """A question to the API; 503 while nobody answers."""
        headers = {"Authorization": f"Bearer {self.home.key}"}
        url = f"{self.home.url}/v1/tenants/{self.tenant}/{path}"
        try:
            async with self.home.session.request(method, url, json=body, headers=headers) as answer:
                return answer.status, await answer.json()
        except (aiohttp.ClientError, OSError) as error:
            return 503, {"detail": repr(error)}

    async def until(self, change: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The change once it is as wanted, or rests; a control plane that is away is waited for."""
        last: Any = None
        async with asyncio.timeout(PATIENCE):
            while True:
                status, last = await self.ask("GET", f"changes/{change}")
                if status == 200 and wanted(last):
                    return dict(last)
                assert status != 200 or last["state"] not in RESTING, told(last)
                await asyncio.sleep(0.5)

    def write(self, version: str, says: str, agents: Iterable[str]) -> Path:
        """Definitions of these agents at a version."""
        folder = self.home.folder / f"delivered-{version}"
        (folder / "src").mkdir(parents=True)
        (folder / "src" / "mine.py").write_text(CODE.format(says=says))
        for name in agents:
            framework, behaviour = DECLARED.get(name.partition("-")[0], ("function", None))
            made: dict[str, Any] = {
                "schema_version": "ADaC v2.0",
                "metadata": {"name": name, "version": version, "description": f"Says how it is, as of {version}."},
                "specification": {"framework": framework},
                "capabilities": {"primary_functions": ["say how it is"]},
                "budget": {"tokens_per_day": 1_000_000},
                "owner": {"team": "tests"},
                "tests": [TEST],
            }
            if behaviour is None:
                made["specification"] |= {"source": "./src", "entrypoint": "mine:factory"}
            else:
                made["behaviour"] = behaviour
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(made))
        return folder

    async def call(self, agent: str, gateway: int = 0) -> Called:
        url = f"{self.urls[gateway]}/v1/tenants/{self.tenant}/agents/{agent}/invoke"
        began = time.monotonic()
        async with self.home.session.post(
            url, json={"input": WHO}, headers={"Authorization": f"Bearer {self.home.key}"}
        ) as answer:
            body = await answer.json()
            return Called(
                began=began,
                ended=time.monotonic(),
                gateway=gateway,
                agent=agent,
                status=answer.status,
                revision=answer.headers.get("Chimera-Revision", ""),
                said=str(body.get("output") or body),
            )

    async def wake(self, agents: Sequence[str]) -> None:
        """Call each until it answers: who wakes a cell on a busy machine may be told to come again."""
        async with asyncio.timeout(PATIENCE):
            for agent in agents:
                while (answered := await self.call(agent)).status != 200:
                    assert answered.status == 503, answered
                    await asyncio.sleep(1.0)

    @asynccontextmanager
    async def calling(self, agents: Sequence[str], pause: float = 0.1) -> AsyncIterator[list[Called]]:
        """Calls of these agents at every gateway, one after the other, until it is left."""
        made: list[Called] = []
        over = asyncio.Event()

        async def one(gateway: int) -> None:
            while not over.is_set():
                for agent in agents:
                    made.append(await self.call(agent, gateway))
                    await asyncio.sleep(pause)

        callers = [asyncio.create_task(one(number)) for number in range(len(self.urls))]
        try:
            yield made
        finally:
            over.set()
            await asyncio.gather(*callers)

    async def versions(self) -> dict[str, str]:
        return {row["name"]: row["version"] for row in (await self.ask("GET", "agents?limit=100"))[1]["agents"]}

    async def opened(self, folder: Path) -> str:
        """A change that waits for somebody else's word, and has it."""
        began = time.monotonic()
        change = str((await self.data("change", "open", str(folder), who="operator"))["id"])
        shown = await self.until(change, lambda one: one["state"] == "awaiting-approval")
        checks = {one["check"]: (one["passed"], one["failed"], one["skipped"]) for one in shown["checks"]}
        assert checks["own-tests"][1:] == (0, 0) and {"scan-dependencies", "scan-containers"} <= checks.keys(), checks
        print(f"{self.home.kind}: {shown['agents']} agents built and tested in {time.monotonic() - began:.1f} s")
        code, said = await self.cli("change", "approve", change, who="operator")
        assert code == 77, f"nobody approves their own: {said}"
        code, said = await self.cli("change", "approve", change, who="approver")
        assert code == 0, said
        return change

    async def staged(self, change: str) -> None:
        began = time.monotonic()
        await self.until(change, lambda one: one["state"] == "rolling-out")
        print(f"{self.home.kind}: staged in {time.monotonic() - began:.1f} s")

    async def leave(self) -> None:
        """Take the tenant's agents out, so that whoever installs on the same database next begins with none."""
        for row in (await self.ask("GET", "changes?limit=100"))[1].get("changes", []):
            if row["state"] not in RESTING:
                await self.ask("POST", f"changes/{row['id']}/abort", {"reason": "the test is over"})
        await self.ask("PUT", "delivery/policy", {"policy": {"direct": True}})
        async with asyncio.timeout(PATIENCE):
            while found := list(await self.versions()):
                await self.ask("POST", "agents/delete", {"names": found})


def told(change: Any) -> str:
    """What stopped it, for whoever reads the log of a failed test."""
    wrong = [one for one in change.get("verdicts", []) if one["outcome"] != "passed"]
    return json.dumps({name: change.get(name) for name in ("state", "reason", "next_step")} | {"wrong": wrong[:5]})


@asynccontextmanager
async def on_machine(folder: Path, new_platform: Callable[..., Any]) -> AsyncIterator[tuple[Home, list[str]]]:
    (folder / "advisories.json").write_text(advisories())
    groups = {**SETTINGS, "scanning": {"advisories": [str(folder / "advisories.json")]}}
    (folder / "home").mkdir()
    (folder / "home" / "settings.toml").write_text(toml(groups))
    platform = await asyncio.to_thread(new_platform, folder / "home")
    home = Machine(folder, platform)
    yield home, [home.url]
    assert await asyncio.to_thread(platform.stop) == 0


@asynccontextmanager
async def on_knative(folder: Path) -> AsyncIterator[tuple[Home, list[str]]]:
    if missing := [name for name in NEEDED if not os.environ.get(name)]:
        pytest.skip(f"no cluster: {', '.join(missing)} not set")
    made = Delivered(folder, os.environ["CHIMERA_TEST_KUBECONFIG"])
    async with AsyncExitStack() as stack:
        stack.push_async_callback(made.remove)
        await made.prepare()
        urls = []
        for pod in await made.gateways():

            async def choose(pod: str = pod) -> str:
                return pod

            access = from_kubeconfig(Path(made.kubeconfig), SystemClock())
            way = await stack.enter_async_context(Forwarding(access, made.namespace, choose, PUBLIC))
            urls.append(f"http://127.0.0.1:{way.port}")
        assert len(urls) == 2
        yield made, urls


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["machine", "knative"])
async def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, new_platform: Callable[..., Any]
) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp(request.param)
    home = on_machine(folder, new_platform) if request.param == "machine" else on_knative(folder)
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with home as (made, urls), aiohttp.ClientSession(timeout=timeout) as session:
        made.session = session
        world = World(made, urls)
        try:
            yield world
        finally:
            await world.leave()


async def test_agents_of_every_framework_are_live_and_from_then_on_changed_by_change_requests(world: World) -> None:
    await world.home.run("tenants", "create", world.tenant)
    for role in ("operator", "approver"):
        world.keys[role] = (await world.data("keys", "create", role, "--role", role))["token"]
    code, said = await world.cli("apply", str(world.write("1.0.0", "one", world.agents)), who="operator")
    assert code == 0, said
    began = time.monotonic()
    await world.wake(world.agents)
    print(f"{world.home.kind}: {len(world.agents)} agents answer after {time.monotonic() - began:.1f} s")
    automatic = {"low": {"automatic": False, "needs": [{"roles": ["approver"], "count": 1}]}}
    status, body = await world.ask("PUT", "delivery/policy", {"policy": {"direct": False, "approvals": automatic}})
    assert status == 200, body
    code, said = await world.cli("delete", "uno", "--yes", who="operator")
    assert code == 65 and "chimera change open" in said


async def test_a_change_of_every_framework_becomes_live_by_waves_under_calls(world: World) -> None:
    world.change = await world.opened(world.write("1.1.0", "two", world.agents))
    async with world.calling(world.agents) as calls:
        await world.staged(world.change)
        began = time.monotonic()
        await asyncio.sleep(4.0)
        await world.home.kill_control_plane()
        shown = await world.until(world.change, lambda one: one["state"] == "done")
        print(f"{world.home.kind}: rolled out in {time.monotonic() - began:.1f} s, {len(calls)} calls meanwhile")
    failed = [one for one in calls if one.status != 200]
    assert calls and not failed, failed[:3]
    assert set((await world.versions()).values()) == {"1.1.0"}
    assert {one.said[:3] for one in calls if one.agent == "uno"} == {"one", "two"}
    staging = [one for one in shown["verdicts"] if one["stage"] == "staging" and one.get("agent")]
    assert {one["agent"] for one in staging} == set(world.agents) and {one["outcome"] for one in staging} == {"passed"}


async def test_a_rollback_reaches_every_gateway(world: World) -> None:
    agent = "uno"
    status, shown = await world.ask("GET", f"agents/{agent}")
    assert status == 200
    bad = shown["revision"]
    async with world.calling([agent], pause=0.0) as calls:
        await asyncio.sleep(2.0)
        asked = time.monotonic()
        status, body = await world.ask("POST", f"agents/{agent}/rollback")
        took = time.monotonic() - asked
        assert status == 200, body
        await asyncio.sleep(4.0)
        over = time.monotonic()
    assert not [one for one in calls if one.status != 200]
    for gateway in range(len(world.urls)):
        last = max(one.began for one in calls if one.gateway == gateway and one.revision == bad)
        print(
            f"{world.home.kind}: gateway {gateway}: the rollback took {took:.2f} s, the last call that the bad one "
            f"answered began {last - asked:+.2f} s after it was asked for"
        )
        assert last < over - 2.0, "a gateway goes on sending calls to it"
        assert any(one.began > last for one in calls if one.gateway == gateway)
    code, said = await world.cli("rollback", "due", who="operator")
    assert code == 0, said
    assert {(await world.versions())[name] for name in CODED} == {"1.0.0"}


async def test_a_bad_revision_is_taken_back_by_itself(world: World) -> None:
    change = await world.opened(world.write("1.2.0", "fault", CODED))
    async with world.calling(CODED, pause=0.02) as calls:
        await world.staged(change)
        began = time.monotonic()
        shown = await world.until(change, lambda one: one["state"] == "rolled-back")
        print(f"{world.home.kind}: found and taken back in {time.monotonic() - began:.1f} s: {shown['reason']}")
        back = time.monotonic()
        await asyncio.sleep(3.0)
    failed = [one for one in calls if one.status != 200]
    print(f"{world.home.kind}: {len(failed)} of {len(calls)} calls met the bad revision")
    assert failed and all(one.status == 502 and "agent-failed" in one.said for one in failed), failed[:3]
    assert len(failed) < len(calls) / 2
    assert not [one for one in failed if one.began > back + 2.0], "no call reaches it any more"
    assert {(await world.versions())[name] for name in CODED} == {"1.0.0"}


async def test_what_was_decided_is_signed_and_can_be_verified(world: World) -> None:
    keys = [line for line in (await world.home.run("provenance", "keys")).splitlines() if line.strip()]
    file = world.home.folder / "keys.txt"
    file.write_text("\n".join(keys))
    statement = world.home.folder / "statement.json"
    async with asyncio.timeout(PATIENCE):
        while True:
            status, envelope = await world.ask("GET", "agents/crewai-1/provenance")
            if status == 200:
                break
            await asyncio.sleep(1.0)
    statement.write_text(json.dumps(envelope))
    code, said = await world.cli("provenance", "verify", str(statement), "--public-key", str(file))
    assert code == 0, said
    if isinstance(world.home, Delivered):
        assert set(keys) <= set(await world.home.ledger(places.PROVENANCE_KEYS))


async def test_nothing_of_environments_stays_in_the_cluster_and_the_audit_log_is_signed(world: World) -> None:
    home = world.home
    if not isinstance(home, Delivered):
        return
    keys = home.folder / "audit-keys"
    keys.write_text("\n".join(await home.ledger(places.AUDIT_KEYS)))
    assert keys.read_text(), "whoever signs says by which key"
    kept = home.folder / "checkpoints"
    kept.write_text("".join(f"{line}\n" for line in await home.ledger(places.CHECKPOINTS)))
    if kept.read_text():
        print(await home.run("audit", "verify", "--public-key", str(keys), "--checkpoints", str(kept)))
    else:
        foreign = await home.get("/v1/tenants/*/audit/checkpoints?limit=1")
        assert foreign["checkpoints"], "no checkpoint was made, and none of another installation is in the way"
    began = time.monotonic()
    async with asyncio.timeout(PATIENCE):
        while left := await home.environments():  # noqa: ASYNC110 - it happens elsewhere
            await asyncio.sleep(1.0)
    print(f"environments' cells were gone {time.monotonic() - began:.1f} s later: {left}")
