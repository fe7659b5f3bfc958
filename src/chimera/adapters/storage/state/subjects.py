"""What is kept of a person, across all agents of a tenant (`SubjectStore`).

A person is found by the index on the subject of sessions and runs; everything else hangs on those. The audit log and
facts never name a person: they hold a digest, by which somebody who knows the person's id finds the entry.
"""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, exists, func, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.schema.state import checkpoint, run, session, step, stored_answer
from chimera.adapters.storage.state.sessions import (
    erase_checkpoints,
    erase_runs,
    erase_session,
    run_scope,
    session_scope,
)
from chimera.adapters.storage.state.telling import note, session_subject, tell
from chimera.gateway.state.model import SessionKey, SubjectCounts
from chimera.gateway.state.ports import Record
from chimera.kernel.clock import Clock, SystemClock


class SubjectStorage:
    """The store of what is kept of people, on one database."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        """Read and erase in `database`."""
        self._database = database
        self._clock = clock or SystemClock()

    async def count(self, tenant: str, subject: str) -> SubjectCounts:
        """See `SubjectStore`."""
        return await self._database.read(lambda connection: _count(connection, tenant, subject))

    async def session_records(self, key: SessionKey) -> Sequence[Record]:
        """See `SubjectStore`."""

        def read(connection: Connection) -> list[Record]:
            its = (session.c.tenant == key.tenant) & (session.c.agent == key.agent)
            row = connection.execute(select(session).where(its & (session.c.session == key.session))).mappings()
            found = [_session_record(one) for one in row]
            mine = (run.c.tenant == key.tenant) & (run.c.agent == key.agent) & (run.c.session == key.session)
            for name in connection.execute(select(run.c.run).where(mine).order_by(run.c.created)).scalars().all():
                found += _run_records(connection, key.tenant, name)
            found += _checkpoint_records(connection, key.tenant, key.agent, session_scope(key.session))
            return found

        return await self._database.read(read)

    async def runs(self, tenant: str, subject: str, after: str, limit: int) -> Sequence[str]:
        """See `SubjectStore`."""
        its = (run.c.tenant == tenant) & (run.c.subject == subject) & (run.c.run > after)
        of_session = (
            (session.c.tenant == run.c.tenant) & (session.c.agent == run.c.agent) & (session.c.session == run.c.session)
        )
        alone = ~exists().where(of_session)
        query = select(run.c.run).where(its & alone).order_by(run.c.run).limit(limit)
        return await self._database.read(lambda connection: connection.execute(query).scalars().all())

    async def run_records(self, tenant: str, run: str) -> Sequence[Record]:
        """See `SubjectStore`."""

        def read(connection: Connection) -> list[Record]:
            found = _run_records(connection, tenant, run)
            if found:
                named = found[0]["session"]
                scope = run_scope(run) if named is None else session_scope(named)
                found += _checkpoint_records(connection, tenant, found[0]["agent"], scope)
            return found

        return await self._database.read(read)

    async def told_session(self, key: SessionKey, by: str) -> None:
        """See `SubjectStore`."""
        now, subject = self._clock.wall(), session_subject(key.agent, key.session)
        data = {"agent": key.agent, "session": key.session, "by": by}

        def job(connection: Connection) -> None:
            note(connection, "session:export", key.tenant, subject, now, by)
            tell(connection, "session.exported", key.tenant, subject, now, data)

        await self._database.write(job)

    async def told(self, what: str, tenant: str, subject: str, by: str, counts: SubjectCounts) -> None:
        """See `SubjectStore`."""
        now = self._clock.wall()
        resource = f"subjects/{subject_digest(tenant, subject)}"
        detail = msgspec.to_builtins(counts)

        def job(connection: Connection) -> None:
            note(connection, f"subject:{what}", tenant, resource, now, by, **detail)
            tell(connection, f"subject.{_PAST[what]}", tenant, resource, now, {**detail, "by": by})

        await self._database.write(job)

    async def erase(self, tenant: str, subject: str, limit: int) -> SubjectCounts:
        """See `SubjectStore`."""
        return await self._database.write(lambda connection: _erase(connection, tenant, subject, limit))


_PAST = {"erase": "erased", "export": "exported"}


def subject_digest(tenant: str, subject: str) -> str:
    """How the audit log and facts name a person: SHA-256 of tenant, NUL and subject, its first 32 hex digits."""
    return hashlib.sha256(f"{tenant}\0{subject}".encode()).hexdigest()[:32]


def _count(connection: Connection, tenant: str, subject: str) -> SubjectCounts:
    runs = (run.c.tenant == tenant) & (run.c.subject == subject)
    names = select(run.c.run).where(runs)

    def of_runs(table: Table) -> int:
        return _number(connection, table, (table.c.tenant == tenant) & table.c.run.in_(names))

    mine = (session.c.tenant == tenant) & (session.c.subject == subject)
    checkpoints = of_runs(checkpoint)
    for row in connection.execute(select(session.c.agent, session.c.session).where(mine)):
        # Checkpoints of a session may be of runs that are gone.
        its = (checkpoint.c.tenant == tenant) & (checkpoint.c.agent == row.agent)
        scoped = its & (checkpoint.c.scope == session_scope(row.session))
        checkpoints += _number(connection, checkpoint, scoped & checkpoint.c.run.not_in(names))
    return SubjectCounts(
        sessions=_number(connection, session, mine),
        runs=_number(connection, run, runs),
        steps=of_runs(step),
        answers=of_runs(stored_answer),
        checkpoints=checkpoints,
    )


def _erase(connection: Connection, tenant: str, subject: str, limit: int) -> SubjectCounts:
    mine = (session.c.tenant == tenant) & (session.c.subject == subject)
    sessions = connection.execute(select(session.c.agent, session.c.session).where(mine).limit(limit)).all()
    steps = answers = checkpoints = runs = 0
    for row in sessions:
        key = SessionKey(tenant=tenant, agent=row.agent, session=row.session)
        its = (run.c.tenant == tenant) & (run.c.agent == row.agent) & (run.c.session == row.session)
        names = connection.execute(select(run.c.run).where(its)).scalars().all()
        runs += len(names)
        steps += _of(connection, step, tenant, names)
        answers += _of(connection, stored_answer, tenant, names)
        checkpoints += erase_checkpoints(connection, tenant, row.agent, session_scope(row.session))
        erase_session(connection, key)
    theirs = (run.c.tenant == tenant) & (run.c.subject == subject)
    left = connection.execute(select(run.c.run, run.c.agent, run.c.session).where(theirs).limit(limit)).all()
    for one in left:
        scope = run_scope(one.run) if one.session is None else session_scope(one.session)
        checkpoints += erase_checkpoints(connection, tenant, one.agent, scope)
    names = [one.run for one in left]
    steps += _of(connection, step, tenant, names)
    answers += _of(connection, stored_answer, tenant, names)
    erase_runs(connection, tenant, names)
    return SubjectCounts(
        sessions=len(sessions), runs=runs + len(left), steps=steps, answers=answers, checkpoints=checkpoints
    )


def _of(connection: Connection, table: Table, tenant: str, runs: Sequence[str]) -> int:
    total = 0
    for start in range(0, len(runs), 500):
        some = table.c.run.in_(runs[start : start + 500])
        total += _number(connection, table, (table.c.tenant == tenant) & some)
    return total


def _number(connection: Connection, table: Table, where: Any) -> int:
    return int(connection.execute(select(func.count()).select_from(table).where(where)).scalar() or 0)


def _session_record(row: Any) -> Record:
    values = {name: value for name, value in row.items() if name not in ("state", "bytes", "incarnation")}
    return {"record": "session", **values, "state": msgspec.json.decode(row["state"])}


def _run_records(connection: Connection, tenant: str, name: str) -> list[Record]:
    its = (run.c.tenant == tenant) & (run.c.run == name)
    row = connection.execute(select(run).where(its)).mappings().one_or_none()
    if row is None:
        return []
    kept = ("tenant", "run", "agent", "session", "subject", "status", "created", "updated", "expires")
    made: Record = {"record": "run", **{field: row[field] for field in kept}}
    made["request"] = msgspec.json.decode(row["request"]) if row["request"] else None
    made["answer"] = msgspec.json.decode(row["answer"]) if row["answer"] else None
    found = [made]
    steps = select(step).where((step.c.tenant == tenant) & (step.c.run == name)).order_by(step.c.seq)
    for one in connection.execute(steps).mappings():
        of_step = {field: one[field] for field in ("run", "step", "seq", "kind", "at")}
        found.append({"record": "step", **of_step, "output": msgspec.json.decode(one["output"])})
    answers = select(stored_answer).where((stored_answer.c.tenant == tenant) & (stored_answer.c.run == name))
    for one in connection.execute(answers).mappings():
        of_answer = {field: one[field] for field in ("run", "key", "created", "expires")}
        found.append({"record": "answer", **of_answer, "answer": _text(one["answer"])})
    return found


def _checkpoint_records(connection: Connection, tenant: str, agent: str, scope: str) -> list[Record]:
    its = (checkpoint.c.tenant == tenant) & (checkpoint.c.agent == agent) & (checkpoint.c.scope == scope)
    query = select(checkpoint).where(its).order_by(checkpoint.c.thread, checkpoint.c.namespace, checkpoint.c.checkpoint)
    return [
        {
            "record": "checkpoint",
            **{field: row[field] for field in ("thread", "namespace", "checkpoint", "run", "at", "kind")},
            "value": base64.b64encode(row["value"]).decode(),
        }
        for row in connection.execute(query).mappings()
    ]


def _text(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.MsgspecError:
        return base64.b64encode(data).decode()
