"""Sessions in the database (`SessionStore`).

A save is one conditional statement, so that of two writers of one version one wins, on both databases. Loading is a
look-up by key, 20 to 60 µs with decoding on SQLite.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, or_, select, tuple_, update

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.removing import Keys, delete_keys, is_one_of
from chimera.adapters.storage.schema.state import checkpoint, checkpoint_write, run, session, step, stored_answer
from chimera.adapters.storage.state.telling import note, session_subject, tell
from chimera.gateway.errors import SessionConflict
from chimera.gateway.state.model import SessionKey, SessionSummary, StoredSession
from chimera.gateway.state.ports import SessionFilter
from chimera.kernel.clock import Clock, SystemClock
from chimera_host.contract.call import SessionState

_STATE = msgspec.json.Decoder(SessionState)
_LOADED = tuple(column for column in session.c if column.name not in ("tenant", "agent", "session", "bytes"))
_CHANGED = ("version", "state", "updated", "subject", "ttl", "expires", "bytes", "revision")


class SessionStorage:
    """The store of sessions on one database."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        """Compile the statements for `database`."""
        self._database = database
        self._clock = clock or SystemClock()
        mine = (
            (session.c.tenant == bindparam("the_tenant"))
            & (session.c.agent == bindparam("the_agent"))
            & (session.c.session == bindparam("the_session"))
        )
        self._load = database.prepared(select(*_LOADED).where(mine))
        self._version = database.prepared(select(session.c.version).where(mine))
        self._create = database.prepared_insert(session, database.insert(session).on_conflict_do_nothing())
        before = mine & (session.c.version == bindparam("before")) & (session.c.incarnation == bindparam("the_one"))
        changed: dict[str, Any] = {name: bindparam(f"new_{name}") for name in _CHANGED}
        self._advance = database.prepared(update(session).where(before).values(changed))

    async def load_session(self, tenant: str, agent: str, session: str) -> StoredSession | None:
        """See `SessionStore`."""
        return await self._database.read(
            lambda connection: self.load_in(connection, tenant, agent, session), quick=True
        )

    async def save_session(self, session: StoredSession, by: str = "") -> None:
        """See `SessionStore`."""
        await self._database.write(lambda connection: self.save_in(connection, session, by))

    async def delete_session(
        self, tenant: str, agent: str, session: str, *, expected: StoredSession | None = None, by: str = ""
    ) -> bool:
        """See `SessionStore`."""
        key = SessionKey(tenant=tenant, agent=agent, session=session)
        now = self._clock.wall()

        def job(connection: Connection) -> bool:
            found = connection.execute(_locked(key)).one_or_none()
            if found is None:
                return False
            if expected is not None and (expected.version, expected.incarnation) != tuple(found):
                raise changed(key, int(found.version))
            erase_session(connection, key)
            subject = session_subject(key.agent, key.session)
            data = {"agent": key.agent, "session": key.session, "by": by}
            tell(connection, "session.deleted", key.tenant, subject, now, data)
            note(connection, "session:delete", key.tenant, subject, now, by)
            return True

        return await self._database.write(job)

    async def sessions(self, wanted: SessionFilter, now: float) -> Sequence[SessionSummary]:
        """See `SessionStore`."""
        return await self._database.read(lambda connection: _page(connection, wanted, now))

    # -- inside others' transactions -----------------------------------------------------------------------------------

    def load_in(self, connection: Connection, tenant: str, agent: str, name: str) -> StoredSession | None:
        """The session as stored."""
        row = self._load.one(connection, the_tenant=tenant, the_agent=agent, the_session=name)
        if row is None:
            return None
        values = {column.name: value for column, value in zip(_LOADED, row, strict=True)}
        values["state"] = _STATE.decode(values["state"])
        return StoredSession(tenant=tenant, agent=agent, session=name, **values)

    def version_in(self, connection: Connection, tenant: str, agent: str, name: str) -> int:
        """The session's version; 0 where there is none."""
        row = self._version.one(connection, the_tenant=tenant, the_agent=agent, the_session=name)
        return 0 if row is None else int(row[0])

    def save_in(self, connection: Connection, saved: StoredSession, by: str, hops: int = 0) -> None:
        """Commit the next version; raises `SessionConflict`."""
        state = msgspec.json.encode(saved.state)
        row = {**msgspec.structs.asdict(saved), "state": state, "bytes": len(state)}
        if saved.version == 1:
            done = self._create.run(connection, **row)
            if done != 1 and self._bury(connection, saved):
                done = self._create.run(connection, **row)
        else:
            done = self._advance.run(
                connection,
                the_tenant=saved.tenant,
                the_agent=saved.agent,
                the_session=saved.session,
                before=saved.version - 1,
                the_one=saved.incarnation,
                **{f"new_{name}": row[name] for name in _CHANGED},
            )
        if done != 1:
            raise changed(saved.key, self.version_in(connection, saved.tenant, saved.agent, saved.session))
        tell(
            connection,
            "session.created" if saved.version == 1 else "session.updated",
            saved.tenant,
            session_subject(saved.agent, saved.session),
            saved.updated,
            {"agent": saved.agent, "session": saved.session, "version": saved.version, "by": by},
            hops=hops,
        )

    def _bury(self, connection: Connection, saved: StoredSession) -> bool:
        """Remove the session of this name that has ended."""
        over = (session.c.expires.is_not(None)) & (session.c.expires <= saved.updated)
        found = connection.execute(select(session.c.version).where(_is(saved.key) & over)).one_or_none()
        if found is None:
            return False
        erase_session(connection, saved.key)
        return True


