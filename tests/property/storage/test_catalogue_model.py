"""The catalogue against a model of it: whatever is applied and deleted in whatever order, a follower sees the same."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.gateway import GatewayStorage
from chimera.adapters.storage.opening import open_database
from chimera.agents.catalogue import Applied, BatchHasFaults, DuplicateNames
from chimera.agents.compile import CompiledAgent
from chimera.platform.model import Route
from chimera.testing.definitions import compiled, refused, staged
from chimera.testing.postgresql import PostgreSQLServer

TENANTS = ("default", "other")
AGENTS = {
    (tenant, name, content): compiled(name, tenant=tenant, metadata={"description": f"Content {content}."})
    for tenant in TENANTS
    for name in ("anna", "bert", "carl")
    for content in range(3)
}


@dataclass
class Apply:
    tenant: str
    agents: list[tuple[str, int]]
    faults: int
    keep_going: bool


@dataclass
class Delete:
    tenant: str
    names: list[str]


tenants = st.sampled_from(TENANTS)
names = st.sampled_from(["anna", "bert", "carl"])
applies = st.builds(
    Apply,
    tenant=tenants,
    agents=st.lists(st.tuples(names, st.integers(0, 2)), max_size=4),
    faults=st.sampled_from([0, 0, 0, 1, 2]),
    keep_going=st.booleans(),
)
deletes = st.builds(Delete, tenant=tenants, names=st.lists(names, max_size=3))


@dataclass
class Model:
    """What should be live, by tenant and name: the revision's digest."""

    live: dict[tuple[str, str], str] = field(default_factory=dict)
    sequence: int = 0

    def apply(self, told: Apply) -> Applied | type[Exception]:
        twice = {name for name, _ in told.agents if sum(name == other for other, _ in told.agents) > 1}
        if not told.keep_going:
            if told.faults:
                return BatchHasFaults
            if twice:
                return DuplicateNames
        counts = {"created": 0, "updated": 0, "unchanged": 0}
        left_out = 0
        for name, content in told.agents:
            if name in twice:
                left_out += 1
                continue
            key, digest = (told.tenant, name), AGENTS[told.tenant, name, content].digest
            kind = "created" if key not in self.live else "unchanged" if self.live[key] == digest else "updated"
            counts[kind] += 1
            self.live[key] = digest
            self.sequence += kind != "unchanged"
        return Applied(
            **counts,
            refused=told.faults + left_out,
            same_version=counts["updated"],
            sequence=self.sequence,
            duplicates=tuple(sorted(twice)),
        )

    def delete(self, told: Delete) -> tuple[int, int]:
        gone = {(told.tenant, name) for name in told.names} & set(self.live)
        for key in gone:
            del self.live[key]
        self.sequence += len(gone)
        return len(gone), self.sequence


class Follower:
    """Keeps routes as a gateway does: by asking for what changed after the last number seen."""

    def __init__(self, store: GatewayStorage) -> None:
        self.store = store
        self.routes: dict[tuple[str, str], Route] = {}
        self.seen = 0

    async def catch_up(self, page: int) -> dict[tuple[str, str], str]:
        while changed := await self.store.changed_routes(self.seen, page):
            for route in changed:
                assert route.sequence > self.seen
                self.seen = route.sequence
                self.routes[route.tenant, route.agent] = route
        return {key: route.revision for key, route in self.routes.items() if route.status == "live"}


@dataclass
class Databases:
    """Makes databases by the name of a dialect; each example has one of its own."""

    file: Path
    server: PostgreSQLServer

    @contextmanager
    def make(self, dialect: str) -> Iterator[str]:
        if dialect == "sqlite":
            with tempfile.TemporaryDirectory() as folder:
                yield shutil.copy(self.file, folder)
            return
        url = self.server.new_database()
        yield url
        self.server.drop_database(url)


@pytest.fixture(scope="module")
def databases(migrated_file: Path, postgresql_server: PostgreSQLServer) -> Databases:
    return Databases(migrated_file, postgresql_server)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def run(name: str, steps: list[Any], in_chunks: int, page: int) -> None:
    database = open_database(name)
    catalogue, model = Catalogue(database, max_hosts=4), Model()
    follower = Follower(GatewayStorage(database))
    try:
        for step in steps:
            if isinstance(step, Delete):
                assert await catalogue.delete_agents(step.tenant, step.names) == model.delete(step)
            else:
                agents = [AGENTS[step.tenant, name, content] for name, content in step.agents]
                expected = model.apply(step)
                if isinstance(expected, Applied):
                    assert await _apply(catalogue, step, agents, in_chunks) == expected
                else:
                    with pytest.raises(expected):
                        await _apply(catalogue, step, agents, in_chunks)
            assert await follower.catch_up(page) == model.live
            assert follower.seen <= model.sequence
        for (tenant, name), digest in model.live.items():
            assert (await catalogue.history(tenant, name))[0].revision == digest
            assert await follower.store.document(digest) is not None
    finally:
        await asyncio.to_thread(database.close)


async def _apply(catalogue: Catalogue, step: Apply, agents: list[CompiledAgent], in_chunks: int) -> Applied:
    items = [*staged(*agents), *(refused(len(agents) + number) for number in range(step.faults))]
    batch = await catalogue.open_batch(step.tenant)
    for first in range(0, len(items), in_chunks):
        await catalogue.stage(step.tenant, batch, items[first : first + in_chunks])
    return await catalogue.commit(step.tenant, batch, keep_going=step.keep_going)


@settings(max_examples=30, deadline=None)
@given(st.lists(applies | deletes, max_size=12), st.integers(1, 4), st.integers(1, 3))
def test_the_catalogue_is_its_model(
    databases: Databases, kind: str, steps: list[Any], in_chunks: int, page: int
) -> None:
    with databases.make(kind) as name:
        asyncio.run(run(name, steps, in_chunks, page))
