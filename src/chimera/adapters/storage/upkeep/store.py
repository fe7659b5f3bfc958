"""Upkeep's side of the database (`UpkeepStore`)."""

import time
from collections.abc import Sequence

from msgspec.structs import asdict
from sqlalchemy import Connection, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import check_lease
from chimera.adapters.storage.schema.leases import lease as lease_table
from chimera.adapters.storage.schema.upkeep import upkeep
from chimera.adapters.storage.upkeep.measure import measure
from chimera.adapters.storage.upkeep.shapes import Expiring, Job, Key, Searched
from chimera.kernel.leases import Lease
from chimera.platform.upkeep.model import START, Cursor, Kind, Measure, Record, Step
from chimera.platform.upkeep.service import LEASE

_APART = ("kind", "removed")
"""Columns that a note leaves as they are: the key, and what is counted where it happens."""


_PATIENCE = 10.0
"""On PostgreSQL nobody waits for a step, and a dozen round trips to the server are most of a short one."""


class UpkeepStorage:
    """Upkeep on one database."""

    def __init__(self, database: Database, jobs: Sequence[Job]) -> None:
        """Do `jobs` on `database`."""
        self._database = database
        self._jobs = {job.kind: job for job in jobs}
        noted = database.insert(upkeep)
        told = {column.name: noted.excluded[column.name] for column in upkeep.c if column.name not in _APART}
        self._put = database.prepared_insert(upkeep, noted.on_conflict_do_update(index_elements=["kind"], set_=told))
        more = {"removed": upkeep.c.removed + noted.excluded.removed}
        self._add = database.prepared_insert(upkeep, noted.on_conflict_do_update(index_elements=["kind"], set_=more))

    @property
    def kinds(self) -> Sequence[Kind]:
        """See `UpkeepStore`."""
        return [Kind(name=job.kind, keep=job.keep, every=job.every) for job in self._jobs.values()]

    @property
    def patience(self) -> float:
        """See `UpkeepStore`."""
        return 1.0 if self._database.dialect == "sqlite" else _PATIENCE

    async def now(self) -> float:
        """See `UpkeepStore`."""
        return await self._database.read(self._database.now)

    async def records(self) -> Sequence[Record]:
        """See `UpkeepStore`."""
        rows = await self._database.read(lambda connection: connection.execute(select(upkeep)).mappings().all())
        stored = {row["kind"]: Record(**row) for row in rows}
        return [stored.get(kind) or Record(kind=kind) for kind in self._jobs]

    async def worker(self) -> str | None:
        """See `UpkeepStore`."""

        def look(connection: Connection) -> str | None:
            row = connection.execute(select(lease_table).where(lease_table.c.name == LEASE)).one_or_none()
            return None if row is None or row.expires <= self._database.now(connection) else str(row.owner)

        return await self._database.read(look)

    async def step(self, kind: str, limit: int, after: Cursor, lease: Lease) -> Step:
        """See `UpkeepStore`."""
        work = self._jobs[kind].work
        if isinstance(work, Searched):
            return await self._search(kind, work, limit, after, lease)
        return await self._database.write(lambda connection: self._expire(connection, kind, work, limit, lease))

    async def measure(self, kind: str) -> Measure:
        """See `UpkeepStore`."""
        job = self._jobs[kind]

        def look(connection: Connection) -> Measure:
            rows, size = measure(connection, job.tables)
            return Measure(rows=rows, bytes=size, oldest=job.oldest(connection))

        return await self._database.read(look)

    async def note(self, record: Record, lease: Lease) -> None:
        """See `UpkeepStore`."""

        def job(connection: Connection) -> None:
            check_lease(connection, lease)
            self._put.run(connection, **asdict(record))

        await self._database.write(job)

    async def ask(self, kinds: Sequence[str]) -> float:
        """See `UpkeepStore`."""
        statement = self._database.insert(upkeep)
        statement = statement.on_conflict_do_update(index_elements=["kind"], set_={"due": statement.excluded.due})

        def job(connection: Connection) -> float:
            now = self._database.now(connection)
            connection.execute(statement, [asdict(Record(kind=kind, due=now)) for kind in kinds])
            return now

        return await self._database.write(job)

    async def due(self, kind: str, most: int) -> int:
        """See `UpkeepStore`."""
        job = self._jobs[kind]
        if job.keep is None:
            return 0
        return await self._database.read(lambda connection: self._due(connection, job.work, most))

    def _due(self, connection: Connection, work: Expiring | Searched, most: int) -> int:
        now = self._database.now(connection)
        if isinstance(work, Expiring):
            return work.due(connection, now, most)
        count, after = 0, START
        while count < most:
            keys, through = work.find(connection, now, after)
            count += len(keys)
            if through is None:
                break
            after = through
        return min(count, most)

    def _expire(self, connection: Connection, kind: str, work: Expiring, limit: int, lease: Lease) -> Step:
        began = time.perf_counter()
        check_lease(connection, lease)
        removed = work.expire(connection, self._database.now(connection), limit)
        self._count(connection, kind, removed)
        return Step(removed=removed, seconds=time.perf_counter() - began, after=None if removed < limit else START)

    def _count(self, connection: Connection, kind: str, removed: int) -> None:
        if removed:
            self._add.run(connection, **asdict(Record(kind=kind, removed=removed)))

    async def _search(self, kind: str, work: Searched, limit: int, after: Cursor, lease: Lease) -> Step:
        """Remove some of what was found, or search on. The cursor is what is left of that, and where the search is."""
        found: list[Key]
        found, through = after or ([], START)
        began = time.perf_counter()
        if not found:

            def find(connection: Connection) -> tuple[list[Key], Cursor | None]:
                return work.find(connection, self._database.now(connection), through)

            found, through = await self._database.read(find)
            return Step(removed=0, seconds=time.perf_counter() - began, after=_on(found, through))
        some = found[:limit]

        def remove(connection: Connection) -> tuple[int, float]:
            began = time.perf_counter()
            check_lease(connection, lease)
            removed = work.remove(connection, self._database.now(connection), some)
            self._count(connection, kind, removed)
            return removed, time.perf_counter() - began

        removed, seconds = await self._database.write(remove)
        return Step(removed=removed, seconds=seconds, after=_on(found[limit:], through))


def _on(found: list[Key], through: Cursor | None) -> Cursor | None:
    return None if not found and through is None else (found, through)
