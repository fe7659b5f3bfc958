"""The control plane's application on a Unix socket, in the test's own event loop."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.conditions import StoredConditions
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.sources import SourceStorage
from chimera.adapters.storage.upkeep.jobs import make_jobs
from chimera.adapters.storage.upkeep.store import UpkeepStorage
from chimera.bootstrap.delivery_parts import make_delivery
from chimera.bootstrap.evidence_parts import make_evidence
from chimera.bootstrap.trial_parts import make_trials
from chimera.delivery.evidence.service import Evidence
from chimera.delivery.git.settings import SyncSettings
from chimera.delivery.pipeline import Pipeline
from chimera.delivery.rollout.service import RolloutService
from chimera.entrypoints.control_plane.app import ControlPlaneApp
from chimera.entrypoints.control_plane.rollouts import RolloutHandlers
from chimera.entrypoints.control_plane.sources import SourceHandlers
from chimera.platform.upkeep.service import Upkeep
from chimera.platform.upkeep.settings import RetentionSettings, UpkeepSettings
from chimera.testing.clock import ManualClock

TENANT = "/v1/tenants/default"


class Answer:
    """An answer, read."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Client:
    """Asks the control plane; `changes` counts how often it said that something changed."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.catalogue: Catalogue
        self.conditions: StoredConditions
        self.pipeline: Pipeline
        self.evidence: Evidence
        self.rollouts: RolloutService
        self.database: Database
        self.runner: web.AppRunner
        self.changes = 0

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://control-plane{path if path.startswith('/') else f'{TENANT}/{path}'}"
        async with self._session.request(method, url, data=data, headers=named) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    def changed(self) -> None:
        self.changes += 1


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def client(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Client]:
    database = open_database(tmp_path / "chimera.db")
    await migrate(database)
    socket = str(tmp_path / "s")
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket)) as session:
        made = Client(session)
        catalogue = Catalogue(database, max_hosts=4, clock=clock)
        made.catalogue = catalogue
        store = UpkeepStorage(database, make_jobs(RetentionSettings()))
        upkeep = Upkeep(store, clock, UpkeepSettings())
        trials = make_trials(database, catalogue, made.changed, {}, {})
        made.conditions = StoredConditions(database, "tests")
        delivery = make_delivery(database, catalogue, {}, made.changed, max_hosts=4, rolls=False)
        made.pipeline, made.rollouts = delivery.pipeline, delivery.rollouts
        rollouts = RolloutHandlers(delivery.rollouts, delivery.changes)
        sources = SourceHandlers(SourceStorage(database, catalogue, clock), SyncSettings(hosts=("git.example.com",)))
        made.evidence = make_evidence(database, catalogue, home=str(tmp_path), clock=clock)
        app = ControlPlaneApp(
            catalogue,
            made.changed,
            upkeep,
            made.conditions,
            delivery.changes,
            sources,
            rollouts,
            trials=trials.handlers,
            evidence=made.evidence,
        ).make()
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.UnixSite(runner, socket).start()
        made.database, made.runner = database, runner
        yield made
        await runner.cleanup()
    database.close()


@pytest.fixture
async def url(client: Client) -> str:
    """The application, listening for the command line."""
    await web.TCPSite(client.runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{client.runner.addresses[-1][1]}"


@pytest.fixture
async def losing(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The application behind something that passes all on, and loses the first answer to each Idempotency-Key."""
    monkeypatch.setattr("chimera.entrypoints.cli.client.LEAST_PAUSE", 0.001)
    lost: set[str] = set()
    async with aiohttp.ClientSession() as session:

        async def passed(request: web.Request) -> web.Response:
            key = request.headers.get("Idempotency-Key", "")
            headers = {"Idempotency-Key": key} if key else {}
            data = await request.read()
            async with session.request(request.method, url + request.path_qs, data=data, headers=headers) as answer:
                content, kind, status = await answer.read(), answer.content_type, answer.status
            if key and key not in lost:
                lost.add(key)
                assert request.transport is not None
                request.transport.abort()
            return web.Response(body=content, status=status, content_type=kind)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", passed)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[-1][1]}"
        assert lost, "some answer was lost"
        await runner.cleanup()
