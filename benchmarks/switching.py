"""Gateways in one process over a real database, callers that never stop, and an agent that is switched under them.

Hosts are fake, and answer by the revision that they were asked for: so each call says which side took it, and a call
that fails does so because of the switch.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.gateway import GatewayStorage
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.quota import QuotaStorage
from chimera.adapters.storage.sides.rollback import Done
from chimera.adapters.storage.sides.store import SideStorage
from chimera.adapters.storage.source_rows import SourceHooks
from chimera.adapters.storage.state.stores import make_state
from chimera.adapters.storage.tasks.store import TaskStorage
from chimera.adapters.storage.trials.copies import StoredCopies
from chimera.agents.compile import CompiledAgent
from chimera.bootstrap.gateway import make_event_ports, make_functions
from chimera.bootstrap.gateway_config import GatewayConfig, ModelConfig, load_settings
from chimera.bootstrap.gateway_parts import Gateway, Ports
from chimera.bootstrap.side_parts import SidePorts
from chimera.delivery.sides.model import WHOLE, Green
from chimera.kernel.leases import Lease
from chimera.testing.audit import MemoryAudit
from chimera.testing.definitions import compiled, staged
from chimera.testing.identity import FakeIdentityStore
from chimera.testing.pool import FakeHostPool
from chimera.testing.scripted_model import ScriptedModel
from chimera_host.contract.call import InvokeRequest

KEY = "k" * 32
TENANT = "default"
PAUSE = 0.002


@asynccontextmanager
async def gateway_on(folder: Path, database: Database, pool: FakeHostPool, **settings: Any) -> AsyncIterator[Gateway]:
    """A gateway on `database`, with hosts from `pool`, and a home at `folder`."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    config = GatewayConfig(
        home=str(folder),
        key_file="unused",
        token_secret_file="unused",
        database="unused",
        control_plane_socket=str(folder / "c"),
        node_socket=str(folder / "n"),
        port=0,
        drain=0.2,
        models={"default": ModelConfig(provider="scripted")},
        settings=settings,
    )
    loaded = load_settings(config)
    storage, sides = GatewayStorage(database), SideStorage(database, max_hosts=1)
    state = make_state(database, loaded.state)
    tasks = TaskStorage(database, keep=loaded.tasks.result_ttl, lease=loaded.tasks.lease)
    ports = Ports(
        routes=storage,
        revisions=storage,
        state=state,
        quota=QuotaStorage(database),
        tasks=tasks,
        copies=StoredCopies(database, tasks, state.subjects),
        events=make_event_ports(database, loaded.events),
        pool=pool,
        identity=FakeIdentityStore(),
        audit=MemoryAudit(),
        models={"default": ScriptedModel()},
        functions=make_functions(loaded.functions),
        hooks=SourceHooks(database),
        sides=SidePorts(loads=sides, observations=sides.observing),
    )
    made = Gateway(
        config,
        loaded,
        ports,
        key=KEY.encode(),
        token_secret=b"s" * 32,
        webhook_key=b"w" * 32,
        secrets={},
    )
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def say_revision(request: InvokeRequest) -> str:
    """What the fake hosts answer."""
    return request.revision


@dataclass(frozen=True, kw_only=True, slots=True)
class Called:
    """One call: when it began by the monotonic clock, where, in which session, and what came of it."""

    began: float
    gateway: str
    session: str | None
    revision: str
    status: int
    detail: str = ""


