"""What the gateway reads and writes: routes, revisions, sessions, usage (the ports of `chimera.gateway.ports`).

Look-ups by key take 20 to 60 µs with what they decode, so they run in the event loop; pages of routes run in a thread.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Engine, bindparam, case, delete, func, select, update
from sqlalchemy.dialects.sqlite import Insert, insert

from chimera.adapters.storage.database import reading
from chimera.adapters.storage.prepared import Prepared
from chimera.adapters.storage.schema import agent, bundle, cell, revision, session, usage
from chimera.adapters.storage.writer import Writer
from chimera.gateway.errors import SessionConflict
from chimera.gateway.ports import StoredSession, Usage
from chimera.platform.model import CellSpec, Route, RuntimeClass
from chimera_host.contract.call import SessionState

_STATE = msgspec.json.Decoder(SessionState)
_DESCRIPTION = 200


class _Canonical(Struct, frozen=True):
    """The part of a canonical form that hosts get; it is passed on as it is written there."""

    agent: msgspec.Raw


_CANONICAL = msgspec.json.Decoder(_Canonical)


class GatewayStorage:
    """The gateway's four ports on one database."""

    def __init__(self, engine: Engine, writer: Writer) -> None:
        """Read through `engine`, write through `writer`."""
        self._engine = engine
        self._writer = writer
        the_session = (
            (session.c.tenant == bindparam("the_tenant"))
            & (session.c.agent == bindparam("the_agent"))
            & (session.c.session == bindparam("the_session"))
        )
        self._document = Prepared(
            engine, select(revision.c.canonical).where(revision.c.digest == bindparam("the_digest")).limit(1)
        )
        self._bundle = Prepared(
            engine, select(bundle.c.data).where(bundle.c.digest == bindparam("the_digest")).limit(1)
        )
        self._load = Prepared(engine, select(session.c.version, session.c.state, session.c.updated).where(the_session))
        columns = [column.name for column in session.c]
        self._create = Prepared(engine, insert(session).on_conflict_do_nothing(), columns)
        before = the_session & (session.c.version == bindparam("before"))
        changed: dict[str, Any] = {name: bindparam(f"new_{name}") for name in ("version", "state", "updated")}
        self._advance = Prepared(engine, update(session).where(before).values(changed))
        self._erase = Prepared(engine, delete(session).where(the_session))
        self._add = Prepared(engine, _adding(), [column.name for column in usage.c])

    async def changed_routes(self, after: int, limit: int) -> Sequence[Route]:
        """See `RouteSource`."""
        return await asyncio.to_thread(self._changed_routes, after, limit)

    async def cell(self, cell_id: str) -> CellSpec | None:
        """See `RouteSource`."""
        with reading(self._engine) as connection:
            return read_cell(connection, cell_id)

    async def document(self, digest: str) -> bytes | None:
        """See `RevisionSource`."""
        row = self._document.one(self._engine, the_digest=digest)
        return None if row is None else bytes(_CANONICAL.decode(row[0]).agent)

    async def bundle(self, digest: str) -> bytes | None:
        """See `RevisionSource`."""
        row = await asyncio.to_thread(self._bundle.one, self._engine, the_digest=digest)
        return None if row is None else row[0]

    async def load_session(self, tenant: str, agent: str, session: str) -> StoredSession | None:
        """See `SessionStore`."""
        row = self._load.one(self._engine, the_tenant=tenant, the_agent=agent, the_session=session)
        if row is None:
            return None
        version, state, updated = row
        return StoredSession(
            tenant=tenant, agent=agent, session=session, version=version, state=_STATE.decode(state), updated=updated
        )

    async def save_session(self, session: StoredSession) -> None:
        """See `SessionStore`."""
        await self._writer.submit(lambda connection: self._save_session(connection, session))

    async def delete_session(self, tenant: str, agent: str, session: str) -> bool:
        """See `SessionStore`."""
        return await self._writer.submit(
            lambda connection: self._erase.run(connection, the_tenant=tenant, the_agent=agent, the_session=session) > 0
        )

    async def add_usage(self, rows: Sequence[Usage]) -> None:
        """See `UsageStore`."""
        if rows:
            added = [msgspec.structs.asdict(row) for row in rows]
            await self._writer.submit(lambda connection: self._add.run_many(connection, added))

    async def usage_of_day(self, day: str) -> Sequence[Usage]:
        """See `UsageStore`."""
        return await asyncio.to_thread(self._usage_of_day, day)

    def _usage_of_day(self, day: str) -> list[Usage]:
        with reading(self._engine) as connection:
            found = connection.execute(select(usage).where(usage.c.day == day)).mappings().all()
        return [Usage(**row) for row in found]

    def _save_session(self, connection: Connection, saved: StoredSession) -> None:
        state = msgspec.json.encode(saved.state)
        if saved.version == 1:
            done = self._create.run(
                connection,
                tenant=saved.tenant,
                agent=saved.agent,
                session=saved.session,
                version=1,
                state=state,
                updated=saved.updated,
            )
        else:
            done = self._advance.run(
                connection,
                the_tenant=saved.tenant,
                the_agent=saved.agent,
                the_session=saved.session,
                before=saved.version - 1,
                new_version=saved.version,
                new_state=state,
                new_updated=saved.updated,
            )
        if done != 1:
            raise SessionConflict(
                f"session {saved.session!r} was saved by somebody else meanwhile",
                next_step="read the session again and repeat the call",
                agent=saved.agent,
            )

    def _changed_routes(self, after: int, limit: int) -> list[Route]:
        query = select(agent).where(agent.c.sequence > after).order_by(agent.c.sequence).limit(limit)
        with reading(self._engine) as connection:
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
                description=row.description[:_DESCRIPTION],
                max_tokens_per_day=row.tokens_per_day,
                max_usd_per_day=row.usd_per_day,
                unservable=row.unservable,
                tags=tuple(row.tags.split("\n")) if row.tags else (),
            )
            for row in rows
        ]


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


def _adding() -> Insert:
    statement = insert(usage)
    added = statement.excluded
    either = usage.c.usd.is_not(None) | added.usd.is_not(None)
    total = func.coalesce(usage.c.usd, 0.0) + func.coalesce(added.usd, 0.0)
    return statement.on_conflict_do_update(
        index_elements=["tenant", "agent", "model", "day"],
        set_={
            "calls": usage.c.calls + added.calls,
            "prompt_tokens": usage.c.prompt_tokens + added.prompt_tokens,
            "completion_tokens": usage.c.completion_tokens + added.completion_tokens,
            "usd": case((either, total)),
        },
    )
