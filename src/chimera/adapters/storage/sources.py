"""Sources in the database (`SourceStore`), and how a commit becomes live at once (`Delivery`).

A commit is delivered in one transaction: its batch, the agents that it takes out of service, the rows of what the
source has, the pins, and the source's state. It shows the lease of whoever follows, and the version of the source that
it was read with. So whatever is killed, either all of a commit is live and known to be, or nothing of it is.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, RowMapping, Select, bindparam, delete, func, select, update

from chimera.adapters.storage.batches import BatchStatements
from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.leases import check_lease
from chimera.adapters.storage.schema.catalogue import agent, history
from chimera.adapters.storage.schema.sources import git_agent, git_pin, git_source
from chimera.adapters.storage.sequence import hold_sequence
from chimera.adapters.storage.source_rows import columns_of, find_source, is_source, source_of
from chimera.agents.catalogue import StagedItem
from chimera.delivery.git.errors import InvalidSource, SourceChanged, UnknownSource
from chimera.delivery.git.ports import Delivered, Handover, PackedCode, Row
from chimera.delivery.git.rules import wanted_digest
from chimera.delivery.git.sources import Drift, Source, SourceSpec, SourceState
from chimera.events.catalogue import SourceChanged as SourceFact
from chimera.events.model import Fact
from chimera.immune.audit.model import AuditRecord
from chimera.kernel.clock import Clock, SystemClock
from chimera.kernel.ids import new_id
from chimera.kernel.leases import Lease

T = TypeVar("T")

MOST_SOURCES = 1_000
_PAGE = 500


class SourceStorage:
    """The sources of one database."""

    def __init__(self, database: Database, catalogue: Catalogue, clock: Clock | None = None) -> None:
        """Keep them in `database`, which `catalogue` is on."""
        self._database = database
        self._catalogue = catalogue
        self._clock = clock or SystemClock()
        self._batches = BatchStatements(database, self._clock)
        self._put_row = database.prepared_insert(git_agent, database.upsert(git_agent, ("tenant", "agent")))
        self._drop_file = database.prepared(
            delete(git_agent).where(
                (git_agent.c.tenant == bindparam("the_tenant"))
                & (git_agent.c.source == bindparam("the_source"))
                & (git_agent.c.file == bindparam("the_file"))
            )
        )

    # -- as people change them -----------------------------------------------------------------------------------------

    async def put(self, tenant: str, name: str, spec: SourceSpec, by: str) -> Source:
        """Follow a branch, or follow it otherwise."""

        def job(connection: Connection) -> Source:
            now = self._database.now(connection)
            found = find_source(connection, tenant, name, lock=True)
            if found is None:
                count = select(func.count()).select_from(git_source).where(git_source.c.tenant == tenant)
                if connection.execute(count).scalar_one() >= MOST_SOURCES:
                    raise InvalidSource(f"a tenant follows {MOST_SOURCES:,} sources at most", next_step="remove one")
                made = Source(tenant=tenant, name=name, spec=spec, state=SourceState(), created=now, due=now, version=1)
                connection.execute(self._database.insert(git_source).values(columns_of(made)))
            elif found.spec == spec:
                return found
            else:
                same = wanted_digest(found.spec) == wanted_digest(spec)
                state = replace(found.state, tried="", seen=found.state.seen if same else None)
                made = replace(found, spec=spec, state=state, due=now, version=found.version + 1)
                connection.execute(update(git_source).where(is_source(tenant, name)).values(columns_of(made)))
            _audit(connection, "source.put", made, by, now, {"url": spec.url, "branch": spec.branch, "path": spec.path})
            return made

        return await self._database.write(job)

    async def get(self, tenant: str, name: str) -> Source | None:
        """One source."""
        return await self._database.read(lambda connection: find_source(connection, tenant, name))

    async def page(self, tenant: str, after: str, limit: int) -> list[Source]:
        """Sources by name."""
        query = select(git_source).where((git_source.c.tenant == tenant) & (git_source.c.name > after))
        return await self._sources(query.order_by(git_source.c.name).limit(limit))

    async def run(self, tenant: str, name: str, by: str, *, prune: str | None, rewrite: str | None) -> Source:
        """Have it looked at now; what is confirmed counts for these commits."""

        def job(connection: Connection) -> Source:
            now = self._database.now(connection)
            found = _there(connection, tenant, name)
            state = replace(
                found.state,
                confirmed_prune=prune or found.state.confirmed_prune,
                confirmed_rewrite=rewrite or found.state.confirmed_rewrite,
                tried="",
                failures=0,
            )
            made = replace(found, state=state, due=now, version=found.version + 1)
            connection.execute(update(git_source).where(is_source(tenant, name)).values(columns_of(made)))
            if prune or rewrite:
                detail = {"allow_prune": prune or "", "allow_rewrite": rewrite or ""}
                _audit(connection, "source.confirm", made, by, now, detail)
            return made

        return await self._database.write(job)

    async def remove(self, tenant: str, name: str, by: str) -> int:
        """Follow it no more; how many agents it had, which stay live."""

        def job(connection: Connection) -> int:
            found = _there(connection, tenant, name)
            mine = (git_agent.c.tenant == tenant) & (git_agent.c.source == name)
            count = connection.execute(delete(git_agent).where(mine)).rowcount
            connection.execute(delete(git_source).where(is_source(tenant, name)))
            _audit(connection, "source.remove", found, by, self._database.now(connection), {"agents": count})
            return int(count)

        return await self._database.write(job)

    # -- as whoever follows sees them (`SourceStore`) ------------------------------------------------------------------

    async def due(self, now: float, limit: int) -> list[Source]:
        """See `SourceStore`."""
        query = select(git_source).where(git_source.c.due <= now).order_by(git_source.c.due).limit(limit)
        return await self._sources(query)

    async def put_state(self, source: Source, state: SourceState, due: float, held: Lease) -> None:
        """See `SourceStore`."""

        def job(connection: Connection) -> None:
            check_lease(connection, held)
            self._store_state(connection, source, state, due)

        await self._database.write(job)

    async def rows(self, source: Source, files: Sequence[str] | None) -> list[Row]:
        """See `SourceStore`."""
        mine = _mine(source)

        def look(connection: Connection) -> list[Row]:
            if files is None:
                return [_row(one) for one in connection.execute(select(git_agent).where(mine)).mappings()]
            found: list[Row] = []
            for some in _chunks(files):
                query = select(git_agent).where(mine & git_agent.c.file.in_(some))
                found += [_row(one) for one in connection.execute(query).mappings()]
            return found

        return await self._database.read(look)

    async def folders(self, source: Source) -> Mapping[str, list[str]]:
        """See `SourceStore`."""
        c = git_agent.c
        query = select(c.folder, c.file).where(_mine(source) & c.folder.is_not(None)).distinct()
        found: dict[str, list[str]] = {}
        for folder, file in await self._database.read(lambda connection: connection.execute(query).all()):
            found.setdefault(folder, []).append(file)
        return found

    async def holders(self, tenant: str, agents: Sequence[str]) -> Mapping[str, tuple[str, str]]:
        """See `SourceStore`."""
        c = git_agent.c

        def look(connection: Connection) -> dict[str, tuple[str, str]]:
            found: dict[str, tuple[str, str]] = {}
            for some in _chunks(agents):
                query = select(c.agent, c.source, c.file).where((c.tenant == tenant) & c.agent.in_(some))
                found.update({row.agent: (row.source, row.file) for row in connection.execute(query)})
            return found

        return await self._database.read(look)

    async def count(self, source: Source) -> int:
        """How many agents it has."""
        query = select(func.count()).select_from(git_agent).where(_mine(source))
        return int(await self._database.read(lambda connection: connection.execute(query).scalar_one()))

    async def drift(self, source: Source, limit: int) -> tuple[int, list[Drift]]:
        """See `SourceStore`."""
        return await self._database.read(lambda connection: _drift(connection, source, limit))

    async def sequence(self) -> int:
        """See `SourceStore`."""
        return await self._catalogue.sequence()

    async def open_batch(self, tenant: str) -> str:
        """See `SourceStore`."""
        return await self._catalogue.open_batch(tenant)

    async def put_code(self, tenant: str, code: PackedCode, requirements: str | None) -> None:
        """See `SourceStore`."""
        await self._catalogue.put_bundle(tenant, code.digest, code.data, requirements)

    async def stage(self, tenant: str, batch: str, items: Sequence[StagedItem]) -> None:
        """See `SourceStore`."""
        await self._catalogue.stage(tenant, batch, items)

    # -- delivering ----------------------------------------------------------------------------------------------------

    async def deliver(self, handover: Handover, state: SourceState, due: float, held: Lease) -> Delivered:
        """See `Delivery`: all of it live at once."""
        source, by = handover.source, f"git:{handover.source.name}"

        def job(connection: Connection) -> Delivered:
            sequence = hold_sequence(connection)
            check_lease(connection, held)
            if handover.batch is not None:
                sequence = self._batches.commit(connection, source.tenant, handover.batch, by=by).sequence
            if handover.deletions:
                _, sequence = self._batches.delete_agents(connection, source.tenant, handover.deletions, by)
            self._put_rows(connection, handover)
            self._store_state(connection, source, replace(state, sequence=-1), due)
            return Delivered(sequence=sequence)

        return await self._database.write(job)

    async def record(self, handover: Handover, state: SourceState, due: float, held: Lease) -> None:
        """Note what a commit made of the source's agents, which something else has made live."""

        def job(connection: Connection) -> None:
            hold_sequence(connection)
            check_lease(connection, held)
            self._put_rows(connection, handover)
            self._store_state(connection, handover.source, replace(state, sequence=-1), due)

        await self._database.write(job)

    def _put_rows(self, connection: Connection, handover: Handover) -> None:
        source = handover.source
        if handover.files is None:
            connection.execute(delete(git_agent).where(_mine(source)))
        else:
            for file in handover.files:
                self._drop_file.run(connection, the_tenant=source.tenant, the_source=source.name, the_file=file)
        self._put_row.run_many(
            connection,
            (
                {
                    "tenant": source.tenant,
                    "agent": row.agent,
                    "source": source.name,
                    "file": row.file,
                    "number": row.number,
                    "revision": row.revision,
                    "folder": row.folder,
                }
                for row in handover.rows
            ),
        )
        self._pin(connection, handover)

    def _pin(self, connection: Connection, handover: Handover) -> None:
        """Pin what became live by this commit; what was live before keeps the pin that it has."""
        source, h = handover.source, history.c
        wanted = {row.agent: row.revision for row in handover.rows}
        for some in _chunks(sorted(wanted)):
            query = (
                select(agent.c.name, agent.c.revision, h.sequence)
                .join(
                    history, (h.tenant == agent.c.tenant) & (h.agent == agent.c.name) & (h.sequence == agent.c.sequence)
                )
                .where((agent.c.tenant == source.tenant) & (agent.c.status == "live") & agent.c.name.in_(some))
            )
            rows = [
                {
                    "tenant": source.tenant,
                    "agent": row.name,
                    "sequence": row.sequence,
                    "source": source.name,
                    "repository": source.spec.url,
                    "commit": handover.commit,
                }
                for row in connection.execute(query)
                if row.revision == wanted[row.name]
            ]
            if rows:
                connection.execute(self._database.insert(git_pin).on_conflict_do_nothing(), rows)

    def _store_state(self, connection: Connection, source: Source, state: SourceState, due: float) -> None:
        """Keep a state, and when to look next; a webhook that came meanwhile has it looked at at once."""
        mine = is_source(source.tenant, source.name) & (git_source.c.version == source.version)
        now = self._database.now(connection)
        hooked = (git_source.c.due != source.due) & (git_source.c.due <= now)
        found = connection.execute(select(hooked).where(mine).with_for_update()).scalar()
        if found is None:
            raise SourceChanged(
                f"the source {source.name} was changed or removed meanwhile", next_step="nothing: it is looked at anew"
            )
        values = {"state": msgspec.json.encode(state).decode(), "due": now if found else due}
        connection.execute(update(git_source).where(mine).values(values))
        before = source.state
        if (state.phase, state.commit, state.reason) != (before.phase, before.commit, before.reason):
            data = SourceFact(
                source=source.name,
                phase=state.phase,
                commit=state.commit,
                seen=state.seen,
                reason=state.reason,
                drifted=state.drifted,
            )
            subject = f"sources/{source.name}"
            fact = Fact(
                id=new_id("evt"), type="source.changed", tenant=source.tenant, subject=subject, at=now, data=data
            )
            journal(connection).fact(fact)

    async def _sources(self, query: Select[Any]) -> list[Source]:
        return await self._database.read(
            lambda connection: [source_of(row) for row in connection.execute(query).mappings()]
        )


