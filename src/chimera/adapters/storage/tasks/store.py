"""Tasks as callers see them: accepted, read, listed, cancelled, exported and erased (`TaskStore`, `SubjectPart`).

A submission with a key is one conditional insert; the index of keys decides between two that come at once.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.messages import erase_messages
from chimera.adapters.storage.events.webhooks import WebhookRows, leave_webhooks
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.removing import delete_keys
from chimera.adapters.storage.schema.tasks import task as table
from chimera.adapters.storage.tasks.queue import TaskQueue
from chimera.adapters.storage.tasks.rows import CORE, as_record, columns_of, task_of, tell
from chimera.events.settings import EventSettings
from chimera.gateway.state.ports import Record
from chimera.gateway.tasks import rules
from chimera.gateway.tasks.model import (
    Details,
    Progress,
    Submission,
    Task,
    TaskFilter,
    TaskKey,
)
from chimera.gateway.tasks.ports import Accepted
from chimera.immune.audit.model import AuditRecord

_PROGRESS = msgspec.json.Decoder(Progress)


class TaskStorage(TaskQueue):
    """All that is stored of tasks, on one database."""

    def __init__(
        self, database: Database, *, keep: float, lease: float, letter_keep: float = EventSettings().letter_keep
    ) -> None:
        """Keep finished tasks for `keep` seconds, agents' dead letters for `letter_keep`; workers live for `lease`."""
        super().__init__(database, keep=keep, lease=lease, letter_keep=letter_keep)
        insert = database.insert(table)
        self._put = database.prepared_insert(table)
        self._put_keyed = database.prepared_insert(
            table,
            insert.on_conflict_do_nothing(index_elements=["tenant", "key"], index_where=table.c.key.is_not(None)),
        )
        keyed = (table.c.tenant == bindparam("the_tenant")) & (table.c.key == bindparam("the_key"))
        self._by_key = database.prepared(select(*CORE, table.c.digest).where(keyed))
        mine = (table.c.tenant == bindparam("the_tenant")) & (table.c.task == bindparam("the_task"))
        self._webhooks = WebhookRows(database)
        self._details = database.prepared(select(*CORE, table.c.result, table.c.progress).where(mine))

    async def submit(self, tasks: Sequence[Submission]) -> Sequence[Accepted]:
        """See `TaskStore`."""
        return await self._database.write(lambda connection: self._submit(connection, tasks))

    async def backlog(self, tenant: str, most: int) -> int:
        """See `TaskStore`."""
        queued = select(table.c.task).where((table.c.tenant == tenant) & table.c.lane.is_not(None)).limit(most)
        count = select(func.count()).select_from(queued.subquery())
        return await self._database.read(lambda connection: int(connection.execute(count).scalar() or 0))

    async def get(self, key: TaskKey) -> Details | None:
        """See `TaskStore`."""
        values = {"the_tenant": key.tenant, "the_task": key.task}
        row = await self._database.read(lambda connection: self._details.one(connection, **values), quick=True)
        if row is None:
            return None
        progress = None if row[-1] is None else _PROGRESS.decode(row[-1])
        return Details(task=task_of(row[:-2]), result=row[-2], progress=progress)

    async def page(self, wanted: TaskFilter) -> Sequence[Task]:
        """See `TaskStore`."""
        query = select(*CORE).where(table.c.tenant == wanted.tenant)
        for name in ("agent", "state", "session", "subject"):
            if (value := getattr(wanted, name)) is not None:
                query = query.where(table.c[name] == value)
        if wanted.before is not None:
            query = query.where(table.c.task < wanted.before)
        query = query.order_by(table.c.task.desc()).limit(wanted.limit)
        return await self._database.read(lambda connection: [task_of(row) for row in connection.execute(query)])

    async def cancel(self, key: TaskKey, by: str) -> Task | None:
        """See `TaskStore`."""

        def job(connection: Connection) -> Task | None:
            found = self._rows.lock(connection, key)
            if found is None:
                return None
            now = self._database.now(connection)
            made = self._rows.apply(connection, found, rules.Cancel(by=by), now)
            if made is not found:
                resource = f"agents/{made.agent}/tasks/{made.task}"
                entry = AuditRecord(
                    at=now, tenant=made.tenant, actor=by, action="task:cancel", resource=resource, outcome="done"
                )
                journal(connection).audit(entry)
            return made

        return await self._database.write(job)

    async def versions(self, keys: Sequence[TaskKey]) -> Mapping[TaskKey, tuple[int, float]]:
        """See `TaskStore`."""
        by_tenant: dict[str, list[str]] = {}
        for key in keys:
            by_tenant.setdefault(key.tenant, []).append(key.task)

        def read(connection: Connection) -> dict[TaskKey, tuple[int, float]]:
            found = {}
            for tenant, names in by_tenant.items():
                columns = select(table.c.task, table.c.version, table.c.progressed)
                for start in range(0, len(names), 500):
                    some = table.c.task.in_(names[start : start + 500])
                    for row in connection.execute(columns.where((table.c.tenant == tenant) & some)):
                        found[TaskKey(tenant=tenant, task=row.task)] = (row.version, row.progressed)
            return found

        return await self._database.read(read)

    # -- people -------------------------------------------------------------------------------------------------------

    async def count(self, tenant: str, subject: str) -> int:
        """See `SubjectPart`."""
        query = select(func.count()).select_from(table).where(_of(tenant, subject))
        return await self._database.read(lambda connection: int(connection.execute(query).scalar() or 0))

    async def records(self, tenant: str, subject: str, after: str, limit: int) -> Sequence[Record]:
        """See `SubjectPart`."""
        columns = (*CORE, table.c.request, table.c.result)
        query = select(*columns).where(_of(tenant, subject) & (table.c.task > after))

        def read(connection: Connection) -> list[Record]:
            rows = connection.execute(query.order_by(table.c.task).limit(limit)).all()
            return [_record(row) for row in rows]

        return await self._database.read(read)

    async def erase(self, tenant: str, subject: str, limit: int) -> int:
        """See `SubjectPart`."""

        def job(connection: Connection) -> int:
            names = select(table.c.task).where(_of(tenant, subject)).limit(limit)
            found = connection.execute(names).scalars().all()
            connection.execute(delete(table).where((table.c.tenant == tenant) & table.c.task.in_(found)))
            self._webhooks.forget(connection, tenant, found)
            erase_messages(connection, tenant, subject)
            return len(found)

        return await self._database.write(job)

    # -- helpers ------------------------------------------------------------------------------------------------------

    def _submit(self, connection: Connection, tasks: Sequence[Submission]) -> list[Accepted]:
        now = self._database.now(connection)
        accepted, rows, made = [], [], []
        for wanted in tasks:
            task = _new(wanted, now)
            row = {**columns_of(task), **_content(wanted)}
            if wanted.key is None:
                rows.append(row)
            elif (there := self._keyed(connection, wanted, row)) is not None:
                accepted.append(there)
                continue
            accepted.append(Accepted(task=task))
            made.append(task)
        if rows:
            self._put.run_many(connection, rows)
        for task in made:
            tell(connection, None, task, now)
        new = {task.task for task in made}
        self._webhooks.put(connection, [one for one in tasks if one.webhook is not None and one.task in new], now)
        return accepted

    def _keyed(self, connection: Connection, wanted: Submission, row: Mapping[str, Any]) -> Accepted | None:
        """Put a task whose key isn't there (None), or find the one that has it."""
        while self._put_keyed.run(connection, **row) != 1:
            # Upkeep may have removed it since: then the key is free, and the next attempt puts the task.
            found = self._by_key.one(connection, the_tenant=wanted.tenant, the_key=wanted.key)
            if found is not None:
                return Accepted(task=task_of(found[:-1]), existed=True, mismatch=found[-1] != wanted.digest)
        return None


