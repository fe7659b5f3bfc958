"""What a control plane does while it is killed: changes, rollouts, a way back, a branch; and calls of all of it.

The gateway is real and in the test's own process, with hosts that answer which revision they run. Agents are named anew
in each turn, so that turns share a database and disturb each other in nothing.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from sqlalchemy import func, select

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.gateway import GatewayStorage
from chimera.adapters.storage.schema.catalogue import agent, history
from chimera.adapters.storage.schema.journal import event
from chimera.adapters.storage.schema.leases import lease
from chimera.adapters.storage.sides.store import SideStorage
from chimera.bootstrap.control_plane import ControlPlaneConfig
from chimera.bootstrap.side_parts import SidePorts
from chimera.delivery.model import ENDED, RESTING
from chimera.gateway.identity.principal import Principal, encode_header
from chimera.platform.model import CellSpec
from chimera.testing.definitions import compiled, definition, staged
from chimera.testing.repositories import Repository
from chimera_host.contract.call import InvokeRequest, LoadRequest
from tests.integration.gateway.conftest import World

TENANT, DIRECT = "default", "direct"
PROGRAM = Path(__file__).parent / "mortal.py"
HERE = Path(__file__).parents[4]
PATIENCE = 600.0
DeathAt = tuple[str, str]


def who(name: str, *roles: str) -> dict[str, str]:
    user = Principal(kind="user", subject=f"https://idp.example|{name}", tenant=TENANT, roles=frozenset(roles))
    return {"Chimera-Principal": encode_header(user)}


ANNA, BEN, ADA = who("anna", "operator"), who("ben", "approver"), who("ada", "admin")


class ControlPlanes:
    """One control plane after another, each started once the one before is dead."""

    def __init__(self, folder: Path, database: Database, name: str, **groups: Any) -> None:
        self._database = database
        self.config = folder / "control-plane.json"
        self.log = folder / "control-plane.log"
        self.config.write_bytes(
            msgspec.json.encode(
                ControlPlaneConfig(
                    database=name,
                    socket=str(folder / "control.sock"),
                    node_socket=str(folder / "node.sock"),
                    home=str(folder),
                    **groups,
                )
            )
        )
        self.wrote: list[str] = []
        self.died: list[DeathAt] = []
        self.plan: list[DeathAt] = []
        self._pid: int | None = None
        self._ending = False
        self._process: asyncio.subprocess.Process
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> "ControlPlanes":
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(PROGRAM)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=HERE
        )
        self._task = asyncio.create_task(self._run(), name="control-planes")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ending = True
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, 15)
        await self._task
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    async def _run(self) -> None:
        reader, writer = self._process.stdout, self._process.stdin
        assert reader is not None
        assert writer is not None
        while not self._ending:
            at = self.plan[0] if self.plan else None
            writer.write(msgspec.json.encode((str(self.config), str(self.log), at)) + b"\n")
            await writer.drain()
            while line := await reader.readline():
                match msgspec.json.decode(line):
                    case ["started", pid]:
                        self._pid = pid
                        if self._ending:
                            os.kill(pid, 15)
                    case ["wrote", *names]:
                        self.wrote += names
                    case ["dying", name, moment]:
                        self.died.append((name, moment))
                        self.plan = self.plan[1:]
                    case ["ended", code]:
                        self._pid = None
                        assert code in (0, -9) or self._ending, f"it ended by itself: {self._said()}"
                        await self._free_leases()
                        break
            else:
                raise AssertionError(f"no control plane starts: {self._said()}")

    def _said(self) -> str:
        return self.log.read_text()[-3_000:] if self.log.exists() else "nothing"

    def kill(self) -> None:
        """Kill the one that runs, wherever it is; it is dead where it sleeps."""
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, 9)

    async def _free_leases(self) -> None:
        """A dead process's leases end after a quarter of a minute; here at once."""
        its = lease.c.owner.like("cp%")
        await self._database.write(lambda connection: connection.execute(lease.update().where(its).values(expires=0)))