@dataclass(kw_only=True)
class Callers:
    """Closed loops of calls, a few at each gateway, some of them in a session of their own, until the context ends."""

    urls: Sequence[str]
    agent: str = "anna"
    each: int = 4
    calls: list[Called] = field(default_factory=list)
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> "Callers":
        """Begin."""
        self._http = aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"})
        for place, url in enumerate(self.urls):
            for number in range(self.each):
                session = f"s-{place}-{number}" if number % 2 else None
                self._tasks.append(asyncio.create_task(self._call(url, session), name=f"caller-{place}-{number}"))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let the calls that run be answered, and end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()

    @property
    def failed(self) -> list[Called]:
        """Calls that were not answered well."""
        return [one for one in self.calls if one.status != 200]

    async def more(self, count: int) -> None:
        """Return when so many calls more are answered."""
        wanted = len(self.calls) + count
        while len(self.calls) < wanted:
            self._news.clear()
            await self._news.wait()

    async def _call(self, url: str, session: str | None) -> None:
        target = f"{url}/v1/tenants/{TENANT}/agents/{self.agent}/invoke"
        body = {"input": "hi"} if session is None else {"input": "hi", "session": session}
        while True:
            began = time.monotonic()
            asked = asyncio.ensure_future(self._asked(target, body))
            try:
                status, revision, detail = await asyncio.shield(asked)
            except asyncio.CancelledError:
                with suppress(aiohttp.ClientError):
                    await asked
                raise
            one = Called(began=began, gateway=url, session=session, revision=revision, status=status, detail=detail)
            self.calls.append(one)
            self._news.set()
            await asyncio.sleep(PAUSE)

    async def _asked(self, target: str, body: dict[str, str]) -> tuple[int, str, str]:
        try:
            async with self._http.post(target, json=body) as answer:
                told = await answer.json(content_type=None)
                return answer.status, str(told.get("revision", "")), "" if answer.status == 200 else str(told)
        except aiohttp.ClientError as error:
            return 0, "", repr(error)


class Switched:
    """Agents with two revisions each, the first of which are live."""

    def __init__(self, database: Database, names: Sequence[str]) -> None:
        """Of these names; call `begin`."""
        self.catalogue = Catalogue(database, max_hosts=1)
        self.sides = SideStorage(database, max_hosts=1)
        self._leases = StoredLeases(database)
        self.revisions = [[compiled(name, metadata={"description": words}) for name in names] for words in ("A.", "B.")]

    async def begin(self) -> str:
        """Make the first revisions live, and store the second ones; the cell of the first agent."""
        first, second = self.revisions
        await self.catalogue.apply(TENANT, staged(*first), keep_going=False, expect=None, by=None)
        await self.catalogue.stage(TENANT, await self.catalogue.open_batch(TENANT), staged(*second))
        row = await self.catalogue.agent(TENANT, first[0].value.agent.name)
        assert row is not None
        return str(row["cell"])

    def greens(self, number: int) -> list[Green]:
        """What the switch of this number does: from one revision to the other, and back with the next."""
        before, after = self.revisions[number % 2], self.revisions[(number + 1) % 2]
        return [_green(old, new) for old, new in zip(before, after, strict=True)]

    async def held(self) -> Lease:
        """The lease of rollouts."""
        lease = await self._leases.acquire("rollouts", "me", 600.0)
        assert lease is not None
        return lease

    async def set_green(self, number: int) -> None:
        """Give all their green sides."""
        refused = await self.sides.set_green(
            TENANT, self.greens(number), rollout=f"ro-{number}", held=await self.held()
        )
        assert not refused, refused

    async def weigh(self, number: int, weight: int = WHOLE) -> None:
        """Move so many calls."""
        weights = {one.agent: weight for one in self.greens(number)}
        await self.sides.set_weights(TENANT, weights, rollout=f"ro-{number}", held=await self.held())

    async def finish(self, number: int) -> None:
        """Make green live."""
        refused = await self.sides.finish(
            TENANT,
            green=self.greens(number),
            rollout=f"ro-{number}",
            keep=600.0,
            by="user:ann",
            held=await self.held(),
        )
        assert not refused, refused

    async def roll_back(self, *, now: bool = False) -> Done:
        """Take all back."""
        names = [one.value.agent.name for one in self.revisions[0]]
        return await self.catalogue.rollbacks.agents(TENANT, names, to=None, by="user:ann", now=now)


def _green(old: CompiledAgent, new: CompiledAgent) -> Green:
    return Green(agent=new.value.agent.name, revision=new.digest, before=old.digest)
