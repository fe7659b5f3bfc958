"""LangGraph's checkpoints in the database (`CheckpointStore`).

A checkpoint is kept whole, so that reading one is one look-up and removing an old one breaks none that is newer; a step
costs the graph's state once. They live as long as their session or, without one, as their run. Ids of checkpoints sort
by their time (version 6 UUIDs), which is LangGraph's contract.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias, assert_never

from msgspec.structs import replace
from sqlalchemy import Connection, and_, delete, or_, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.schema.state import checkpoint, checkpoint_write
from chimera.adapters.storage.state.runs import RunStorage, check_room, prune_thread
from chimera.adapters.storage.state.sessions import run_scope, session_scope
from chimera.gateway.state.model import StoredRun
from chimera.gateway.state.ports import RunLimits
from chimera_host.contract.state import (
    CheckpointAnswer,
    CheckpointAsk,
    CopyThread,
    DeleteCheckpoints,
    GetCheckpoint,
    ListCheckpoints,
    PutCheckpoint,
    PutWrites,
    StoredCheckpoint,
    StoredWrite,
    Typed,
)

_CHECKPOINT_KEY = ["tenant", "agent", "scope", "thread", "namespace", "checkpoint"]
_WRITE_KEY = [*_CHECKPOINT_KEY, "task", "idx"]
Place: TypeAlias = dict[str, str]
"""Tenant, agent, scope and thread."""


class CheckpointStorage:
    """The store of checkpoints on one database."""

    def __init__(self, database: Database, runs: RunStorage) -> None:
        """Compile the statements for `database`; `runs` says whether a run is still worked on."""
        self._database = database
        self._runs = runs
        self._put = database.prepared_insert(checkpoint, database.upsert(checkpoint, _CHECKPOINT_KEY))
        self._add = database.prepared_insert(
            checkpoint_write, database.insert(checkpoint_write).on_conflict_do_nothing()
        )
        self._replace = database.prepared_insert(checkpoint_write, database.upsert(checkpoint_write, _WRITE_KEY))

    async def ask(
        self, run: StoredRun, ask: CheckpointAsk, *, limits: RunLimits, now: float, life: float
    ) -> CheckpointAnswer:
        """See `CheckpointStore`."""
        place = {"tenant": run.tenant, "agent": run.agent, "scope": scope_of(run), "thread": ask.thread}
        if isinstance(ask, GetCheckpoint | ListCheckpoints):
            asked = ask
            return await self._database.read(lambda connection: _found(connection, place, asked))
        changes = ask

        def job(connection: Connection) -> None:
            found = self._runs.working_in(connection, run, life)
            match changes:
                case PutCheckpoint():
                    size = found.size + len(changes.value.data) + len(changes.metadata.data)
                    self._grow(connection, found, size, limits, now)
                    self._put.run(connection, **_row(place, changes, run, now))
                case PutWrites():
                    size = found.size + sum(len(write.value.data) for write in changes.writes)
                    self._grow(connection, found, size, limits, now)
                    self._write(connection, place, changes.namespace, changes.checkpoint, changes.writes)
                case DeleteCheckpoints():
                    _delete(connection, place, changes)
                case CopyThread():
                    self._copy(connection, place, changes.target)
                case _:
                    assert_never(changes)

        await self._database.write(job)
        return CheckpointAnswer()

    def _grow(self, connection: Connection, found: StoredRun, size: int, limits: RunLimits, now: float) -> None:
        check_room(found, size, found.steps, limits)
        self._runs.grow_in(connection, replace(found, size=size), now, limits.open_for)

    def _write(
        self, connection: Connection, place: Place, namespace: str, name: str, writes: Sequence[StoredWrite]
    ) -> None:
        rows = [_write_row(place, namespace, name, write) for write in writes]
        self._add.run_many(connection, [row for row in rows if row["idx"] >= 0])
        self._replace.run_many(connection, [row for row in rows if row["idx"] < 0])

    def _copy(self, connection: Connection, place: Place, target: str) -> None:
        for table, statement in ((checkpoint, self._put), (checkpoint_write, self._replace)):
            rows = connection.execute(select(table).where(*_in(table, place))).mappings().all()
            statement.run_many(connection, [{**row, "thread": target} for row in rows])


def scope_of(run: StoredRun) -> str:
    """Whose the checkpoints of a run are: its session's, or its own where it has none."""
    return run_scope(run.run) if run.session is None else session_scope(run.session)