class Served(World):
    """A gateway on the real catalogue, whose hosts say which revision answers."""

    def __init__(self, folder: Path, database: Database) -> None:
        super().__init__(folder, database, settings={"routes": {"poll": 0.1, "observe": 0.2}})
        sides = SideStorage(database, max_hosts=1)
        self.source = GatewayStorage(database)
        self.sides = SidePorts(loads=sides, observations=sides.observing)
        self.pool.on_wake = self._wake
        self.told: Counter[str] = Counter()
        self.failed: list[str] = []

    async def _wake(self, cell: CellSpec) -> None:
        host = await self.host(f"host-{len(self.pool.hosts)}-{cell.cell}", cell.cell)

        def hold(tenant: str, name: str, revision: str) -> None:
            held = {"tenant": tenant, "agent": name, "revision": revision}
            if held not in host.holds:
                host.holds.append(held)

        async def answer(asked: InvokeRequest) -> str:
            hold(asked.tenant, asked.agent, asked.revision)
            return asked.revision

        async def load(asked: LoadRequest) -> None:
            hold(asked.tenant, asked.agent, asked.revision)

        host.answer, host.load = answer, load

    async def call(self, names: list[str]) -> None:
        """Call agents in turn until cancelled; none may fail."""
        while True:
            for name in names:
                status, body = await self.invoke(name)
                self.told[name] += 1
                if status != 200:
                    self.failed.append(f"{name}: {status} {body}")
            await asyncio.sleep(0.02)


