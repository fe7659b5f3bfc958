"""Environments in the database: which there are, and what they leave behind."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import check_lease
from chimera.adapters.storage.removing import delete_first
from chimera.adapters.storage.schema.catalogue import cell
from chimera.adapters.storage.schema.tables import metadata
from chimera.adapters.storage.schema.trials import environment
from chimera.adapters.storage.sequence import hold_sequence
from chimera.delivery.trials.environment import Environment
from chimera.delivery.trials.errors import TooManyEnvironments
from chimera.kernel.leases import Lease

KEPT = frozenset({"event", "audit_entry", "environment"})
"""Tables whose rows of an environment stay for as long as all rows of theirs do: what was done is on record."""


class StoredEnvironments:
    """The port `EnvironmentStore`."""

    def __init__(self, database: Database) -> None:
        """Keep them in `database`."""
        self._database = database
        self._put = database.prepared_insert(environment, database.upsert(environment, ("name",)))

    async def open(self, wanted: Environment, *, most: int, held: Lease | None = None) -> Environment:
        """See `EnvironmentStore`."""

        def job(connection: Connection) -> Environment:
            hold_sequence(connection)  # two that are opened at once are counted one after the other
            if held is not None:
                check_lease(connection, held)
            c = environment.c
            others = (c.tenant == wanted.tenant) & (c.name != wanted.name) & c.closed.is_(None)
            count = int(connection.execute(select(func.count()).select_from(environment).where(others)).scalar() or 0)
            if count >= most:
                raise TooManyEnvironments(
                    f"tenant {wanted.tenant} has {count} environments, and may have {most}",
                    next_step="wait until tests or staging of other changes are over, or raise trials.environments",
                    retry_after=5.0,
                )
            self._put.run(
                connection,
                name=wanted.name,
                tenant=wanted.tenant,
                purpose=wanted.purpose,
                key=wanted.key,
                created=wanted.created,
                expires=wanted.expires,
                closed=None,
            )
            return wanted

        return await self._database.write(job)

    async def all(self, tenant: str | None = None) -> Sequence[Environment]:
        """See `EnvironmentStore`."""
        query = select(environment).order_by(environment.c.created, environment.c.name)
        if tenant is not None:
            query = query.where(environment.c.tenant == tenant)
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [Environment(**row) for row in rows]

    async def close(self, name: str, now: float, *, held: Lease | None = None) -> None:
        """See `EnvironmentStore`."""
        statement = update(environment).where((environment.c.name == name) & environment.c.closed.is_(None))

        def job(connection: Connection) -> None:
            if held is not None:
                check_lease(connection, held)
            connection.execute(statement.values(closed=now))

        await self._database.write(job)

    async def purge(self, name: str, limit: int) -> int:
        """See `EnvironmentStore`."""
        closed = select(environment.c.closed).where(environment.c.name == name).with_for_update()

        def job(connection: Connection) -> int:
            if connection.execute(closed).scalar() is None:
                return 0
            count = 0
            for table in reversed(metadata.sorted_tables):
                if "tenant" in table.c and table.name not in KEPT:
                    order: Any = next(iter(table.primary_key.columns))
                    count += delete_first(connection, table, table.c.tenant == name, order, limit)
            count += connection.execute(delete(cell).where(cell.c.id.startswith(f"{name}-", autoescape=True))).rowcount
            if not count:
                connection.execute(delete(environment).where(environment.c.name == name))
            return count

        return await self._database.write(job)
