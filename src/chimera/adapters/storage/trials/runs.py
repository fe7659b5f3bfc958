"""Runs of tests in the database. A result is kept once; the counts of its run grow in the same transaction."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, select, tuple_, update

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.leases import check_lease
from chimera.adapters.storage.refusing import count_refused, names_twice
from chimera.adapters.storage.removing import delete_keys
from chimera.adapters.storage.schema.catalogue import batch, batch_item
from chimera.adapters.storage.schema.trials import trial_result, trial_run
from chimera.agents.catalogue import UnknownBatch
from chimera.delivery.model import Outcome
from chimera.delivery.trials.model import UNFINISHED, Candidate, CaseResult, Counts, Run, RunState
from chimera.immune.audit.model import AuditRecord
from chimera.kernel.leases import Lease

_RESULTS = msgspec.json.Decoder(CaseResult)
_CANDIDATES = msgspec.json.Decoder(list[Candidate])
_ENCODER = msgspec.json.Encoder()
_SHOWN = [column for column in trial_run.c if column.name not in ("candidates", "key", "expires")]


class StoredRuns:
    """The port `RunStore`."""

    def __init__(self, database: Database, *, keep: float) -> None:
        """Keep runs in `database`, `keep` seconds after their end."""
        self._database = database
        self._keep = keep
        insert = database.insert(trial_run).on_conflict_do_nothing(index_elements=["tenant", "key"])
        self._put = database.prepared_insert(trial_run, insert)
        self._put_result = database.prepared_insert(
            trial_result, database.insert(trial_result).on_conflict_do_nothing()
        )

    async def create(self, run: Run, candidates: Sequence[Candidate], key: str) -> Run:
        """See `RunStore`."""
        kept = _ENCODER.encode(list(candidates))

        def job(connection: Connection) -> Run:
            values = msgspec.structs.asdict(run)
            counts: Counts = values.pop("counts")
            values |= msgspec.structs.asdict(counts)
            if self._put.run(connection, **values, key=key, expires=None, candidates=kept) == 1:
                _record(connection, run, run.by, "test:run", "done", {"agents": run.agents})
                return run
            query = select(*_SHOWN).where((trial_run.c.tenant == run.tenant) & (trial_run.c.key == key))
            return _run(connection.execute(query).one())

        return await self._database.write(job)

    async def get(self, tenant: str, run: str) -> Run | None:
        """See `RunStore`."""
        query = select(*_SHOWN).where(_is(tenant, run))
        row = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        return None if row is None else _run(row)

    async def page(self, tenant: str, before: str | None, limit: int) -> Sequence[Run]:
        """See `RunStore`."""
        query = select(*_SHOWN).where(trial_run.c.tenant == tenant).order_by(trial_run.c.run.desc()).limit(limit)
        if before is not None:
            query = query.where(trial_run.c.run < before)
        return [_run(row) for row in await self._database.read(lambda connection: connection.execute(query).all())]

    async def of_batch(self, tenant: str, batch_id: str) -> list[Candidate]:
        """What a batch of definitions that isn't committed holds, if all of them are valid.

        Raises `UnknownBatch`, `BatchHasFaults`, `DuplicateNames`.
        """
        i = batch_item.c
        its = select(i.name, i.revision).where((i.tenant == tenant) & (i.batch == batch_id)).order_by(i.position)

        def read(connection: Connection) -> list[Candidate]:
            is_open = (batch.c.tenant == tenant) & (batch.c.id == batch_id) & batch.c.result.is_(None)
            if connection.execute(select(batch.c.id).where(is_open)).scalar() is None:
                raise UnknownBatch(f"no batch {batch_id[:64]!r} is open", next_step="send the definitions again")
            count_refused(connection, tenant, batch_id, False)
            names_twice(connection, tenant, batch_id, False)
            return [Candidate(agent=row.name, revision=row.revision) for row in connection.execute(its)]

        return await self._database.read(read)

    async def unfinished(self) -> Sequence[Run]:
        """See `RunStore`."""
        query = select(*_SHOWN).where(trial_run.c.expires.is_(None)).order_by(trial_run.c.run)
        return [_run(row) for row in await self._database.read(lambda connection: connection.execute(query).all())]

    async def candidates(self, tenant: str, run: str) -> Sequence[Candidate]:
        """See `RunStore`."""
        query = select(trial_run.c.candidates).where(_is(tenant, run))
        data = await self._database.read(lambda connection: connection.execute(query).scalar())
        return [] if data is None else _CANDIDATES.decode(data)

    async def begin(self, tenant: str, run: str, *, total: int, untested: int) -> Collection[tuple[str, str]]:
        """See `RunStore`."""
        r = trial_result.c
        there = select(r.agent, r.case).where((r.tenant == tenant) & (r.run == run))

        def job(connection: Connection) -> set[tuple[str, str]]:
            values = {
                "state": "running",
                "total": total,
                "untested": untested,
                "updated": self._database.now(connection),
            }
            connection.execute(update(trial_run).where(_is(tenant, run) & _is_unfinished()).values(values))
            return {(row.agent, row.case) for row in connection.execute(there)}

        return await self._database.write(job)

    async def add(self, tenant: str, run: str, results: Sequence[CaseResult], *, held: Lease | None = None) -> bool:
        """See `RunStore`."""

        def job(connection: Connection) -> bool:
            if held is not None:
                check_lease(connection, held)
            its = select(trial_run.c.expires).where(_is(tenant, run)).with_for_update()
            found = connection.execute(its).one_or_none()
            if found is None or found.expires is not None:
                return False
            counted: dict[str, Any] = {"updated": self._database.now(connection)}
            for one in results:
                row = {"tenant": tenant, "run": run, "agent": one.agent, "case": one.case, "outcome": one.outcome}
                if self._put_result.run(connection, **row, data=_ENCODER.encode(one)) == 1:
                    counted[one.outcome] = counted.get(one.outcome, trial_run.c[one.outcome]) + 1
            connection.execute(update(trial_run).where(_is(tenant, run)).values(counted))
            return True

        return await self._database.write(job)

    async def finish(
        self,
        tenant: str,
        run: str,
        state: RunState,
        *,
        by: str,
        problem: str | None = None,
        held: Lease | None = None,
    ) -> Run | None:
        """See `RunStore`."""

        def job(connection: Connection) -> Run | None:
            if held is not None:
                check_lease(connection, held)
            now = self._database.now(connection)
            values = {"state": state, "problem": problem, "updated": now, "expires": now + self._keep}
            ended = connection.execute(update(trial_run).where(_is(tenant, run) & _is_unfinished()).values(values))
            row = connection.execute(select(*_SHOWN).where(_is(tenant, run))).one_or_none()
            if row is None:
                return None
            made = _run(row)
            if ended.rowcount and state == "cancelled":
                _record(connection, made, by, "test:cancel", "done", {})
            return made

        return await self._database.write(job)

    async def results(
        self, tenant: str, run: str, *, outcomes: Collection[Outcome], after: tuple[str, str], limit: int
    ) -> Sequence[CaseResult]:
        """See `RunStore`."""
        r = trial_result.c
        query = select(r.data).where((r.tenant == tenant) & (r.run == run))
        query = query.where(tuple_(r.agent, r.case) > after).order_by(r.agent, r.case).limit(limit)
        if outcomes:
            query = query.where(r.outcome.in_(list(outcomes)))
        rows = await self._database.read(lambda connection: connection.execute(query).scalars().all())
        return [_RESULTS.decode(row) for row in rows]


def expire_trials(connection: Connection, now: float, limit: int) -> int:
    """Remove runs that are kept no longer, with their results, `limit` runs at most; how many."""
    c = trial_run.c
    over = select(c.tenant, c.run).where(c.expires <= now).order_by(c.expires).limit(limit)
    rows = [tuple(row) for row in connection.execute(over.with_for_update(skip_locked=True)).all()]
    for tenant, run in rows:
        connection.execute(delete(trial_result).where((trial_result.c.tenant == tenant) & (trial_result.c.run == run)))
    if rows:
        delete_keys(connection, (c.tenant, c.run), rows)
    return len(rows)


def _is(tenant: str, run: str) -> Any:
    return (trial_run.c.tenant == tenant) & (trial_run.c.run == run)


def _is_unfinished() -> Any:
    return trial_run.c.state.in_(sorted(UNFINISHED))


def _run(row: Row[Any]) -> Run:
    found = dict(row._mapping)
    counts = Counts(**{name: found.pop(name) for name in ("total", "passed", "failed", "skipped")})
    return Run(**found, counts=counts)


def _record(connection: Connection, run: Run, by: str, action: str, outcome: str, detail: dict[str, Any]) -> None:
    entry = AuditRecord(
        at=run.updated,
        tenant=run.tenant,
        actor=by,
        action=action,
        resource=f"tests/{run.run}",
        outcome=outcome,
        detail=detail,
    )
    journal(connection).audit(entry)
