"""Runs and their steps in the database (`RunStore`).

The row of a run is locked by whoever changes it, and every write names the attempt that it belongs to: a gateway that
has lost the run, or a host that works for it, changes nothing any more.

A call of a session writes nothing here until its first step is finished: there is nothing to go on from before.
"""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import asdict, replace
from sqlalchemy import Connection, bindparam, delete, func, select, update

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.removing import Keys, delete_keys, is_one_of
from chimera.adapters.storage.schema.state import (
    checkpoint,
    checkpoint_write,
    run,
    run_holder,
    session,
    step,
    stored_answer,
)
from chimera.adapters.storage.state.sessions import (
    SessionStorage,
    changed,
    erase_checkpoints,
    erase_parts,
    erase_runs,
    run_scope,
    session_scope,
)
from chimera.gateway.errors import PayloadTooLarge
from chimera.gateway.state.errors import RunTaken, StepConflict
from chimera.gateway.state.model import NewStep, SessionKey, StoredRun, StoredSession, StoredStep
from chimera.gateway.state.ports import Kept, RunLimits
from chimera.gateway.state.rules import Begin, GoOn, Verdict, decide

_CHANGED = ("status", "holder", "steps", "request", "bytes", "updated", "expires", "answer")
_OVERHEAD = 200
"""Bytes that a row takes beside its content, about."""


