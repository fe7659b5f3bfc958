"""The agents that a host holds: loaded on their first call, shared by all calls of a revision, given up when unused.

Loading fetches the revision's document by digest, unpacks and imports the agent's code where it has some, asks the
broker for its tools, and lets the framework's adapter make its objects. However many calls wait for a revision, it is
loaded once. A declared agent is made on the event loop (1 to 3 ms, less than a thread costs under load); an agent's
own code runs in a watched thread, since it may block. An agent is given up five minutes after its last use, in one pass
over all, or when the memory is needed for others; never while a call runs.
"""

import asyncio
import gc
import importlib
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from chimera_host import memory
from chimera_host.bundles import unpack
from chimera_host.calls import Call, ToolCaller
from chimera_host.contract.agent import AgentDocument, ModelChoice, SourceCode
from chimera_host.contract.call import InvokeRequest, LoadRequest
from chimera_host.contract.problem import ProblemError
from chimera_host.errors import AgentBusy, AgentLoadError
from chimera_host.imports import BundleCode
from chimera_host.lru import Lru
from chimera_host.platform_client import PlatformClient
from chimera_host.ports import AgentBuild, FrameworkAdapter, LoadedAgent, ToolSpec
from chimera_host.quota import CpuShare, Storage
from chimera_host.threads import WatchedThreads
from chimera_host.trace import span

log = logging.getLogger(__name__)

LOAD_TIMEOUT = 60.0
ESTIMATE_EVERY = 50
LOOK_AT = 64
"""How many of the most recently used agents are asked whether they run; one that runs is among them."""


class AgentTools(ToolCaller, Protocol):
    """An agent's tools: the broker."""

    async def specs(self) -> Mapping[str, list[ToolSpec]]:
        """The tools by the name that the definition gives them."""

    async def aclose(self) -> None:
        """Let go of servers and connections."""

    def missing(self, now: float) -> list[tuple[str, float]]:
        """Tools that were given up and still run: the agent, and for how long since. From any thread."""


MakeBroker = Callable[[AgentDocument, PlatformClient, str, BundleCode | None], AgentTools]


@dataclass(slots=True, kw_only=True)
class Loaded:
    """One loaded revision."""

    document: AgentDocument
    agent: LoadedAgent
    defaults: Mapping[str, Any]
    cpu: CpuShare
    broker: AgentTools | None = None
    code: BundleCode | None = None
    storage: Storage | None = None


@dataclass(slots=True)
class Counts:
    """What happened so far, for the metrics."""

    loads: int = 0
    load_failures: int = 0
    load_seconds: float = 0.0
    evictions: int = 0
    unloads: int = 0


