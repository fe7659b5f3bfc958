"""The rows of sources, and webhooks, as the gateway takes them: what both the control plane and the gateway need."""

import msgspec
from sqlalchemy import ColumnElement, Connection, RowMapping, delete, select, update

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.schema.sources import git_hook, git_pin, git_source
from chimera.agents.catalogue import Pin
from chimera.delivery.git.errors import HookRefused
from chimera.delivery.git.sources import Source, SourceSpec, SourceState

HOOKS_KEPT = 7 * 86_400.0


class SourceHooks:
    """Webhooks of one database."""

    def __init__(self, database: Database) -> None:
        """Keep them in `database`."""
        self._database = database

    async def get(self, tenant: str, name: str) -> Source | None:
        """One source."""
        return await self._database.read(lambda connection: find_source(connection, tenant, name))

    async def hook(self, tenant: str, name: str, signature: str) -> None:
        """A webhook says that there is something new: look soon. Raises `HookRefused` for one that was taken before."""

        def job(connection: Connection) -> None:
            now = self._database.now(connection)
            connection.execute(delete(git_hook).where(git_hook.c.at < now - HOOKS_KEPT))
            row = {"tenant": tenant, "source": name, "signature": signature[:100], "at": now}
            insert = self._database.insert(git_hook).values(row).on_conflict_do_nothing()
            if connection.execute(insert).rowcount != 1:
                raise HookRefused("this webhook was taken before", next_step="nothing: what it told of was looked at")
            connection.execute(update(git_source).where(is_source(tenant, name)).values(due=now))

        await self._database.write(job)


def find_source(connection: Connection, tenant: str, name: str, *, lock: bool = False) -> Source | None:
    """A source; with `lock` nobody changes it before this transaction ends."""
    query = select(git_source).where(is_source(tenant, name))
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return None if row is None else source_of(row)


def is_source(tenant: str, name: str) -> ColumnElement[bool]:
    """Whether a row is this source's."""
    return (git_source.c.tenant == tenant) & (git_source.c.name == name)


def source_of(row: RowMapping) -> Source:
    """A source from its row."""
    return Source(
        tenant=row["tenant"],
        name=row["name"],
        spec=msgspec.json.decode(row["spec"], type=SourceSpec),
        state=msgspec.json.decode(row["state"], type=SourceState),
        created=row["created"],
        due=row["due"],
        version=row["version"],
    )


def columns_of(source: Source) -> dict[str, object]:
    """The row of a source."""
    return {
        "tenant": source.tenant,
        "name": source.name,
        "spec": msgspec.json.encode(source.spec).decode(),
        "state": msgspec.json.encode(source.state).decode(),
        "created": source.created,
        "due": source.due,
        "version": source.version,
    }


def pins_of(connection: Connection, tenant: str, name: str, sequence: int | None = None) -> dict[int, Pin]:
    """The pins of an agent by the sequence of the change, or the one of `sequence`."""
    c = git_pin.c
    query = select(c.sequence, c.source, c.repository, c.commit).where((c.tenant == tenant) & (c.agent == name))
    if sequence is not None:
        query = query.where(c.sequence == sequence)
    return {
        row.sequence: Pin(source=row.source, repository=row.repository, commit=row.commit)
        for row in connection.execute(query)
    }
