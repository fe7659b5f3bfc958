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
    ListThreads,
    PutCheckpoint,
    PutWrites,
    Several,
    StoredCheckpoint,
    StoredWrite,
    Typed,
)

_CHECKPOINT_KEY = ["tenant", "agent", "scope", "thread", "namespace", "checkpoint"]
_WRITE_KEY = [*_CHECKPOINT_KEY, "task", "idx"]
Place: TypeAlias = dict[str, str]
"""Tenant, agent and scope, and the thread."""
Change: TypeAlias = PutCheckpoint | PutWrites | DeleteCheckpoints | CopyThread


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
        place = {"tenant": run.tenant, "agent": run.agent, "scope": scope_of(run)}
        match ask:
            case GetCheckpoint() | ListCheckpoints():
                return await self._database.read(lambda connection: _found(connection, place, ask))
            case ListThreads():
                return await self._database.read(lambda connection: _threads(connection, place, ask))
            case _:
                await self._change(run, place, ask.asks if isinstance(ask, Several) else (ask,), limits, now, life)
                return CheckpointAnswer()

    async def _change(
        self, run: StoredRun, place: Place, asks: Sequence[Change], limits: RunLimits, now: float, life: float
    ) -> None:
        more = sum(_size(ask) for ask in asks)

        def job(connection: Connection) -> None:
            found = self._runs.working_in(connection, run, life)
            if more:
                grown = replace(found, size=found.size + more)
                check_room(found, grown.size, found.steps, limits)
                self._runs.grow_in(connection, grown, now, limits.open_for)
            for ask in asks:
                self._do(connection, {**place, "thread": ask.thread}, ask, run, now)

        await self._database.write(job)

    def _do(self, connection: Connection, place: Place, ask: Change, run: StoredRun, now: float) -> None:
        match ask:
            case PutCheckpoint():
                self._put.run(connection, **_row(place, ask, run, now))
            case PutWrites():
                self._write(connection, place, ask.namespace, ask.checkpoint, ask.writes)
            case DeleteCheckpoints():
                _delete(connection, place, ask)
            case CopyThread():
                self._copy(connection, place, ask.target, run)
            case _:
                assert_never(ask)

    def _write(
        self, connection: Connection, place: Place, namespace: str, name: str, writes: Sequence[StoredWrite]
    ) -> None:
        rows = [_write_row(place, namespace, name, write) for write in writes]
        self._add.run_many(connection, [row for row in rows if row["idx"] >= 0])
        self._replace.run_many(connection, [row for row in rows if row["idx"] < 0])

    def _copy(self, connection: Connection, place: Place, target: str, run: StoredRun) -> None:
        for table, statement in ((checkpoint, self._put), (checkpoint_write, self._replace)):
            fields = {"thread": target, "run": run.run} if table is checkpoint else {"thread": target}
            rows = connection.execute(select(table).where(*_in(table, place))).mappings().all()
            statement.run_many(connection, [{**row, **fields} for row in rows])


def scope_of(run: StoredRun) -> str:
    """Whose the checkpoints of a run are: its session's, or its own where it has none."""
    return run_scope(run.run) if run.session is None else session_scope(run.session)


def _found(connection: Connection, place: Place, ask: GetCheckpoint | ListCheckpoints) -> CheckpointAnswer:
    place = {**place, "thread": ask.thread}
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


def _threads(connection: Connection, place: Place, ask: ListThreads) -> CheckpointAnswer:
    thread = checkpoint.c.thread
    query = select(thread).distinct().where(*_in(checkpoint, place), thread > ask.after).order_by(thread)
    return CheckpointAnswer(threads=tuple(connection.execute(query.limit(ask.limit)).scalars().all()))


def _size(ask: Change) -> int:
    """The bytes that a run holds more with it."""
    match ask:
        case PutCheckpoint():
            return len(ask.value.data) + len(ask.metadata.data)
        case PutWrites():
            return sum(len(write.value.data) for write in ask.writes)
        case _:
            return 0


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