class Asking:
    """Asks the control plane, again as long as nobody answers."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def __call__(
        self, method: str, path: str, body: Any = None, by: dict[str, str] = ANNA, tenant: str = TENANT, **more: str
    ) -> tuple[int, Any]:
        headers = {**by, **{name.replace("_", "-"): value for name, value in more.items()}}
        url = f"http://c/v1/tenants/{tenant}/{path}"
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    async with self._session.request(method, url, json=body, headers=headers) as answer:
                        return answer.status, await answer.json(content_type=None)
                except aiohttp.ClientError:
                    await asyncio.sleep(0.03)


class Turn:
    """One time through all of it."""

    def __init__(self, number: int, database: Database, ask: Asking, served: Path) -> None:
        self.number = number
        self.database = database
        self.catalogue = Catalogue(database, max_hosts=4)
        self.ask = ask
        self.served = served
        self.before: dict[str, str | None] = {}

    def name(self, word: str) -> str:
        return f"{word}-{self.number}"

    def agents(self, *words: str) -> list[str]:
        return [self.name(word) for word in words]

    async def prepare(self) -> None:
        """The policy, and what is live before."""
        policy = {"direct": False, "approvals": {"low": {"needs": [{"roles": ["approver"], "count": 1}]}}}
        status, told = await self.ask("PUT", "delivery/policy", {"policy": policy}, ADA)
        assert status == 200, told
        made = [compiled(name, **OLD) for name in self.agents("done", "also", "gone", "back", "half", "fire")]
        await self.catalogue.apply(TENANT, staged(*made), keep_going=False, expect=None, by=None)
        self.before = await self.live(TENANT)

    async def live(self, tenant: str) -> dict[str, str | None]:
        """What is live of this turn, in one transaction."""
        its = (agent.c.tenant == tenant) & (agent.c.status == "live") & agent.c.name.like(f"%-{self.number}")
        rows = await self.database.read(
            lambda connection: connection.execute(select(agent.c.name, agent.c.revision).where(its)).all()
        )
        return {row.name: row.revision for row in rows}

    # -- what people do ------------------------------------------------------------------------------------------------

    async def open(
        self, key: str, *definitions: dict[str, Any], by: dict[str, str] = ANNA, **more: Any
    ) -> dict[str, Any]:
        """A change of these definitions; the same one, however often an answer is lost."""
        status, batch = await self.ask("POST", "batches", Idempotency_Key=f"{key}-{self.number}")
        assert status == 201, batch
        body = {"first": 0, "items": [{"definition": one, "file": f"{key}.yaml"} for one in definitions]}
        status, told = await self.ask("POST", f"batches/{batch['batch']}/definitions", body)
        if status == 404:  # its answer was lost, and the change was opened
            return await self.open(key, *definitions, by=by, **more)
        assert (status, [one for one in told["results"] if one.get("faults")]) == (200, []), told
        wanted = {"title": key, "batch": batch["batch"], **more}
        status, change = await self.ask("POST", "changes", wanted, by)
        assert status == 201, change
        return dict(change)

    async def approve(self, change: str) -> None:
        """Wait until people are asked, and approve; acknowledged, it stays."""
        assert await self.approved(change), "another change took its place"

    async def approved(self, change: str) -> bool:
        """The same; false where another change took its place meanwhile."""
        found = await self.until(change, lambda one: one["state"] in ("awaiting-approval", *OVER))
        if found["state"] == "superseded":
            return False
        assert found["state"] == "awaiting-approval", found
        status, told = await self.ask("POST", f"changes/{change}/approve", {"content": found["content"]}, BEN)
        if status != 200:  # the answer to the first one was lost
            assert status == 409, told
        _, found = await self.ask("GET", f"changes/{change}")
        if found["state"] == "superseded":
            return False
        # Said again since the answer was lost, it stands there twice, and counts as one person's.
        heard = {one["by"] for one in found["approvals"]}
        assert heard == {"user:https://idp.example|ben"}, (status, told, found["approvals"])
        return True

    async def until(self, change: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            while True:
                status, found = await self.ask("GET", f"changes/{change}")
                assert status == 200, found
                if wanted(found):
                    return dict(found)
                await asyncio.sleep(0.05)

    async def over(self, change: str) -> dict[str, Any]:
        return await self.until(change, lambda one: one["state"] in OVER)

    async def rollouts(self, change: str) -> list[dict[str, Any]]:
        _, found = await self.ask("GET", "rollouts?limit=1000")
        return [one for one in found["rollouts"] if one.get("change") == change]

    # -- the stories ---------------------------------------------------------------------------------------------------

    async def to_production_and_back(self) -> None:
        """A change of two agents, a new one and one that goes: all of it live, then all of it taken back."""
        done, also, gone = self.agents("done", "also", "gone")
        new = self.name("new")
        made = [definition(name, **NEW) for name in (done, also, new)]
        wanted = {one: compiled(one, **NEW).digest for one in (done, also, new)}
        change = await self.open("done", *made, remove=[gone])
        its = {**{name: self.before[name] for name in (done, also, gone)}, new: None}
        async with self.never_half(its, {**wanted, gone: None}):
            await self.approve(change["id"])
            found = await self.over(change["id"])
            assert found["state"] == "done", found
            live = await self.live(TENANT)
            assert {name: live.get(name) for name in its} == {**wanted, gone: None}
            await self.told_once(change["id"], sorted(its))
            await self.roll_back(change["id"])
        live = await self.live(TENANT)
        assert {name: live.get(name) for name in its} == its

    async def told_once(self, change: str, names: list[str]) -> None:
        """One rollout, one transaction, and each fact of it once."""
        (rollout,) = await self.rollouts(change)
        assert rollout["state"] == "done", rollout
        assert sorted(await self.points(change)) == names
        assert await self.told(rollout["id"]) == {"rollout.started": 1, "rollout.promoting": 1, "rollout.done": 1}

    async def shifting(self, change: str) -> None:
        """Wait until calls are moved to the new revisions of a change."""
        async with asyncio.timeout(PATIENCE):
            while True:
                found = await self.rollouts(change)
                if any(one["phases"].keys() & {"shifting", "baking"} for one in found):
                    return
                await asyncio.sleep(0.05)

    async def roll_back(self, change: str) -> None:
        status, told = await self.ask("POST", "rollback", {"change": change})
        assert status == 200, told
        assert told["refused"] == [], told

    async def aborted_half_way(self) -> None:
        """A change that somebody gives up while calls are moved: nothing of it was or is live."""
        back, half = self.agents("back", "half")
        change = await self.open("half", *(definition(name, **NEW) for name in (back, half)))
        its = {name: self.before[name] for name in (back, half)}
        async with self.never_half(its, its):
            await self.approve(change["id"])
            await self.until(change["id"], lambda one: one["state"] in ("rolling-out", *OVER))
            await self.shifting(change["id"])
            status, told = await self.ask("POST", f"changes/{change['id']}/abort", {"reason": "not today"})
            assert status in (200, 409), told
            found = await self.over(change["id"])
        assert found["state"] == "aborted", found
        (rollout,) = await self.rollouts(change["id"])
        assert rollout["state"] == "aborted", rollout
        sides = await SideStorage(self.database, max_hosts=1).look(TENANT, [back, half])
        assert [one.green for one in sides.values()] == [None, None]
        assert await self.points(change["id"]) == []
        told_of = await self.told(rollout["id"])
        assert (told_of["rollout.started"], told_of["rollout.aborted"]) == (1, 1), told_of

    async def at_once(self) -> None:
        """What takes the emergency path is live in one transaction, without anybody's approval."""
        name = self.name("fire")
        change = await self.open("fire", definition(name, **NEW), by=ADA, emergency="all of it is broken")
        found = await self.over(change["id"])
        assert found["state"] == "done", found
        assert (await self.live(TENANT))[name] == compiled(name, **NEW).digest

    async def a_branch_by_change(self) -> None:
        """A source whose commit becomes live by a change request that somebody approves."""
        name, source, repository = self.name("asked"), self.name("by-change"), self.repository("change")
        text = msgspec.json.encode(definition(name, **OLD)).decode()
        commit = repository.commit({f"agents/{name}.yaml": text})
        await self.follow(source, repository, TENANT)
        async with asyncio.timeout(PATIENCE):
            # Where the branch was read anew, another change may have taken the first one's place.
            while True:
                _, page = await self.ask("GET", f"changes?agent={name}&state=in-flight")
                if page["changes"] and await self.approved(page["changes"][0]["id"]):
                    break
                await asyncio.sleep(0.05)
        await self.synced(source, commit, TENANT)
        assert (await self.live(TENANT))[name] == compiled(name, **OLD).digest
        assert await self.pinned(name, TENANT) == commit

    async def a_branch_that_leaves_its_change(self) -> None:
        """A source whose commit is reverted while its change waits: it never becomes live."""
        name, source, repository = self.name("left-by"), self.name("by-revert"), self.repository("revert")
        text = msgspec.json.encode(definition(name, **OLD)).decode()
        repository.commit({f"agents/{name}.yaml": text})
        async with self.never_half({name: None}, {name: None}):
            await self.follow(source, repository, TENANT)
            async with asyncio.timeout(PATIENCE):
                while True:
                    _, page = await self.ask("GET", f"changes?agent={name}&state=in-flight")
                    if page["changes"]:
                        break
                    await asyncio.sleep(0.05)
            commit = repository.commit({f"agents/{name}.yaml": None})
            await self.ask("POST", f"sources/{source}/run", {}, ADA)
            state = await self.synced(source, commit, TENANT)
        assert (state["phase"], state.get("change")) == ("current", None), state
        _, page = await self.ask("GET", f"changes?agent={name}")
        assert {one["state"] for one in page["changes"]} == {"superseded"}, page

    async def a_branch(self) -> None:
        """A source whose second commit changes one agent and takes another out."""
        first, second = self.agents("kept", "left")
        source, repository = self.name("source"), self.repository("direct")

        def text(name: str, more: dict[str, Any]) -> str:
            return msgspec.json.encode(definition(name, **more)).decode()

        places = {name: f"agents/{name}.yaml" for name in (first, second)}
        commit = repository.commit({places[name]: text(name, OLD) for name in (first, second)})
        await self.follow(source, repository, DIRECT)
        old = {name: compiled(name, tenant=DIRECT, **OLD).digest for name in (first, second)}
        new = {first: compiled(first, tenant=DIRECT, **NEW).digest, second: None}
        await self.synced(source, commit)
        assert await self.live(DIRECT) == old
        assert await self.pinned(first) == commit
        commit = repository.commit({places[first]: text(first, NEW), places[second]: None})
        async with self.never_half(old, new, DIRECT):
            await self.ask("POST", f"sources/{source}/run", {}, ADA, DIRECT)
            state = await self.synced(source, commit)
        assert await self.live(DIRECT) == {first: new[first]}
        assert await self.pinned(first) == commit
        assert (state["agents"], state.get("drifted", 0), state["phase"]) == (1, 0, "current"), state

    def repository(self, word: str) -> Repository:
        return Repository(self.served / self.name(word))

    async def follow(self, source: str, repository: Repository, tenant: str) -> None:
        spec = {"url": repository.url, "path": "agents", "interval": 5.0}
        status, told = await self.ask("PUT", f"sources/{source}", {"spec": spec}, ADA, tenant)
        assert status in (200, 201), told

    async def synced(self, source: str, commit: str, tenant: str = DIRECT) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            while True:
                status, found = await self.ask("GET", f"sources/{source}", None, ADA, tenant)
                assert status == 200, found
                assert found["state"].get("phase", "new") in ("new", "current", "waiting"), found
                if found["state"].get("commit") == commit:
                    return dict(found["state"])
                await asyncio.sleep(0.05)

    async def pinned(self, name: str, tenant: str = DIRECT) -> str:
        _, found = await self.ask("GET", f"agents/{name}", None, ADA, tenant)
        return str(found["pin"]["commit"])

    # -- what is looked at ---------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def never_half(self, before: dict[str, Any], after: dict[str, Any], tenant: str = TENANT) -> Any:
        """At no moment is a part of it live: it is all as before, or all as after."""
        halves: list[dict[str, Any]] = []

        async def look() -> None:
            while True:
                live = await self.live(tenant)
                if (found := {name: live.get(name) for name in before}) not in (before, after):
                    halves.append(found)
                await asyncio.sleep(0.03)

        looking = asyncio.create_task(look(), name="looking")
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        assert halves == []

    async def points(self, change: str) -> list[str]:
        """The agents that a change request made live, or took out, once for each time."""
        its = (history.c.change == change) & history.c.agent.like(f"%-{self.number}")
        rows = await self.database.read(
            lambda connection: connection.execute(select(history.c.agent).where(its)).scalars().all()
        )
        return [str(row) for row in rows]

    async def told(self, rollout: str) -> dict[str, int]:
        """How often each fact of a rollout was told, but for its waves."""
        query = (
            select(event.c.type, func.count())
            .where((event.c.subject == f"rollouts/{rollout}") & (event.c.type != "rollout.wave"))
            .group_by(event.c.type)
        )
        rows = await self.database.read(lambda connection: connection.execute(query).all())
        return {str(kind): int(count) for kind, count in rows}

    async def go(self) -> None:
        """All stories at once."""
        stories: list[Callable[[], Awaitable[None]]] = [
            self.to_production_and_back,
            self.aborted_half_way,
            self.at_once,
            self.a_branch,
            self.a_branch_by_change,
            self.a_branch_that_leaves_its_change,
        ]
        async with asyncio.TaskGroup() as group:
            for story in stories:
                group.create_task(story(), name=story.__name__)  # type: ignore[arg-type]


OVER = sorted(ENDED | RESTING)
OLD: dict[str, Any] = {"specification": {"framework": "function"}, "budget": {"tokens_per_day": 1_000}}
NEW: dict[str, Any] = {**OLD, "model": {"temperature": 0.5}}