def _found(connection: Connection, place: Place, ask: GetCheckpoint | ListCheckpoints) -> CheckpointAnswer:
    query = select(checkpoint).where(*_in(checkpoint, place))
    if ask.namespace is not None:
        query = query.where(checkpoint.c.namespace == ask.namespace)
    if ask.checkpoint is not None:
        query = query.where(checkpoint.c.checkpoint == ask.checkpoint)
    limit = 1
    if isinstance(ask, ListCheckpoints):
        limit = ask.limit
        if ask.before is not None:
            query = query.where(checkpoint.c.checkpoint < ask.before)
        if ask.after is not None:
            namespace, last = ask.after
            further = and_(checkpoint.c.namespace == namespace, checkpoint.c.checkpoint < last)
            query = query.where(or_(checkpoint.c.namespace > namespace, further))
    query = query.order_by(checkpoint.c.namespace, checkpoint.c.checkpoint.desc()).limit(limit)
    rows = connection.execute(query).all()
    return CheckpointAnswer(checkpoints=tuple(_stored(connection, place, row) for row in rows))


def _stored(connection: Connection, place: Place, row: Any) -> StoredCheckpoint:
    columns = checkpoint_write.c
    query = (
        select(columns.task, columns.idx, columns.channel, columns.kind, columns.value, columns.path)
        .where(*_in(checkpoint_write, place), columns.namespace == row.namespace, columns.checkpoint == row.checkpoint)
        .order_by(columns.path, columns.task, columns.idx)
    )
    writes = [
        StoredWrite(task=task, idx=idx, channel=channel, value=Typed(kind=kind, data=value), path=path)
        for task, idx, channel, kind, value, path in connection.execute(query).all()
    ]
    metadata_kind, _, metadata = row.metadata.partition(b"\0")
    return StoredCheckpoint(
        namespace=row.namespace,
        checkpoint=row.checkpoint,
        value=Typed(kind=row.kind, data=row.value),
        metadata=Typed(kind=metadata_kind.decode(), data=metadata),
        parent=row.parent,
        writes=tuple(writes),
    )


def _delete(connection: Connection, place: Place, ask: DeleteCheckpoints) -> None:
    if ask.keep is not None:
        query = select(checkpoint.c.namespace).where(*_in(checkpoint, place)).distinct()
        for namespace in connection.execute(query).scalars().all():
            prune_thread(connection, **place, namespace=namespace, keep=ask.keep)
        return
    for table in (checkpoint_write, checkpoint):
        doomed = delete(table).where(*_in(table, place))
        if ask.checkpoints is not None:
            doomed = doomed.where(table.c.checkpoint.in_(ask.checkpoints))
        connection.execute(doomed)


def _in(table: Any, place: Place) -> list[Any]:
    return [table.c[name] == value for name, value in place.items()]


def _row(place: Place, put: PutCheckpoint, run: StoredRun, now: float) -> dict[str, Any]:
    return {
        **place,
        "namespace": put.namespace,
        "checkpoint": put.checkpoint,
        "parent": put.parent,
        "kind": put.value.kind,
        "value": put.value.data,
        "metadata": put.metadata.kind.encode() + b"\0" + put.metadata.data,
        "run": run.run,
        "at": now,
    }


def _write_row(place: Place, namespace: str, name: str, write: StoredWrite) -> dict[str, Any]:
    return {
        **place,
        "namespace": namespace,
        "checkpoint": name,
        "task": write.task,
        "idx": write.idx,
        "channel": write.channel,
        "kind": write.value.kind,
        "value": write.value.data,
        "path": write.path,
    }
