"""What environments hold of people: copies of what they said, which staging replays (`SubjectPart`).

A replayed call carries the person whose it was, so that whoever looks for all that is kept of a person in a tenant
finds the copies in its environments too, and erases them. They go by themselves soon after their environment.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.schema.state import run
from chimera.adapters.storage.schema.tasks import task
from chimera.adapters.storage.schema.trials import environment
from chimera.gateway.state.model import SubjectCounts
from chimera.gateway.state.ports import Record, SubjectPart, SubjectStore


class StoredCopies:
    """The copies of people's inputs in the environments of tenants, on one database."""

    def __init__(self, database: Database, tasks: SubjectPart, subjects: SubjectStore) -> None:
        """Look in `database`; environments are tenants, so `tasks` and `subjects` know what they hold of a person."""
        self._database = database
        self._tasks = tasks
        self._subjects = subjects

    async def count(self, tenant: str, subject: str) -> int:
        """See `SubjectPart`."""
        return sum([await self._tasks.count(name, subject) for name in await self._those_of(tenant, subject)])

    async def records(self, tenant: str, subject: str, after: str, limit: int) -> Sequence[Record]:
        """See `SubjectPart`."""
        found: list[Record] = []
        for name in await self._those_of(tenant, subject):
            found += await self._tasks.records(name, subject, after, limit)
        return sorted(found, key=lambda record: str(record["id"]))[:limit]

    async def erase(self, tenant: str, subject: str, limit: int) -> int:
        """See `SubjectPart`; the runs of the copies go with them."""
        count = 0
        for name in await self._those_of(tenant, subject):
            count += await self._tasks.erase(name, subject, limit)
            while await self._subjects.erase(name, subject, limit) != SubjectCounts():
                pass
        return count

    async def _those_of(self, tenant: str, subject: str) -> Sequence[str]:
        """The environments of a tenant that hold something of a person."""
        its = select(environment.c.name).where(environment.c.tenant == tenant)
        of_tasks = select(task.c.tenant).where(task.c.tenant.in_(its) & (task.c.subject == subject))
        of_runs = select(run.c.tenant).where(run.c.tenant.in_(its) & (run.c.subject == subject))

        def read(connection: Connection) -> list[str]:
            return sorted(connection.execute(of_tasks.union(of_runs)).scalars().all())

        return await self._database.read(read)