@dataclass(slots=True, kw_only=True)
class Agents:
    """The loaded agents of one host. On the event loop only."""

    adapter: FrameworkAdapter
    platform: PlatformClient
    threads: WatchedThreads
    work_dir: Path
    memory_bytes: int
    make_broker: MakeBroker
    counts: Counts = field(default_factory=Counts)
    costs: memory.Costs = field(default_factory=lambda: memory.Costs(base=memory.resident_bytes()))
    _kept: Lru[Loaded] = field(default_factory=Lru)
    _loading: dict[str, asyncio.Task[Loaded]] = field(default_factory=dict)
    _bundles: dict[str, BundleCode] = field(default_factory=dict)
    _closing: set[asyncio.Task[None]] = field(default_factory=set)
    _brokers: set[AgentTools] = field(default_factory=set)
    _late: set[AgentTools] = field(default_factory=set)

    def __len__(self) -> int:
        """How many are loaded."""
        return len(self._kept)

    @property
    def capacity(self) -> int:
        """How many fit, by what was measured."""
        return memory.capacity(self.costs, self.memory_bytes)

    # -- calls ----------------------------------------------------------------------------------------------------

    async def take(self, call: Call) -> Loaded:
        """The agent of this call, loaded; give it back with `release`. Refuses when the agent is busy."""
        request = call.request
        entry = self._kept.peek(request.revision)
        if entry is None:
            await self._ensure(request)
            call.loaded = True
            call.load_seconds = time.monotonic() - call.began
            entry = self._kept.peek(request.revision)
            if entry is None:
                raise AgentLoadError(f"agent {request.agent} was given up as soon as it was loaded", retry_after=1.0)
        loaded = entry.value
        document = loaded.document
        if document.name != request.agent or document.tenant != request.tenant:
            raise AgentLoadError(
                f"revision {request.revision} is agent {document.name} of tenant {document.tenant}, not "
                f"{request.agent} of {request.tenant}",
                agent=request.agent,
            )
        now = asyncio.get_running_loop().time()
        if entry.users >= document.concurrency:
            raise AgentBusy(
                f"agent {document.name} has {entry.users} calls, as many as it takes at once",
                next_step="try again, or raise its concurrency",
                retry_after=0.5,
                agent=document.name,
            )
        if loaded.storage is not None:
            loaded.storage.check(document.name)
        loaded.cpu.check(document.name, now, alone=partial(self._runs_alone, request.revision))
        self._kept.take(request.revision, now)
        call.bind(document, loaded.defaults, loaded.broker)
        return loaded

    async def load(self, request: LoadRequest) -> None:
        """Load an agent before its first call, where there is room or it may take one; one that is there is used."""
        if self._kept.touch(request.revision, asyncio.get_running_loop().time()):
            return
        if request.make_room or len(self) + len(self._loading) < self.capacity:
            await self._ensure(request)

    def release(self, call: Call, loaded: Loaded) -> None:
        """The call is over."""
        now = asyncio.get_running_loop().time()
        self._kept.release(call.request.revision, now)
        loaded.cpu.spend(call.cpu_seconds, now)
        if loaded.storage is not None:
            loaded.storage.look_again(now)

    def _runs_alone(self, revision: str) -> bool:
        return not any(entry.users and key != revision for key, entry in self._kept.newest(LOOK_AT))

    # -- loading --------------------------------------------------------------------------------------------------

    async def _ensure(self, request: InvokeRequest | LoadRequest) -> None:
        task = self._loading.get(request.revision)
        if task is None:
            task = asyncio.create_task(self._load(request), name=f"load-{request.agent}")
            self._loading[request.revision] = task
            task.add_done_callback(partial(self._loaded, request.revision))
        await asyncio.shield(task)

    def _loaded(self, revision: str, task: "asyncio.Task[Loaded]") -> None:
        del self._loading[revision]
        if task.cancelled() or task.exception() is not None:
            self.counts.load_failures += 1

    async def _load(self, request: InvokeRequest | LoadRequest) -> Loaded:
        began = time.monotonic()
        try:
            async with asyncio.timeout(LOAD_TIMEOUT):
                with span("host.load"):
                    loaded = await self._build(request)
        except TimeoutError as error:
            raise AgentLoadError(
                f"agent {request.agent} was not loaded within {LOAD_TIMEOUT:.0f} s",
                next_step="see what its code does when it is imported",
                agent=request.agent,
            ) from error
        self._kept.add(request.revision, loaded, asyncio.get_running_loop().time())
        self.counts.loads += 1
        self.counts.load_seconds += time.monotonic() - began
        if self.counts.loads % ESTIMATE_EVERY == 0:
            self.measure(memory.resident_bytes())
        dropped = self._kept.drop_beyond(self.capacity)
        self.counts.evictions += len(dropped)
        for _, old in dropped:
            self._close(old)
        return loaded

    async def _build(self, request: InvokeRequest | LoadRequest) -> Loaded:
        document = await self.platform.revision(request.revision, request.platform_url)
        if document.framework != self.adapter.name:
            raise AgentLoadError(
                f"agent {document.name} is made for {document.framework}, this host runs {self.adapter.name}",
                agent=document.name,
            )
        code = await self._code(document, request.platform_url) if document.source is not None else None
        try:
            return await self._make(document, code)
        except BaseException:
            if code is not None:
                self._let_go(code)
            raise

    async def _make(self, document: AgentDocument, code: BundleCode | None) -> Loaded:
        storage = None
        if code is not None or document.tools:
            folder = self.work_dir / "agents" / document.tenant / document.name
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            storage = Storage(folder=folder, quota=document.resources.storage_bytes, threads=self.threads)
        broker = None
        tools: Mapping[str, list[ToolSpec]] = {}
        if document.tools:
            broker = self.make_broker(document, self.platform, str(storage.folder) if storage else "", code)
            self._brokers.add(broker)
        try:
            if broker is not None:
                tools = await broker.specs()
            agent = await self._adapt(document, tools, code, str(storage.folder) if storage else None)
        except BaseException:
            if broker is not None:
                await self._close_broker(broker)
            raise
        return Loaded(
            document=document,
            agent=agent,
            defaults=model_defaults(document.model),
            cpu=CpuShare(share=document.resources.cpu_millicores / 1000),
            broker=broker,
            code=code,
            storage=storage,
        )

    async def _adapt(
        self,
        document: AgentDocument,
        tools: Mapping[str, list[ToolSpec]],
        code: BundleCode | None,
        work_dir: str | None,
    ) -> LoadedAgent:
        entrypoint = document.source.entrypoint if document.source is not None else None
        try:
            if code is None or entrypoint is None:
                return self.adapter.load(AgentBuild(document=document, tools=tools, work_dir=work_dir))

            def load() -> LoadedAgent:
                factory = code.resolve(entrypoint)
                build = AgentBuild(document=document, tools=tools, factory=factory, work_dir=work_dir)
                return self.adapter.load(build)

            return (await self.threads.run(load, owner=document.name))[0]
        except ProblemError as error:
            error.agent = error.agent or document.name
            raise
        except Exception as error:
            raise AgentLoadError(
                f"agent {document.name} could not be made: {type(error).__name__}: {error}", agent=document.name
            ) from error

    async def _code(self, document: AgentDocument, at: str | None) -> BundleCode:
        source: SourceCode | None = document.source
        assert source is not None
        code = self._bundles.get(source.bundle)
        if code is None:
            data = await self.platform.bundle(source.bundle, at)
            folder, _ = await self.threads.run(
                partial(unpack, data, source.bundle, self.work_dir / "bundles"), owner=document.name
            )
            code = self._bundles.get(source.bundle) or BundleCode(source.bundle, folder)
            self._bundles[source.bundle] = code
        code.users += 1
        return code

    def _let_go(self, code: BundleCode) -> None:
        code.users -= 1
        if code.users == 0:
            code.forget()
            self._bundles = {digest: other for digest, other in self._bundles.items() if other is not code}

    # -- giving up ------------------------------------------------------------------------------------------------

    def measure(self, resident: int) -> None:
        """Learn from the process's size what an agent costs."""
        self.costs = memory.estimate(self.costs, resident=resident, loaded=len(self._kept))

    def unload_idle(self, idle: float) -> int:
        """Give up all that were not used for `idle` seconds; how many. Late tools that came back are forgotten."""
        self._forget_late()
        dropped = self._kept.drop_idle(asyncio.get_running_loop().time() - idle)
        self.counts.unloads += len(dropped)
        for _, old in dropped:
            self._close(old)
        return len(dropped)

    def relieve(self) -> int:
        """Memory is short: give up the older half of what isn't in use, and hand freed memory back; how many."""
        dropped = self._kept.drop_beyond(len(self._kept) // 2)
        self.counts.evictions += len(dropped)
        for _, old in dropped:
            self._close(old)
        gc.collect()
        memory.trim()
        return len(dropped)

    def _close(self, loaded: Loaded) -> None:
        with suppress(Exception):
            loaded.agent.close()
        if loaded.code is not None:
            self._let_go(loaded.code)
        if loaded.broker is not None:
            task = asyncio.create_task(self._close_broker(loaded.broker), name=f"close-{loaded.document.name}")
            self._closing.add(task)
            task.add_done_callback(self._closed)

    async def _close_broker(self, broker: AgentTools) -> None:
        try:
            await broker.aclose()
        finally:
            # A tool that doesn't come back outlives its agent, and is looked for until it does.
            if broker.missing(time.monotonic()):
                self._late.add(broker)
            else:
                self._brokers.discard(broker)

    def _forget_late(self) -> None:
        now = time.monotonic()
        back = {broker for broker in self._late if not broker.missing(now)}
        self._late -= back
        self._brokers -= back

    def missing_tools(self, now: float) -> list[tuple[str, float]]:
        """Tools that were given up and still run: the agent, and for how long since. From any thread."""
        return [one for broker in list(self._brokers) for one in broker.missing(now)]

    def _closed(self, task: "asyncio.Task[None]") -> None:
        self._closing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("closing an agent's tools failed", extra={"problem": repr(error)})

    async def aclose(self) -> None:
        """Give up everything."""
        for task in list(self._loading.values()):
            task.cancel()
        for _, loaded in self._kept.drop_all():
            self._close(loaded)
        if self._closing:
            await asyncio.wait(self._closing, timeout=5.0)

    # -- reports --------------------------------------------------------------------------------------------------

    def report(self, limit: int) -> list[dict[str, Any]]:
        """The most recently used agents, newest first."""
        now = asyncio.get_running_loop().time()
        return [
            {
                "tenant": entry.value.document.tenant,
                "agent": entry.value.document.name,
                "version": entry.value.document.version,
                "revision": revision,
                "in_flight": entry.users,
                "calls": entry.uses,
                "idle_seconds": 0.0 if entry.users else round(now - entry.used_at, 3),
                "cpu_seconds": round(entry.value.cpu.total, 6),
                "estimated_bytes": int(self.costs.each),
                **({"storage_bytes": entry.value.storage.used} if entry.value.storage is not None else {}),
            }
            for revision, entry in self._kept.newest(limit)
        ]


def model_defaults(model: ModelChoice) -> dict[str, Any]:
    """The fields of a model call that the agent's document sets; a framework's own values stand above them."""
    defaults: dict[str, Any] = {"model": model.name}
    for name in ("temperature", "top_p", "max_tokens", "seed"):
        if (value := getattr(model, name)) is not None:
            defaults[name] = value
    return defaults


def make_broker(
    document: AgentDocument, platform: PlatformClient, work_dir: str, code: BundleCode | None
) -> AgentTools:
    """The tool broker of an agent; its package is only imported where an agent has tools."""

    def functions(path: str) -> Callable[..., Any]:
        if code is None:
            raise AgentLoadError(
                f"the function tool {path!r} needs a source folder, and agent {document.name} has none",
                next_step="give the definition a `source`",
                agent=document.name,
            )
        return code.resolve(path)

    broker: AgentTools = importlib.import_module("chimera_host.broker").Broker(document, platform, work_dir, functions)
    return broker