def _drift(connection: Connection, source: Source, limit: int) -> tuple[int, list[Drift]]:
    c, h = git_agent.c, history.c
    joined = git_agent.outerjoin(
        agent, (agent.c.tenant == c.tenant) & (agent.c.name == c.agent) & (agent.c.status == "live")
    )
    differs = _mine(source) & (agent.c.revision.is_(None) | (agent.c.revision != c.revision))
    count = connection.execute(select(func.count()).select_from(joined).where(differs)).scalar_one()
    if not count:
        return 0, []
    query = select(c.agent, c.revision.label("wanted"), agent.c.revision.label("live")).select_from(joined)
    found = connection.execute(query.where(differs).order_by(c.agent).limit(limit)).all()
    last: dict[str, tuple[str | None, float]] = {}
    changes = select(h.agent, h.by, h.at).where((h.tenant == source.tenant) & h.agent.in_([row.agent for row in found]))
    for row in connection.execute(changes.order_by(h.sequence)):
        last[row.agent] = (row.by, row.at)
    drift = [
        Drift(
            agent=row.agent,
            wanted=row.wanted,
            live=row.live,
            by=last.get(row.agent, (None, None))[0],
            at=last.get(row.agent, (None, None))[1],
        )
        for row in found
    ]
    return int(count), drift


def _there(connection: Connection, tenant: str, name: str) -> Source:
    found = find_source(connection, tenant, name, lock=True)
    if found is None:
        raise no_source(name)
    return found


def no_source(name: str) -> UnknownSource:
    """What is said of a name that no source has."""
    return UnknownSource(f"there is no source {name[:100]!r}", next_step="see `chimera sync list`")


def _mine(source: Source) -> ColumnElement[bool]:
    return (git_agent.c.tenant == source.tenant) & (git_agent.c.source == source.name)


def _row(row: RowMapping) -> Row:
    return Row(
        agent=row["agent"], file=row["file"], number=row["number"], revision=row["revision"], folder=row["folder"]
    )


def _audit(connection: Connection, action: str, source: Source, by: str, at: float, detail: dict[str, Any]) -> None:
    entry = AuditRecord(
        at=at,
        tenant=source.tenant,
        actor=by,
        action=action,
        resource=f"sources/{source.name}",
        outcome="done",
        detail=detail,
    )
    journal(connection).audit(entry)


def _chunks(values: Iterable[T]) -> Iterator[list[T]]:
    waiting = list(values)
    for start in range(0, len(waiting), _PAGE):
        yield waiting[start : start + _PAGE]
