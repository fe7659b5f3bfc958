"""What the gateway reads and writes: routes, revisions, sessions, usage (the ports of `chimera.gateway.ports`).

Reads are single look-ups by key in a memory-mapped file (tens of microseconds), so they run in the event loop; pages
of routes run in a thread.
"""

import asyncio
from collections.abc import Sequence

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from chimera.adapters.storage.schema import agent, bundle, cell, revision, session, usage
from chimera.adapters.storage.writer import Writer
from chimera.agents.compile import document_bytes, read_canonical
from chimera.gateway.errors import SessionConflict
from chimera.gateway.ports import StoredSession, Usage
from chimera.platform.model import CellSpec, Route, RuntimeClass
from chimera_host.contract.call import SessionState


class GatewayStorage:
    """The gateway's four ports on one database."""

    def __init__(self, engine: Engine, writer: Writer) -> None:
        """Read through `engine`, write through `writer`."""
        self._engine = engine
        self._writer = writer

    async def changed_routes(self, after: int, limit: int) -> Sequence[Route]:
        """See `RouteSource`."""
        return await asyncio.to_thread(self._changed_routes, after, limit)

    async def cell(self, cell_id: str) -> CellSpec | None:
        """See `RouteSource`."""
        with self._engine.connect() as connection:
            return read_cell(connection, cell_id)

    async def document(self, digest: str) -> bytes | None:
        """See `RevisionSource`."""
        query = select(revision.c.canonical).where(revision.c.digest == digest).limit(1)
        with self._engine.connect() as connection:
            data = connection.execute(query).scalar()
        return None if data is None else document_bytes(read_canonical(data))

    async def bundle(self, digest: str) -> bytes | None:
        """See `RevisionSource`."""
        query = select(bundle.c.data).where(bundle.c.digest == digest).limit(1)
        with self._engine.connect() as connection:
            data: bytes | None = connection.execute(query).scalar()
        return data

    async def load_session(self, tenant: str, agent: str, session: str) -> StoredSession | None:
        """See `SessionStore`."""
        table = _session_table
        query = select(table.c.version, table.c.state, table.c.updated).where(_is_session(tenant, agent, session))
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        state = msgspec.json.decode(row.state, type=SessionState)
        return StoredSession(
            tenant=tenant, agent=agent, session=session, version=row.version, state=state, updated=row.updated
        )

    async def save_session(self, session: StoredSession) -> None:
        """See `SessionStore`."""
        await self._writer.submit(lambda connection: _save_session(connection, session))

    async def delete_session(self, tenant: str, agent: str, session: str) -> bool:
        """See `SessionStore`."""
        query = delete(_session_table).where(_is_session(tenant, agent, session))
        return await self._writer.submit(lambda connection: connection.execute(query).rowcount > 0)

    async def add_usage(self, rows: Sequence[Usage]) -> None:
        """See `UsageStore`."""
        if rows:
            await self._writer.submit(lambda connection: _add_usage(connection, rows))

    async def usage_of_day(self, day: str) -> Sequence[Usage]:
        """See `UsageStore`."""
        with self._engine.connect() as connection:
            found = connection.execute(select(usage).where(usage.c.day == day)).mappings().all()
        return [Usage(**row) for row in found]

    def _changed_routes(self, after: int, limit: int) -> list[Route]:
        query = select(agent).where(agent.c.sequence > after).order_by(agent.c.sequence).limit(limit)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [
            Route(
                tenant=row.tenant,
                agent=row.name,
                revision=row.revision,
                cell=row.cell,
                framework=row.framework,
                sequence=row.sequence,
                status=row.status,
                concurrency=row.concurrency,
                protocols=tuple(row.protocols.split()),
                model=row.model,
                description=row.description[:200],
                max_tokens_per_day=row.tokens_per_day,
                max_usd_per_day=row.usd_per_day,
                unservable=row.unservable,
            )
            for row in rows
        ]


_session_table = session


def read_cell(connection: Connection, cell_id: str) -> CellSpec | None:
    """A cell as desired: its class, and the highest minimum of its live agents."""
    row = connection.execute(select(cell).where(cell.c.id == cell_id)).one_or_none()
    if row is None:
        return None
    live = (agent.c.cell == cell_id) & (agent.c.status == "live")
    least = connection.execute(select(func.max(agent.c.min_instances)).where(live)).scalar()
    return CellSpec(
        cell=cell_id,
        runtime_class=msgspec.json.decode(row.runtime_class, type=RuntimeClass),
        min_hosts=least or 0,
        max_hosts=row.max_hosts,
        target=row.target,
        idle_timeout=row.idle_timeout,
    )


def _is_session(tenant: str, agent_name: str, name: str) -> ColumnElement[bool]:
    return (session.c.tenant == tenant) & (session.c.agent == agent_name) & (session.c.session == name)


def _save_session(connection: Connection, saved: StoredSession) -> None:
    values = {"version": saved.version, "state": msgspec.json.encode(saved.state), "updated": saved.updated}
    if saved.version == 1:
        key = {"tenant": saved.tenant, "agent": saved.agent, "session": saved.session}
        done = connection.execute(insert(session).values(**key, **values).on_conflict_do_nothing())
    else:
        before = _is_session(saved.tenant, saved.agent, saved.session) & (session.c.version == saved.version - 1)
        done = connection.execute(update(session).where(before).values(**values))
    if done.rowcount != 1:
        raise SessionConflict(
            f"session {saved.session!r} was saved by somebody else meanwhile",
            next_step="read the session again and repeat the call",
        )


def _add_usage(connection: Connection, rows: Sequence[Usage]) -> None:
    statement = insert(usage)
    added = statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=["tenant", "agent", "model", "day"],
        set_={
            "calls": usage.c.calls + added.calls,
            "prompt_tokens": usage.c.prompt_tokens + added.prompt_tokens,
            "completion_tokens": usage.c.completion_tokens + added.completion_tokens,
            "usd": func.coalesce(usage.c.usd, 0.0) + func.coalesce(added.usd, 0.0),
        },
    )
    connection.execute(statement, [msgspec.structs.asdict(row) for row in rows])