class RunStorage:
    """The store of runs on one database."""

    def __init__(self, database: Database, sessions: SessionStorage) -> None:
        """Compile the statements for `database`; finished runs save their session through `sessions`."""
        self._database = database
        self._sessions = sessions
        mine = (run.c.tenant == bindparam("the_tenant")) & (run.c.run == bindparam("the_run"))
        self._locked = database.prepared(select(run).where(mine).with_for_update())
        self._create = database.prepared_insert(run, database.insert(run).on_conflict_do_nothing())
        self._hold = database.prepared_insert(run_holder, database.upsert(run_holder, ["holder"]))
        self._alive = database.prepared(select(run_holder.c.until).where(run_holder.c.holder == bindparam("the_one")))
        self._unfinished = database.prepared(
            select(run)
            .where(
                (run.c.tenant == bindparam("the_tenant"))
                & (run.c.agent == bindparam("the_agent"))
                & (run.c.session == bindparam("the_session"))
                & (run.c.status == "open")
            )
            .order_by(run.c.created.desc())
            .limit(1)
        )
        its = (step.c.tenant == bindparam("the_tenant")) & (step.c.run == bindparam("the_run"))
        this = its & (step.c.step == bindparam("the_step"))
        self._change = database.prepared(
            update(run).where(mine).values({name: bindparam(f"new_{name}") for name in _CHANGED})
        )
        self._drop_run = database.prepared(delete(run).where(mine))
        self._drop_parts = [
            database.prepared(
                delete(table).where((table.c.tenant == bindparam("the_tenant")) & (table.c.run == bindparam("the_run")))
            )
            for table in (step, stored_answer)
        ]
        scoped = (
            (checkpoint.c.tenant == bindparam("the_tenant"))
            & (checkpoint.c.agent == bindparam("the_agent"))
            & (checkpoint.c.scope == bindparam("the_scope"))
        )
        self._checkpoint = database.prepared(select(checkpoint.c.checkpoint).where(scoped).limit(1))
        self._step = database.prepared(select(step.c.seq, step.c.digest).where(this))
        self._put_step = database.prepared_insert(step)
        grown: dict[str, Any] = {name: bindparam(f"new_{name}") for name in ("steps", "bytes", "updated", "expires")}
        self._grow = database.prepared(update(run).where(mine).values(grown))

    async def claim(self, run: StoredRun, *, life: float, now: float) -> tuple[Verdict, StoredRun]:
        """See `RunStore`."""

        def job(connection: Connection) -> tuple[Verdict, StoredRun]:
            begun = self._create.run(connection, **_row(run)) == 1
            found = None if begun else self.lock_in(connection, run.tenant, run.run)
            if found is None:
                if not begun:  # it was removed in between
                    self._create.run(connection, **_row(run))
                self.hold_in(connection, run.holder, life)
                return Begin(), run
            held = self._is_held(connection, found.holder)
            verdict = decide(found, digest=run.digest, base=run.base, held=held, now=now)
            if isinstance(verdict, Begin | GoOn):
                taken = self._take(connection, run, found, verdict)
                self.hold_in(connection, run.holder, life)
                return verdict, taken
            return verdict, found

        return await self._database.write(job)

    async def unfinished(self, tenant: str, agent: str, session: str) -> StoredRun | None:
        """See `RunStore`."""
        values = {"the_tenant": tenant, "the_agent": agent, "the_session": session}
        row = await self._database.read(lambda connection: self._unfinished.one(connection, **values), quick=True)
        return None if row is None else _run(row)

    async def save_step(self, run: StoredRun, step: NewStep, *, limits: RunLimits, now: float, life: float) -> int:
        """See `RunStore`."""

        def job(connection: Connection) -> int:
            found = self.working_in(connection, run, life)
            before = self._step.one(connection, the_tenant=run.tenant, the_run=run.run, the_step=step.step)
            if before is not None:
                if before[1] != step.digest:
                    raise _otherwise(run, step)
                return int(before[0])
            size = found.size + len(step.output) + _OVERHEAD
            check_room(found, size, found.steps + 1, limits)
            seq = found.steps + 1
            row = {**asdict(step), "tenant": run.tenant, "run": run.run, "seq": seq, "at": now}
            self._put_step.run(connection, **row)
            self.grow_in(connection, replace(found, steps=seq, size=size), now, limits.open_for)
            return seq

        return await self._database.write(job)

    async def steps(self, tenant: str, run: str, after: int, limit: int) -> Sequence[StoredStep]:
        """See `RunStore`."""
        behind = (step.c.tenant == tenant) & (step.c.run == run) & (step.c.seq > after)
        query = select(step.c.seq, step.c.step, step.c.kind, step.c.output).where(behind)

        def read(connection: Connection) -> list[StoredStep]:
            rows = connection.execute(query.order_by(step.c.seq).limit(limit)).mappings()
            return [StoredStep(**row) for row in rows]

        return await self._database.read(read)

    async def finish(
        self,
        run: StoredRun,
        *,
        stored: bool,
        session: StoredSession | None,
        keep: Kept,
        now: float,
        by: str,
        hops: int = 0,
    ) -> None:
        """See `RunStore`."""

        def job(connection: Connection) -> None:
            if stored:
                self._close(connection, run, keep, now)
            if session is not None:
                self._sessions.save_in(connection, session, by, hops)

        await self._database.write(job)

    async def again(self, run: StoredRun) -> StoredRun:
        """See `RunStore`."""
        return await self._database.write(lambda connection: self._again(connection, run))

    async def fold(self, run: StoredRun, session: StoredSession | None, by: str) -> None:
        """See `RunStore`."""

        def job(connection: Connection) -> None:
            found = self.lock_in(connection, run.tenant, run.run)
            if found is None or found.attempt != run.attempt or found.status != "open":
                raise taken(run)
            erase_runs(connection, run.tenant, [run.run])
            if session is not None:
                self._sessions.save_in(connection, session, by)

        await self._database.write(job)

    async def release(self, run: StoredRun) -> None:
        """See `RunStore`."""
        await self._database.write(lambda connection: _released(connection, run))

    async def beat(self, holder: str, life: float) -> None:
        """See `RunStore`."""
        await self._database.write(lambda connection: self.hold_in(connection, holder, life))

    # -- inside others' transactions -----------------------------------------------------------------------------------

    def lock_in(self, connection: Connection, tenant: str, name: str) -> StoredRun | None:
        """The run, locked until the transaction ends."""
        row = self._locked.one(connection, the_tenant=tenant, the_run=name)
        return None if row is None else _run(row)

    def working_in(self, connection: Connection, wanted: StoredRun, life: float) -> StoredRun:
        """The run, locked, if it still is worked on as this attempt; made where it has no row yet. Or `RunTaken`."""
        found = self.lock_in(connection, wanted.tenant, wanted.run)
        if found is None and _is_fresh(wanted):
            self._check_session(connection, wanted)
            self._create.run(connection, **_row(wanted))
            self.hold_in(connection, wanted.holder, life)
            found = self.lock_in(connection, wanted.tenant, wanted.run)
        if found is None or found.attempt != wanted.attempt or found.status != "open":
            raise taken(wanted)
        return found

    def grow_in(self, connection: Connection, grown: StoredRun, now: float, open_for: float) -> None:
        """The run has more steps or bytes."""
        self._grow.run(
            connection,
            the_tenant=grown.tenant,
            the_run=grown.run,
            new_steps=grown.steps,
            new_bytes=grown.size,
            new_updated=now,
            new_expires=now + open_for,
        )

    def hold_in(self, connection: Connection, holder: str, life: float) -> None:
        """The holder lives."""
        self._hold.run(connection, holder=holder, until=self._database.now(connection) + life)

    def _again(self, connection: Connection, before: StoredRun) -> StoredRun:
        found = self.lock_in(connection, before.tenant, before.run)
        if found is None and _is_fresh(before):
            return before
        if found is None or found.attempt != before.attempt or found.status != "open":
            raise taken(before)
        where = (run.c.tenant == found.tenant) & (run.c.run == found.run)
        connection.execute(update(run).where(where).values(attempt=found.attempt + 1))
        return replace(found, attempt=found.attempt + 1)

    # -- helpers -------------------------------------------------------------------------------------------------------

    def _is_held(self, connection: Connection, holder: str) -> bool:
        if not holder:
            return False
        row = self._alive.one(connection, the_one=holder)
        return row is not None and row[0] > self._database.now(connection)

    def _take(self, connection: Connection, wanted: StoredRun, found: StoredRun, verdict: Begin | GoOn) -> StoredRun:
        if isinstance(verdict, GoOn) and not verdict.afresh:
            made = replace(found, attempt=verdict.attempt, holder=wanted.holder, updated=wanted.updated)
        else:
            erase_runs(connection, found.tenant, [found.run], rows=False)
            if found.session is None:
                erase_checkpoints(connection, found.tenant, found.agent, run_scope(found.run))
            elif isinstance(verdict, GoOn):
                erase_checkpoints(connection, found.tenant, found.agent, session_scope(found.session), run=found.run)
            made = replace(wanted, attempt=found.attempt + 1)
        where = (run.c.tenant == made.tenant) & (run.c.run == made.run)
        connection.execute(update(run).where(where).values(_row(made)))
        return made

    def _check_session(self, connection: Connection, wanted: StoredRun) -> None:
        """A session that was saved or erased since the call began has no place for steps of before."""
        if wanted.session is None:
            return
        version = self._sessions.version_in(connection, wanted.tenant, wanted.agent, wanted.session)
        if version != wanted.base:
            key = SessionKey(tenant=wanted.tenant, agent=wanted.agent, session=wanted.session)
            raise changed(key, version)

    def _close(self, connection: Connection, done: StoredRun, keep: Kept, now: float) -> None:
        found = self.lock_in(connection, done.tenant, done.run)
        if found is None and _is_fresh(done):
            return
        if found is None or found.attempt != done.attempt or found.status != "open":
            raise taken(done)
        for part in self._drop_parts:
            part.run(connection, the_tenant=done.tenant, the_run=done.run)
        if done.answer is None:
            self._drop_run.run(connection, the_tenant=done.tenant, the_run=done.run)
        else:
            kept = replace(done, status="finished", holder="", steps=0, request=b"", size=len(done.answer), updated=now)
            row = _row(kept)
            changed = {f"new_{name}": row[name] for name in _CHANGED}
            self._change.run(connection, the_tenant=done.tenant, the_run=done.run, **changed)
        scope = run_scope(done.run) if done.session is None else session_scope(done.session)
        place = {"the_tenant": done.tenant, "the_agent": done.agent, "the_scope": scope}
        if self._checkpoint.one(connection, **place) is None:
            return
        if done.session is None:
            erase_checkpoints(connection, done.tenant, done.agent, scope)
        else:
            if keep.threads is not None:
                erase_checkpoints(connection, done.tenant, done.agent, scope, but=keep.threads)
            prune(connection, done.tenant, done.agent, scope, keep.newest)


