"""What following a branch costs: `python -m benchmarks.sync`.

A repository of 12,000 definitions in 40 folders is made with git and served by `git http-backend` on loopback. The
control plane's own parts follow it: worker process, compiler, database. Measured is one look each: the first (all of
it), one that finds nothing new, a commit that changes 1,000 definitions, one that changes a single one, and the mending
of ten agents that somebody changed. The time is from the look's beginning to the commit of the transaction that makes
all of it live; `fetched` is what the server sent.
"""

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from chimera.adapters.git.workers import WorkerRepositories
from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.changes.people import StoredPeople
from chimera.adapters.storage.changes.store import ChangeStorage
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.sources import SourceStorage
from chimera.agents.catalogue import StagedItem
from chimera.agents.compile import compile_definition
from chimera.agents.validate import check_text
from chimera.bootstrap.sync_parts import ByPolicy, unpacked
from chimera.delivery.git.follower import LEASE, Follower
from chimera.delivery.git.settings import SyncSettings
from chimera.delivery.git.sources import SourceSpec
from chimera.delivery.service import Changes
from chimera.kernel.clock import SystemClock
from chimera.testing.git_server import GitServer
from chimera.testing.repositories import AGENT, Repository

TENANT, NAME = "default", "catalogue"
FOLDERS, DRIFTED = 40, 10


def definition(number: int, text: str) -> str:
    """One of the definitions."""
    return AGENT.format(name=f"agent-{number:05d}", description=f"{text} {number}.")


def path(number: int) -> str:
    """Where it stands."""
    return f"agents/team-{number % FOLDERS:02d}/agent-{number:05d}.yaml"


class Measurement:
    """One repository that is followed, and the times of each look."""

    def __init__(self, scratch: Path, database: Database, server: GitServer) -> None:
        """Keep copies in `scratch`."""
        clock = SystemClock()
        self.database = database
        self.server = server
        self.catalogue = Catalogue(database, max_hosts=2)
        self.sources = SourceStorage(database, self.catalogue)
        changes = Changes(ChangeStorage(database, self.catalogue), StoredPeople(database), clock, lambda: None)
        settings = SyncSettings(hosts=(server.host,), insecure_hosts=(server.host,))
        self.repositories = WorkerRepositories(scratch / "copies", settings)
        self.follower = Follower(
            self.sources,
            self.repositories,
            ByPolicy(self.sources, changes),
            clock,
            settings,
            secrets=_no_secret,
            unpack=unpacked,
            changed=lambda: None,
        )
        self.rows: list[tuple[str, float, int, str]] = []

    async def look(self, what: str, expected: str) -> None:
        """Look once, and note how long it took."""
        lease = await StoredLeases(self.database).acquire(LEASE, "benchmark", 3600.0)
        source = await self.sources.get(TENANT, NAME)
        assert lease is not None and source is not None
        sent, began = self.server.sent, time.perf_counter()
        await self.follower.follow(source, lease)
        seconds = time.perf_counter() - began
        found = await self.sources.get(TENANT, NAME)
        assert found is not None and found.state.phase == "current", found
        if found.state.commit != expected or found.state.drifted:
            raise AssertionError(found.state)
        self.rows.append((what, seconds, self.server.sent - sent, f"{os.getloadavg()[0]:.1f}"))

    async def drift(self) -> None:
        """Change ten agents beside the repository."""
        items = [
            StagedItem(
                position=number,
                source="",
                compiled=compile_definition(check_text(definition(number, "Changed by hand")), tenant=TENANT),
            )
            for number in range(DRIFTED)
        ]
        await self.catalogue.apply(TENANT, items, keep_going=False, expect=None, by="key:somebody")


async def _no_secret(_: str) -> str:
    raise AssertionError


async def measure(scratch: Path, agents: int, changed: int, database_name: str) -> Measurement:
    """All looks, one after the other."""
    repository = Repository(scratch / "served/catalogue.git")
    first = repository.commit({path(number): definition(number, "Answers questions about") for number in range(agents)})
    # As a host keeps it: packed. Loose objects would be packed at each fetch.
    repository.git("repack", "-adq")
    server = GitServer(repository.folder.parent).start()
    database = open_database(database_name)
    await migrate(database)
    made = Measurement(scratch, database, server)
    spec = SourceSpec(url=server.url("catalogue.git/.git"), drift="mend")
    await made.sources.put(TENANT, NAME, spec, "key:benchmark")
    try:
        await made.look(f"the first look: {agents:,} definitions", first)
        await made.look("drift looked for after it", first)
        await made.look("nothing new", first)
        step = max(1, agents // changed)
        some = range(0, step * changed, step)
        second = repository.commit({path(number): definition(number, "Answers better about") for number in some})
        await made.look(f"a commit that changes {changed:,}", second)
        third = repository.commit({path(1): definition(1, "Answers at last about")})
        await made.look("a commit that changes one", third)
        await made.drift()
        await made.look(f"{DRIFTED} agents mended", third)
    finally:
        await made.repositories.aclose()
        server.stop()
        await asyncio.to_thread(database.close)
    return made


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sync", description=main.__doc__)
    parser.add_argument("--agents", type=int, default=12_000, help="definitions in the repository")
    parser.add_argument("--changed", type=int, default=1_000, help="definitions that the commit changes")
    parser.add_argument("--database", default="", help="a server's URL; by default a SQLite file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chimera-sync-") as scratch:
        name = options.database or str(Path(scratch) / "chimera.db")
        made = asyncio.run(measure(Path(scratch), options.agents, options.changed, name))
    table = Table(title="Following a branch", box=None, title_justify="left")
    for heading in ("look", "seconds", "fetched", "load"):
        table.add_column(heading, justify="left" if heading == "look" else "right")
    for what, seconds, sent, load in made.rows:
        table.add_row(what, f"{seconds:.2f}", f"{sent:,}", load)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
