"""A task's row and its value, and the one way in which a row changes.

Whoever changes a task locks its row, asks the rules (`chimera.gateway.tasks.rules`) what it becomes, and writes that
where the row still has the version that was read. The fact of the change is recorded in the same transaction.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import asdict, replace
from sqlalchemy import Connection, bindparam, null, select, update

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.schema.tasks import task as table
from chimera.adapters.storage.tasks.started import EndedTasks
from chimera.events.model import Causes, Fact
from chimera.gateway.tasks import rules
from chimera.gateway.tasks.model import Change, StartedBy, Task, TaskKey, TaskState, fact_data
from chimera.kernel.ids import new_id
from chimera_host.contract.problem import Problem

CORE = tuple(table.c[name] for name in Task.__struct_fields__)
"""The columns of a `Task`."""

_CHANGED = (
    *("state", "version", "updated", "due", "attempts", "failures", "losses", "worker", "token", "cancelling"),
    *("seen", "started", "finished", "expires", "history", "problem", "lane"),
)
_HISTORY = msgspec.json.Decoder(tuple[Change, ...])
_ORIGIN = msgspec.json.Decoder(StartedBy)
_PROBLEM = msgspec.json.Decoder(Problem)
_ENCODER = msgspec.json.Encoder()

_FACTS: dict[TaskState, str] = {
    "running": "task.started",
    "succeeded": "task.succeeded",
    "failed": "task.failed",
    "cancelled": "task.cancelled",
    "expired": "task.expired",
}


class TaskRows:
    """The statements that lock and change tasks, compiled for a database."""

    def __init__(self, database: Database, *, keep: float, letter_keep: float) -> None:
        """Keep finished tasks for `keep` seconds, and dead letters of agents for `letter_keep`."""
        self._keep = keep
        self._ends = EndedTasks(database, letter_keep=letter_keep)
        mine = (table.c.tenant == bindparam("the_tenant")) & (table.c.task == bindparam("the_task"))
        self._locked = database.prepared(select(*CORE).where(mine).with_for_update())
        changed: dict[str, Any] = {name: bindparam(f"new_{name}") for name in _CHANGED}
        still = mine & (table.c.version == bindparam("the_version"))
        self._save = database.prepared(update(table).where(still).values(changed))
        result = {**changed, "result": bindparam("new_result"), "progress": null()}
        self._save_result = database.prepared(update(table).where(still).values(result))

    def lock(self, connection: Connection, key: TaskKey) -> Task | None:
        """The task, locked until the transaction ends."""
        row = self._locked.one(connection, the_tenant=key.tenant, the_task=key.task)
        return None if row is None else task_of(row)

    def apply(
        self, connection: Connection, before: Task, event: rules.Event, now: float, result: bytes | None = None
    ) -> Task:
        """What a locked task becomes by `event`, written down; raises what the rules refuse."""
        made = rules.after(before, event, now)
        if made is before:
            return before
        if made.is_finished:
            made = replace(made, expires=now + self._keep)
        values = _changes(before, made)
        if result is None:
            done = self._save.run(connection, **values)
        else:
            done = self._save_result.run(connection, **values, new_result=result)
        assert done == 1, "the row is locked"
        tell(connection, before, made, now)
        self._ends.told(connection, made, now, result)
        return made

    def apply_all(self, connection: Connection, tasks: Sequence[Task], event: rules.Event, now: float) -> list[Task]:
        """The same for many locked tasks, by one statement; only those that changed are returned."""
        pairs = []
        for before in tasks:
            made = rules.after(before, event, now)
            if made is not before:
                pairs.append((before, replace(made, expires=now + self._keep) if made.is_finished else made))
        if pairs:
            self._save.run_many(connection, [_changes(before, made) for before, made in pairs])
            for before, made in pairs:
                tell(connection, before, made, now)
                self._ends.told(connection, made, now)
        return [made for _, made in pairs]


def task_of(row: Sequence[Any]) -> Task:
    """A row of `CORE` as a task."""
    values = dict(zip(Task.__struct_fields__, row, strict=True))
    values["cancelling"] = bool(values["cancelling"])
    values["history"] = _HISTORY.decode(values["history"])
    values["problem"] = None if values["problem"] is None else _PROBLEM.decode(values["problem"])
    values["origin"] = None if values["origin"] is None else _ORIGIN.decode(values["origin"])
    return Task(**values)


def columns_of(made: Task) -> dict[str, Any]:
    """A task as the columns of its row."""
    values = {name: getattr(made, name) for name in Task.__struct_fields__}
    values["cancelling"] = int(made.cancelling)
    values["history"] = _ENCODER.encode(made.history)
    values["problem"] = None if made.problem is None else _ENCODER.encode(made.problem)
    values["origin"] = None if made.origin is None else _ENCODER.encode(made.origin)
    values["lane"] = made.lane
    return values


def tell(connection: Connection, before: Task | None, made: Task, now: float) -> None:
    """Record the fact of a change of state; a task that is queued because it is due tells nothing."""
    if before is None:
        what = "task.submitted"
    elif made.state == before.state:
        return
    elif before.state == "running" and not made.is_finished:
        what = "task.retried"
    elif made.state in _FACTS:
        what = _FACTS[made.state]
    else:
        return
    subject = f"agents/{made.agent}/tasks/{made.task}"
    fact = Fact(
        id=new_id("evt"),
        type=what,
        tenant=made.tenant,
        subject=subject,
        at=now,
        data=fact_data(made),
        causes=None if made.origin is None else Causes(hops=made.origin.hops),
    )
    journal(connection).fact(fact)


def _changes(before: Task, made: Task) -> dict[str, Any]:
    values = columns_of(made)
    changed = {f"new_{name}": values[name] for name in _CHANGED}
    return {"the_tenant": made.tenant, "the_task": made.task, "the_version": before.version, **changed}


def as_record(made: Task) -> dict[str, Any]:
    """A task as it is exported."""
    values = asdict(made)
    values["history"] = msgspec.to_builtins(made.history)
    values["origin"] = msgspec.to_builtins(made.origin)
    values["problem"] = msgspec.to_builtins(made.problem)
    return values
