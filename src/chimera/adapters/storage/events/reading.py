"""The journal's facts as they are read (`JournalReader`). Pages go by place: each costs the same everywhere."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, bindparam, func, literal, select, true, union_all

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.schema.catalogue import counter
from chimera.adapters.storage.schema.journal import event, journal_head
from chimera.events.model import Causes, RecordedFact

CHANGES = "subscriptions"
"""The counter of changes of subscriptions."""
CHUNK = 500
_COLUMNS = (
    *(event.c.seq, event.c.id, event.c.type, event.c.tenant, event.c.subject, event.c.at, event.c.data),
    *(event.c.traceparent, event.c.causes),
)
_CAUSES = msgspec.json.Decoder(Causes)


class JournalStorage:
    """The facts of one database."""

    def __init__(self, database: Database) -> None:
        """Compile the frequent statements for `database`."""
        self._database = database
        self._heads = database.prepared(
            union_all(
                select(literal(0).label("what"), journal_head.c.event_seq),
                select(literal(1).label("what"), counter.c.value).where(counter.c.name == CHANGES),
            )
        )
        self._facts = database.prepared(
            select(*_COLUMNS).where(event.c.seq > bindparam("after")).order_by(event.c.seq).limit(bindparam("most"))
        )

    async def heads(self) -> tuple[int, int]:
        """See `JournalReader`."""
        found: dict[int, int] = dict(await self._database.read(self._heads.all, quick=True))
        return int(found[0]), int(found.get(1, 0))

    async def facts(self, after: int, limit: int) -> Sequence[RecordedFact]:
        """See `JournalReader`."""
        return await self._database.read(
            lambda connection: [fact_of(row) for row in self._facts.all(connection, after=after, most=limit)]
        )

    async def facts_at(self, places: Sequence[int]) -> Sequence[RecordedFact]:
        """See `JournalReader`."""
        if not places:
            return ()

        def read(connection: Connection) -> list[RecordedFact]:
            found: list[RecordedFact] = []
            for start in range(0, len(places), CHUNK):
                some = select(*_COLUMNS).where(event.c.seq.in_(places[start : start + CHUNK]))
                found += [fact_of(row) for row in connection.execute(some.order_by(event.c.seq))]
            return found

        return await self._database.read(read)

    async def facts_of(
        self, tenant: str | None, *, after: int | None = None, before: int | None = None, limit: int
    ) -> Sequence[RecordedFact]:
        """See `JournalReader`."""
        where: ColumnElement[bool] = true() if tenant is None else event.c.tenant == tenant
        query = select(*_COLUMNS)
        if after is not None:
            query = query.where(where & (event.c.seq > after)).order_by(event.c.seq)
        else:
            if before is not None:
                where &= event.c.seq < before
            query = query.where(where).order_by(event.c.seq.desc())
        return await self._database.read(
            lambda connection: [fact_of(row) for row in connection.execute(query.limit(limit))]
        )

    async def oldest(self) -> int:
        """See `JournalReader`."""

        def read(connection: Connection) -> int:
            first = connection.execute(select(func.min(event.c.seq))).scalar()
            last = connection.execute(select(journal_head.c.event_seq)).scalar_one()
            return int(last) + 1 if first is None else int(first)

        return await self._database.read(read)


def fact_of(row: Any) -> RecordedFact:
    """A row of the table `event` as a fact."""
    seq, id_, type_, tenant, subject, at, data, traceparent, causes = row
    return RecordedFact(
        seq=seq,
        id=id_,
        type=type_,
        tenant=tenant,
        subject=subject,
        at=at,
        data=msgspec.Raw(data),
        traceparent=traceparent,
        causes=None if causes is None else _CAUSES.decode(causes),
    )
