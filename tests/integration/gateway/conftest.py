"""A gateway in the test's own event loop, with real sockets on loopback, fake hosts and a model that a test scripts."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.source_rows import SourceHooks
from chimera.adapters.storage.state.stores import make_state
from chimera.adapters.storage.tasks.store import TaskStorage
from chimera.adapters.storage.trials.copies import StoredCopies
from chimera.bootstrap.gateway import make_event_ports, make_functions
from chimera.bootstrap.gateway_config import GatewayConfig, ModelConfig, load_settings
from chimera.bootstrap.gateway_parts import Gateway, Ports
from chimera.bootstrap.side_parts import SidePorts
from chimera.gateway import tokens
from chimera.gateway.ports import ModelRequest
from chimera.kernel.clock import SystemClock
from chimera.platform.model import Route
from chimera.testing.audit import MemoryAudit
from chimera.testing.hosts import FakeHost
from chimera.testing.identity import FakeIdentityStore
from chimera.testing.pool import FakeHostPool
from chimera.testing.quota import MemoryQuota
from chimera.testing.storage import MemoryStorage
from chimera_host.testing import builders

KEY = "k" * 32
SECRET = b"s" * 32
WEBHOOK_KEY = b"w" * 32
FAR = 4_000_000_000.0


class Model:
    """A `ModelProvider`: `say` is asked for each answer, which may raise."""

    def __init__(self) -> None:
        self.requests: list[ModelRequest] = []
        self.cancelled = 0
        self.usage: dict[str, int] | None = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}

        async def say(request: ModelRequest) -> str:
            return f"model: {request.body['messages'][-1]['content']}"

        self.say: Callable[[ModelRequest], Awaitable[str]] = say

    async def complete(self, request: ModelRequest) -> dict[str, Any]:
        self.requests.append(request)
        try:
            text = await self.say(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        message = {"role": "assistant", "content": text}
        answer = {"id": "m", "object": "chat.completion", "choices": [{"index": 0, "message": message}]}
        return {**answer, **({"usage": self.usage} if self.usage else {})}

    async def stream(self, request: ModelRequest) -> AsyncIterator[dict[str, Any]]:
        self.requests.append(request)
        frame = {"id": "m", "object": "chat.completion.chunk"}
        for number, word in enumerate((await self.say(request)).split(" ")):
            delta = {"content": word if number == 0 else f" {word}"}
            yield {**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        yield {**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        yield {**frame, "choices": [], "usage": self.usage}

    async def aclose(self) -> None:
        pass


class World:
    """A running gateway and everything around it."""

    def __init__(self, folder: Any, database: Database, **config: Any) -> None:
        self.folder = folder
        self.database = database
        self.store = MemoryStorage()
        self.source: Any = self.store  # of routes and revisions
        self.sides: SidePorts | None = None
        self.identity = FakeIdentityStore()
        self.pool = FakeHostPool()
        self.model = Model()
        settings = config.pop("settings", {})
        settings.setdefault("routes", {"poll": 0.05})
        settings.setdefault("models", {}).setdefault("backoff", 0.001)
        config.setdefault("models", {"default": ModelConfig(provider="scripted")})
        config.setdefault("drain", 0.2)
        self.config = GatewayConfig(
            home=str(folder),
            key_file="unused",
            token_secret_file="unused",
            database="unused",
            control_plane_socket=str(folder / "control.sock"),
            node_socket=str(folder / "node.sock"),
            port=0,
            settings=settings,
            **config,
        )
        self.audit = MemoryAudit()
        self.quota = MemoryQuota(SystemClock())
        self.gateway: Gateway
        self.http: aiohttp.ClientSession
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "World":
        settings = load_settings(self.config)
        state = make_state(self.database, settings.state)
        tasks = TaskStorage(self.database, keep=settings.tasks.result_ttl, lease=settings.tasks.lease)
        ports = Ports(
            routes=self.source,
            revisions=self.source,
            state=state,
            quota=self.quota,
            tasks=tasks,
            copies=StoredCopies(self.database, tasks, state.subjects),
            events=make_event_ports(self.database, settings.events),
            pool=self.pool,
            identity=self.identity,
            audit=self.audit,
            hooks=SourceHooks(self.database),
            models=dict.fromkeys(self.config.models, self.model),
            functions=make_functions(settings.functions),
            sides=self.sides,
        )
        self.gateway = Gateway(
            self.config,
            settings,
            ports,
            key=KEY.encode(),
            token_secret=SECRET,
            webhook_key=WEBHOOK_KEY,
            secrets={"FROM_ENVIRONMENT": "e"},
        )
        await self.gateway.start()
        self._stack.push_async_callback(self.gateway.stop)
        session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"})
        self.http = await self._stack.enter_async_context(session)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def host(self, name: str = "host-1", cell: str = "cell-1", **fields: Any) -> FakeHost:
        """A fake host that the pool knows."""
        host = await self._stack.enter_async_context(FakeHost(name, cell, **fields))
        self.pool.add(host.endpoint)
        return host

    async def agent(self, name: str = "agent", cell: str = "cell-1", *, document: Any = None, **fields: Any) -> Route:
        """A live agent that the gateway knows."""
        route = self.store.put_agent(document or builders.document(name), cell, **fields)
        await self.gateway.routes.refresh()
        return route

    @property
    def url(self) -> str:
        return self.gateway.public_url

    async def invoke(self, agent: str = "agent", text: str = "hi", **fields: Any) -> tuple[int, dict[str, Any]]:
        """One call: status and body."""
        return await self.post(f"/v1/tenants/default/agents/{agent}/invoke", {"input": text, **fields})

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        async with self.http.post(self.url + path, json=body, headers=headers) as answer:
            return answer.status, msgspec.json.decode(await answer.read(), type=dict[str, Any])

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self.http.get(self.url + path, headers=headers) as answer:
            data = await answer.read()
            return answer.status, msgspec.json.decode(data) if answer.content_type.endswith("json") else data.decode()

    def token(self, host: str = "host-1", cell: str = "cell-1", expires: float = FAR) -> str:
        return tokens.mint(SECRET, host=host, cell=cell, expires=expires)

    async def internal(
        self, path: str, body: Any = None, *, call: str | None = None, host: str = "host-1", **headers: str
    ) -> tuple[int, Any]:
        """What a host asks of the internal API."""
        sent = {"Authorization": f"Bearer {self.token(host)}", **headers}
        if call is not None:
            sent["Chimera-Call"] = call
        method = "GET" if body is None else "POST"
        async with self.http.request(method, self.gateway.internal_url + path, json=body, headers=sent) as answer:
            data = await answer.read()
            return answer.status, msgspec.json.decode(data) if answer.content_type.endswith("json") else data


@pytest.fixture
def make_world(tmp_path: Path, migrated_file: Path) -> Callable[..., Any]:
    """A gateway by its configuration, as an asynchronous context manager; its state is on a SQLite database."""

    @asynccontextmanager
    async def make(**config: Any) -> AsyncIterator[World]:
        file = tmp_path / "chimera.db"
        if not file.exists():
            shutil.copy(migrated_file, file)
        database = open_database(file)
        try:
            async with World(tmp_path, database, **config) as world:
                yield world
        finally:
            await asyncio.to_thread(database.close)

    return make


@pytest.fixture
async def world(make_world: Callable[..., Any]) -> AsyncIterator[World]:
    """A gateway with its defaults."""
    async with make_world() as made:
        yield made