def _new(wanted: Submission, now: float) -> Task:
    later = wanted.not_before is not None and wanted.not_before > now
    return rules.submitted(
        Task(
            tenant=wanted.tenant,
            task=wanted.task,
            agent=wanted.agent,
            state="waiting" if later else "queued",
            version=1,
            created=now,
            updated=now,
            deadline=wanted.deadline,
            priority=wanted.priority,
            due=wanted.not_before if later else None,
            max_attempts=wanted.max_attempts,
            session=wanted.session,
            subject=wanted.subject,
            actor=wanted.actor,
            origin=wanted.origin,
        ),
        now,
    )


def _content(wanted: Submission) -> dict[str, Any]:
    return {
        "key": wanted.key,
        "digest": wanted.digest,
        "request": wanted.request,
        "progress": None,
        "progressed": 0.0,
        "result": None,
    }


def _of(tenant: str, subject: str) -> Any:
    return (table.c.tenant == tenant) & (table.c.subject == subject)


def _record(row: Any) -> Record:
    request, result = row[-2], row[-1]
    asked = msgspec.json.decode(request)
    asked.pop("principal", None)
    return {
        "record": "task",
        "id": row.task,
        **as_record(task_of(row[:-2])),
        "request": asked,
        "result": None if result is None else _json(result),
    }


def _json(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.MsgspecError:
        return base64.b64encode(data).decode()


def expire_tasks(connection: Connection, now: float, limit: int) -> int:
    """Remove finished tasks that are kept no longer, `limit` at most; how many that were."""
    over = select(table.c.tenant, table.c.task).where(table.c.expires <= now)
    rows = connection.execute(over.order_by(table.c.expires).limit(limit).with_for_update(skip_locked=True)).all()
    if rows:
        delete_keys(connection, (table.c.tenant, table.c.task), rows)
        leave_webhooks(connection, rows)
    return len(rows)
