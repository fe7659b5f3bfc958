"""The queue as workers see it: looked at, tended, claimed from, settled (`TaskStore`).

The next lane, and the next tenant that has any, are found by one seek of the index each (a loose index scan, written as
a recursive query), so a look costs a seek for each lane it returns, and nothing for the tasks in them. On PostgreSQL a
claim passes over rows that another gateway is just taking; SQLite has one writer anyway.

Lost workers are found from what they have: a running task whose worker has no row, or one that has expired by the
database's clock. One that expires much later than any could was written before the clock went back, and counts as
expired: if its worker lives, its token is the older one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, delete, exists, func, or_, select, update

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.schema.state import run
from chimera.adapters.storage.schema.tasks import task as table
from chimera.adapters.storage.schema.tasks import task_worker
from chimera.adapters.storage.tasks.rows import CORE, TaskRows, task_of
from chimera.gateway.tasks import rules
from chimera.gateway.tasks.claims import LANES, TENANTS, TOP, Survey, Turns, Want
from chimera.gateway.tasks.errors import TaskTaken, WorkerLost
from chimera.gateway.tasks.model import Claimed, Progress, Task, TaskKey, TaskRequest
from chimera.gateway.tasks.ports import Held, Look

_REQUEST = msgspec.json.Decoder(TaskRequest)
_ENCODER = msgspec.json.Encoder()
_FORGET = 3_600.0
"""Rows of workers that ended without a word and have nothing are removed this many seconds later."""


class TaskQueue:
    """The queue on one database."""

    def __init__(self, database: Database, *, keep: float, lease: float, letter_keep: float) -> None:
        """Keep finished tasks for `keep` seconds; workers live for `lease` seconds."""
        self._database = database
        self._lease = lease
        self._rows = TaskRows(database, keep=keep, letter_keep=letter_keep)
        self._tenants = database.prepared(_next_tenants())
        self._lanes = database.prepared(_next_lanes())
        front = (table.c.tenant == bindparam("the_tenant")) & (table.c.lane == bindparam("the_lane"))
        self._front = database.prepared(
            select(*CORE, table.c.request)
            .where(front)
            .order_by(table.c.task)
            .limit(bindparam("most"))
            .with_for_update(skip_locked=True)
        )
        worker = task_worker.c.worker == bindparam("the_worker")
        self._live = database.prepared(update(task_worker).where(worker).values(expires=bindparam("until")))
        self._arrive = database.prepared_insert(task_worker, database.insert(task_worker).on_conflict_do_nothing())
        running = (table.c.tenant == bindparam("the_tenant")) & (table.c.task == bindparam("the_task"))
        held = running & (table.c.worker == bindparam("the_worker")) & (table.c.token == bindparam("the_token"))
        self._note = database.prepared(
            update(table).where(held).values(progress=bindparam("the_progress"), progressed=bindparam("the_time"))
        )
        ran = (run.c.tenant == bindparam("the_tenant")) & (run.c.run == bindparam("the_task"))
        self._saved = database.prepared(select(run.c.bytes, run.c.steps).where(ran))
        mine = (table.c.worker == bindparam("the_worker")) & (table.c.worker != "")
        self._held = database.prepared(
            select(table.c.tenant, table.c.task, table.c.token, table.c.cancelling).where(mine)
        )

    # -- looking ------------------------------------------------------------------------------------------------------

    async def look(self, worker: str, turns: Turns) -> Look:
        """See `TaskStore`."""
        return await self._database.read(lambda connection: self._look(connection, worker, turns))

    def _look(self, connection: Connection, worker: str, turns: Turns) -> Look:
        now = self._database.now(connection)
        overdue = any(connection.execute(select(exists(query))).scalar() for query in self._overdue(now))
        held = [
            Held(key=TaskKey(tenant=tenant, task=task), token=token, cancelling=bool(cancelling))
            for tenant, task, token, cancelling in self._held.all(connection, the_worker=worker)
        ]
        return Look(survey=self._survey(connection, turns), overdue=overdue, held=held)

    def _survey(self, connection: Connection, turns: Turns) -> Survey:
        behind = [row[0] for row in self._tenants.all(connection, behind=turns.tenant, most=TENANTS)]
        if len(behind) < TENANTS and turns.tenant:
            first = [row[0] for row in self._tenants.all(connection, behind="", most=TENANTS - len(behind))]
            behind += [tenant for tenant in first if tenant not in behind]
        lanes: dict[str, Sequence[str]] = {}
        for tenant in behind:
            last = turns.lanes.get(tenant, "")
            seen = [row[0] for row in self._lanes.all(connection, the_tenant=tenant, behind=last, most=LANES)]
            if last:
                top = LANES if len(seen) < LANES else TOP
                seen += [row[0] for row in self._lanes.all(connection, the_tenant=tenant, behind="", most=top)]
            lanes[tenant] = seen
        return Survey(lanes=lanes)

    def _overdue(self, now: float) -> list[Select[Any]]:
        return [_due(now), _late(now), self._lost(now)]

    def _lost(self, now: float) -> Select[Any]:
        return (
            select(table.c.worker)
            .outerjoin(task_worker, task_worker.c.worker == table.c.worker)
            .where((table.c.worker != "") & (task_worker.c.worker.is_(None) | self._gone(now)))
            .distinct()
        )

    def _gone(self, now: float) -> ColumnElement[bool]:
        return or_(task_worker.c.expires <= now, task_worker.c.expires > now + 2 * self._lease)

    # -- tending ------------------------------------------------------------------------------------------------------

    async def tend(self, *, losses: int, limit: int) -> int:
        """See `TaskStore`."""
        return await self._database.write(lambda connection: self._tend(connection, losses, limit))

    def _tend(self, connection: Connection, losses: int, limit: int) -> int:
        now = self._database.now(connection)
        changed = 0
        for query, event in ((_due(now, *CORE), rules.Due()), (_late(now, *CORE), rules.Deadline())):
            locked = query.limit(limit).with_for_update(skip_locked=True)
            tasks = [task_of(row) for row in connection.execute(locked)]
            changed += len(self._rows.apply_all(connection, tasks, event, now))
        for worker in connection.execute(self._lost(now)).scalars().all():
            changed += self._take_from(connection, worker, now, losses, limit)
        connection.execute(delete(task_worker).where(task_worker.c.expires <= now - _FORGET))
        return changed

    def _take_from(self, connection: Connection, worker: str, now: float, losses: int, limit: int) -> int:
        its = task_worker.c.worker == worker
        there = connection.execute(select(task_worker.c.worker).where(its)).one_or_none()
        if there is not None:
            lost = select(task_worker.c.worker).where(its & self._gone(now)).with_for_update(skip_locked=True)
            if connection.execute(lost).one_or_none() is None:
                return 0  # it has just said that it lives
        query = select(*CORE).where(table.c.worker == worker).limit(limit).with_for_update()
        tasks = [task_of(row) for row in connection.execute(query)]
        taken = self._rows.apply_all(connection, tasks, rules.Lose(worker=worker, most=losses), now)
        if len(tasks) < limit:
            connection.execute(delete(task_worker).where(its))
        return len(taken)

    # -- working ------------------------------------------------------------------------------------------------------

    async def arrive(self, worker: str, life: float) -> None:
        """See `TaskStore`."""

        def job(connection: Connection) -> None:
            self._arrive.run(connection, worker=worker, expires=self._database.now(connection) + life)

        await self._database.write(job)

    async def beat(self, worker: str, life: float) -> None:
        """See `TaskStore`."""
        await self._database.write(lambda connection: self._beat(connection, worker, life))

    async def claim(self, worker: str, wants: Sequence[Want], life: float) -> Sequence[Claimed]:
        """See `TaskStore`."""

        def job(connection: Connection) -> list[Claimed]:
            self._beat(connection, worker, life)
            now = self._database.now(connection)
            rows = []
            for want in wants:
                rows += self._front.all(connection, the_tenant=want.tenant, the_lane=want.lane, most=want.count)
            requests = {(row[0], row[1]): row[-1] for row in rows}
            tasks = [task_of(row[:-1]) for row in rows]
            made = self._rows.apply_all(connection, tasks, rules.Claim(worker=worker), now)
            return [
                Claimed(task=one, request=_REQUEST.decode(requests[one.tenant, one.task]))
                for one in made
                if one.state == "running"
            ]

        return await self._database.write(job)

    async def settle(self, key: TaskKey, event: rules.Event, result: bytes | None = None) -> Task:
        """See `TaskStore`."""

        def job(connection: Connection) -> Task:
            found = self._rows.lock(connection, key)
            if found is None:
                raise _erased(key)
            return self._rows.apply(connection, found, event, self._database.now(connection), result)

        return await self._database.write(job)

    async def progress(self, worker: str, rows: Mapping[TaskKey, tuple[int, Progress]]) -> None:
        """See `TaskStore`."""
        # In one order, so that two gateways never wait for each other.
        ordered = sorted(rows.items(), key=lambda row: (row[0].tenant, row[0].task))

        def job(connection: Connection) -> None:
            written = []
            for key, (token, progress) in ordered:
                found = self._saved.one(connection, the_tenant=key.tenant, the_task=key.task)
                whole = replace(progress, steps=0 if found is None else int(found[1]))
                written.append(
                    {
                        "the_tenant": key.tenant,
                        "the_task": key.task,
                        "the_worker": worker,
                        "the_token": token,
                        "the_progress": _ENCODER.encode(whole),
                        "the_time": progress.at,
                    }
                )
            self._note.run_many(connection, written)

        await self._database.write(job)

    async def saved(self, key: TaskKey) -> int:
        """See `TaskStore`."""
        values = {"the_tenant": key.tenant, "the_task": key.task}
        row = await self._database.read(lambda connection: self._saved.one(connection, **values), quick=True)
        return 0 if row is None else int(row[0])

    async def leave(self, worker: str) -> None:
        """See `TaskStore`."""
        its = task_worker.c.worker == worker
        await self._database.write(lambda connection: connection.execute(delete(task_worker).where(its)).rowcount)

    def _beat(self, connection: Connection, worker: str, life: float) -> None:
        until = self._database.now(connection) + life
        if self._live.run(connection, the_worker=worker, until=until) != 1:
            raise WorkerLost(
                f"worker {worker} was silent for too long; its tasks are others' now",
                next_step="nothing: it begins again under another name",
            )


def _due(now: float, *columns: Any) -> Select[Any]:
    return (
        select(*(columns or (table.c.task,)))
        .where(table.c.due.is_not(None) & (table.c.due <= now))
        .order_by(table.c.due)
    )


def _late(now: float, *columns: Any) -> Select[Any]:
    late = and_(table.c.finished.is_(None), table.c.deadline <= now, table.c.state != "running")
    return select(*(columns or (table.c.task,))).where(late).order_by(table.c.deadline)


def _next_tenants() -> Select[Any]:
    """The next tenants that have something queued, behind one."""
    queued = table.c.lane.is_not(None)
    first = select(func.min(table.c.tenant).label("name")).where(queued & (table.c.tenant > bindparam("behind")))
    scan = first.cte("tenants", recursive=True)
    following = select(func.min(table.c.tenant)).where(queued & (table.c.tenant > scan.c.name)).scalar_subquery()
    scan = scan.union_all(select(following).where(scan.c.name.is_not(None)))
    return select(scan.c.name).where(scan.c.name.is_not(None)).limit(bindparam("most"))


def _next_lanes() -> Select[Any]:
    """The next lanes of a tenant, behind one."""
    mine = table.c.tenant == bindparam("the_tenant")
    first = select(func.min(table.c.lane).label("name")).where(mine & (table.c.lane > bindparam("behind")))
    scan = first.cte("lanes", recursive=True)
    following = select(func.min(table.c.lane)).where(mine & (table.c.lane > scan.c.name)).scalar_subquery()
    scan = scan.union_all(select(following).where(scan.c.name.is_not(None)))
    return select(scan.c.name).where(scan.c.name.is_not(None)).limit(bindparam("most"))


def _erased(key: TaskKey) -> TaskTaken:
    return TaskTaken(f"task {key.task} is gone", next_step="nothing: somebody has erased it")