def _is_fresh(wanted: StoredRun) -> bool:
    """Whether a run may have no row because nothing of it was saved yet, and not because it was erased."""
    return not wanted.keyed and wanted.attempt == 1 and wanted.steps == 0


def check_room(found: StoredRun, size: int, steps: int, limits: RunLimits) -> None:
    """Raise `PayloadTooLarge` where a run would hold too much."""
    if size > limits.size or steps > limits.steps:
        raise PayloadTooLarge(
            f"run {found.run} would hold {size} bytes in {steps} steps; it may hold {limits.size} in {limits.steps}",
            next_step="save fewer or smaller steps, or raise state.run_bytes or state.run_steps in the settings",
            agent=found.agent,
        )


def taken(wanted: StoredRun) -> RunTaken:
    """What this attempt does counts no more."""
    return RunTaken(
        f"run {wanted.run} is finished, erased, or worked on by another call",
        next_step="end this call; ask again with the same Idempotency-Key for the answer",
        agent=wanted.agent,
    )


def prune(connection: Connection, tenant: str, agent: str, scope: str, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints of each thread and namespace of a scope, with their writes."""
    its = (checkpoint.c.tenant == tenant) & (checkpoint.c.agent == agent) & (checkpoint.c.scope == scope)
    named = select(checkpoint.c.thread, checkpoint.c.namespace, func.count().label("n")).where(its)
    for row in connection.execute(named.group_by(checkpoint.c.thread, checkpoint.c.namespace)).all():
        if row.n > keep:
            prune_thread(connection, tenant, agent, scope, row.thread, row.namespace, keep)


def prune_thread(
    connection: Connection, tenant: str, agent: str, scope: str, thread: str, namespace: str, keep: int
) -> None:
    """The same for one thread and namespace."""
    for_each = {"tenant": tenant, "agent": agent, "scope": scope, "thread": thread, "namespace": namespace}
    of_thread = [checkpoint.c[name] == value for name, value in for_each.items()]
    newest = select(checkpoint.c.checkpoint).where(*of_thread).order_by(checkpoint.c.checkpoint.desc())
    kept = connection.execute(newest.limit(keep)).scalars().all()
    for table in (checkpoint_write, checkpoint):
        of_table = [table.c[name] == value for name, value in for_each.items()]
        connection.execute(delete(table).where(*of_table, table.c.checkpoint.not_in(kept)))


def expire_runs(connection: Connection, now: float, limit: int) -> int:
    """Remove runs that ended before `now`, `limit` at most, with all that they have; how many that were."""
    over = select(run.c.tenant, run.c.run, run.c.agent, run.c.session).where(run.c.expires <= now)
    found = connection.execute(over.order_by(run.c.expires).limit(limit).with_for_update(skip_locked=True)).all()
    if not found:
        return 0
    keys = [(one.tenant, one.run) for one in found]
    erase_parts(connection, keys)
    delete_keys(connection, (run.c.tenant, run.c.run), keys)
    of_sessions = {(one.tenant, one.agent, one.session) for one in found if one.session is not None}
    gone = [(one.tenant, one.agent, run_scope(one.run)) for one in found if one.session is None]
    gone += _disowned(connection, sorted(of_sessions))
    if gone:
        for table in (checkpoint_write, checkpoint):
            delete_keys(connection, (table.c.tenant, table.c.agent, table.c.scope), gone)
    return len(found)


def _disowned(connection: Connection, names: Keys) -> list[tuple[str, str, str]]:
    """The scopes of sessions, of those named, that have no row and no run any more that would begin one."""
    if not names:
        return []
    left: set[tuple[str, ...]] = set()
    for owner in (session, run):
        key = (owner.c.tenant, owner.c.agent, owner.c.session)
        left.update(tuple(row) for row in connection.execute(select(*key).where(is_one_of(connection, key, names))))
    return [(tenant, agent, session_scope(name)) for tenant, agent, name in names if (tenant, agent, name) not in left]


def expire_holders(connection: Connection, now: float, limit: int) -> int:
    """Remove gateways that were last alive before `now`, `limit` at most; how many that were."""
    old = select(run_holder.c.holder).where(run_holder.c.until < now).order_by(run_holder.c.holder).limit(limit)
    return connection.execute(delete(run_holder).where(run_holder.c.holder.in_(old))).rowcount


def _released(connection: Connection, released: StoredRun) -> None:
    still = (run.c.tenant == released.tenant) & (run.c.run == released.run) & (run.c.holder == released.holder)
    connection.execute(update(run).where(still).values(holder=""))


def _otherwise(wanted: StoredRun, new: NewStep) -> StepConflict:
    return StepConflict(
        f"step {new.step!r} of run {wanted.run} was finished with another output",
        next_step="name each step once; a step that runs again must be given the stored output instead",
        agent=wanted.agent,
    )


def _row(made: StoredRun) -> dict[str, Any]:
    values = asdict(made)
    values["bytes"] = values.pop("size")
    values["keyed"] = int(made.keyed)
    return values


_COLUMNS = [column.name if column.name != "bytes" else "size" for column in run.c]


def _run(row: Sequence[Any]) -> StoredRun:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["keyed"] = bool(values["keyed"])
    return StoredRun(**values)
