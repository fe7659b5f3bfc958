"""Conditions in the database: one row for each subject of a home, written when it changed, with the fact of it.

A home is a place: the cluster's namespace of cells, or one machine, since several machines may share a database. What
is read for callers counts only while somebody keeps it: conditions that nobody looks after any more may be about
trouble that is long over.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from sqlalchemy import Connection, delete, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.leases import check_lease
from chimera.adapters.storage.schema.conditions import condition_record
from chimera.adapters.storage.schema.leases import lease as lease_table
from chimera.events.catalogue import ConditionsChanged, ConditionTold
from chimera.events.model import Fact
from chimera.kernel.ids import new_id
from chimera.kernel.leases import Lease
from chimera.platform.condition_keeper import Judged
from chimera.platform.conditions import HOME, Condition, cell_subject

_KEY = ("place", "tenant", "subject")
_CELLS = cell_subject("")
_decoder = msgspec.json.Decoder(tuple[Condition, ...])


class StoredConditions:
    """The conditions of the home at `place` (the port `ConditionStore`)."""

    def __init__(self, database: Database, place: str) -> None:
        """Keep them in `database`."""
        self._database = database
        self._place = place
        self._put = database.prepared_insert(condition_record, database.upsert(condition_record, _KEY))

    async def load(self) -> Mapping[str, tuple[Condition, ...]]:
        """See `ConditionStore`."""
        query = select(condition_record.c.subject, condition_record.c.conditions)
        rows = await self._database.read(
            lambda connection: connection.execute(query.where(condition_record.c.place == self._place)).all()
        )
        return {row.subject: _read(row.conditions) for row in rows}

    async def put(self, changed: Sequence[Judged], gone: Sequence[str], lease: Lease | None) -> None:
        """See `ConditionStore`."""
        await self._database.write(lambda connection: self._store(connection, changed, gone, lease))

    async def page(self, after: str, limit: int) -> list[Judged]:
        """Subjects behind `after` by name, with their conditions."""
        row = condition_record.c
        query = select(condition_record).where((row.place == self._place) & (row.subject > after))
        query = query.order_by(row.subject).limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [_judged(one.subject, one.tenant, one.conditions) for one in rows]

    async def of(self, subject: str) -> Judged | None:
        """One subject with its conditions."""
        row = condition_record.c
        query = select(condition_record).where((row.place == self._place) & (row.subject == subject))
        found = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        return None if found is None else _judged(found.subject, found.tenant, found.conditions)

    async def kept(self, cell: str, lease: str) -> tuple[Condition, ...]:
        """The conditions of a cell and of the home, while a process holds the lease of keeping them; else none."""

        def look(connection: Connection) -> tuple[Condition, ...]:
            expires = connection.execute(select(lease_table.c.expires).where(lease_table.c.name == lease)).scalar()
            if expires is None or expires <= self._database.now(connection):
                return ()
            row = condition_record.c
            query = select(row.conditions).where(
                (row.place == self._place) & row.subject.in_((cell_subject(cell), HOME))
            )
            return tuple(one for text in connection.execute(query).scalars() for one in _read(text))

        return await self._database.read(look)

    def _store(
        self, connection: Connection, changed: Iterable[Judged], gone: Sequence[str], lease: Lease | None
    ) -> None:
        if lease is not None:
            check_lease(connection, lease)
        now = self._database.now(connection)
        if gone:
            row = condition_record.c
            connection.execute(delete(condition_record).where((row.place == self._place) & row.subject.in_(gone)))
        for one in changed:
            self._put.run(
                connection,
                place=self._place,
                subject=one.subject,
                tenant=one.tenant,
                conditions=msgspec.json.encode(one.conditions).decode(),
                changed=now,
            )
            if one.told:
                journal(connection).fact(_fact(one, now))


def _judged(subject: str, tenant: str, conditions: str) -> Judged:
    return Judged(subject=subject, tenant=tenant, conditions=_read(conditions))


def _read(text: str) -> tuple[Condition, ...]:
    """What was stored; nothing where a newer release has other words, whose own processes go on with it."""
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError:
        return ()


def _fact(one: Judged, now: float) -> Fact:
    told = tuple(
        ConditionTold(type=each.type.value, status=each.status, reason=each.reason.value, since=each.since)
        for each in one.told
    )
    cell = one.subject.removeprefix(_CELLS) if one.subject != HOME else None
    return Fact(
        id=new_id("evt"),
        type="home.changed" if cell is None else "cell.changed",
        tenant=one.tenant,
        subject=one.subject,
        at=now,
        data=ConditionsChanged(conditions=told, cell=cell),
    )