def changed(key: SessionKey, version: int) -> SessionConflict:
    """The session isn't at the version that was expected."""
    now = f"is at version {version} now" if version else "is not there any more"
    return SessionConflict(
        f"session {key.session!r} was changed by somebody else meanwhile and {now}",
        next_step="read the session again and repeat the call",
        agent=key.agent,
        errors=[{"session": key.session, "version": version}],
    )


def erase_session(connection: Connection, key: SessionKey) -> None:
    """Remove a session's row, its runs with all they have, and its checkpoints."""
    runs = select(run.c.run).where(
        (run.c.tenant == key.tenant) & (run.c.agent == key.agent) & (run.c.session == key.session)
    )
    erase_runs(connection, key.tenant, connection.execute(runs).scalars().all())
    erase_checkpoints(connection, key.tenant, key.agent, session_scope(key.session))
    connection.execute(delete(session).where(_is(key)))


def erase_agents(connection: Connection, tenant: str, agents: Sequence[str]) -> None:
    """Remove all sessions, runs and checkpoints of agents, with a few statements for hundreds of them."""
    for start in range(0, len(agents), 500):
        some = agents[start : start + 500]
        runs = select(run.c.run).where((run.c.tenant == tenant) & run.c.agent.in_(some))
        for of_runs in (step, stored_answer):
            connection.execute(delete(of_runs).where((of_runs.c.tenant == tenant) & of_runs.c.run.in_(runs)))
        for table in (run, checkpoint_write, checkpoint, session):
            connection.execute(delete(table).where((table.c.tenant == tenant) & table.c.agent.in_(some)))


def erase_runs(connection: Connection, tenant: str, runs: Sequence[str], *, rows: bool = True) -> None:
    """Remove steps and stored answers of `runs` and, with `rows`, the runs."""
    for start in range(0, len(runs), 500):
        some = runs[start : start + 500]
        for table in (step, stored_answer, run) if rows else (step, stored_answer):
            connection.execute(delete(table).where((table.c.tenant == tenant) & table.c.run.in_(some)))


def erase_checkpoints(
    connection: Connection,
    tenant: str,
    agent: str,
    scope: str,
    *,
    but: Sequence[str] = (),
    run: str | None = None,
) -> int:
    """Remove the checkpoints of a session or run, `but` those of some threads, or only threads of `run`; how many."""
    count = 0
    for table in (checkpoint_write, checkpoint):
        its = (table.c.tenant == tenant) & (table.c.agent == agent) & (table.c.scope == scope)
        if but:
            its &= table.c.thread.not_in(but)
        if run is not None:
            of_run = select(checkpoint.c.thread).where(
                (checkpoint.c.tenant == tenant)
                & (checkpoint.c.agent == agent)
                & (checkpoint.c.scope == scope)
                & (checkpoint.c.run == run)
            )
            its &= table.c.thread.in_(of_run)
        count = connection.execute(delete(table).where(its)).rowcount
    return count


def session_scope(session: str) -> str:
    """Whose the checkpoints of a session's runs are."""
    return f"session/{session}"


def run_scope(run: str) -> str:
    """Whose the checkpoints of a run without a session are."""
    return f"run/{run}"


def expire_sessions(connection: Connection, now: float, limit: int) -> int:
    """Remove sessions that ended before `now`, `limit` at most, with all that belongs to them; how many that were."""
    over = select(session.c.tenant, session.c.agent, session.c.session).where(session.c.expires <= now)
    found = connection.execute(over.order_by(session.c.expires).limit(limit).with_for_update(skip_locked=True)).all()
    if found:
        runs = delete(run).where(is_one_of(connection, (run.c.tenant, run.c.agent, run.c.session), found))
        erase_parts(connection, connection.execute(runs.returning(run.c.tenant, run.c.run)).all())
        scopes = [(one.tenant, one.agent, session_scope(one.session)) for one in found]
        for table in (checkpoint_write, checkpoint):
            delete_keys(connection, (table.c.tenant, table.c.agent, table.c.scope), scopes)
        delete_keys(connection, (session.c.tenant, session.c.agent, session.c.session), found)
    return len(found)


def erase_parts(connection: Connection, runs: Keys) -> None:
    """Remove the steps and stored answers of `runs` (tenants and ids)."""
    if runs:
        for table in (step, stored_answer):
            delete_keys(connection, (table.c.tenant, table.c.run), runs)


def _is(key: SessionKey) -> Any:
    return (session.c.tenant == key.tenant) & (session.c.agent == key.agent) & (session.c.session == key.session)


def _locked(key: SessionKey) -> Any:
    return select(session.c.version, session.c.incarnation).where(_is(key)).with_for_update()


def _page(connection: Connection, wanted: SessionFilter, now: float) -> list[SessionSummary]:
    columns = session.c
    query = select(
        columns.tenant,
        columns.agent,
        columns.session,
        columns.version,
        columns.created,
        columns.updated,
        columns.bytes.label("size"),
        columns.subject,
        columns.expires,
    ).where((columns.tenant == wanted.tenant) & or_(columns.expires.is_(None), columns.expires > now))
    if wanted.agent is not None:
        query = query.where((columns.agent == wanted.agent) & (columns.session > wanted.after[1]))
    elif wanted.after != ("", ""):
        query = query.where(tuple_(columns.agent, columns.session) > tuple_(*wanted.after))
    if wanted.subject is not None:
        query = query.where(columns.subject == wanted.subject)
    if wanted.updated_before is not None:
        query = query.where(columns.updated < wanted.updated_before)
    rows = connection.execute(query.order_by(columns.agent, columns.session).limit(wanted.limit)).mappings()
    return [SessionSummary(**row) for row in rows]
