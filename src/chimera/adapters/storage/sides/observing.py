"""What gateways saw of the sides of agents: one row for each tenant and window of a gateway, read from a place on.

A row holds all agents that were rolled out then, so that a window costs a gateway one small write however many there
are. Rows get their places under a lock, in the order of commits: whoever reads behind a place misses none.

A row goes soon after every open rollout of its tenant has read it (`rollout.through`, written with what was made of
it); one that a rollout doesn't come to, when it is old. Where a tenant has no open rollout nobody reads its rows: one
that begins reads from the newest place on.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, func, literal, select, tuple_

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.removing import delete_keys
from chimera.adapters.storage.schema.catalogue import counter
from chimera.adapters.storage.schema.rollouts import rollout as rollouts
from chimera.adapters.storage.schema.sides import observation
from chimera.adapters.storage.upkeep.shapes import Key
from chimera.delivery.sides.model import Observations, Seen
from chimera.gateway.sides.ports import Noticed
from chimera.platform.upkeep.model import Cursor

COUNTER = "observation"
_FOUND = 2_000
"""Windows that are found by one reading."""
GRACE = 60.0
"""Seconds that a row stays after it was written, though every rollout has read it: people may want to look."""


class _Window(Struct, frozen=True, kw_only=True, array_like=True):
    """A row's data. `version` grows when its meaning changes."""

    version: int
    noticed: tuple[Noticed, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Window)


class Observing:
    """Windows on one database."""

    def __init__(self, database: Database) -> None:
        """Compile the statements for `database`."""
        self._database = database
        self._put = database.prepared_insert(observation)
        first = database.insert(counter).values(name=COUNTER, value=1)
        self._next = first.on_conflict_do_update(
            index_elements=["name"], set_={"value": counter.c.value + 1}
        ).returning(counter.c.value)

    async def add(self, gateway: str, noticed: Sequence[Noticed]) -> int:
        """See `ObservationStore`."""
        of_tenant: dict[str, list[Noticed]] = {}
        for one in noticed:
            of_tenant.setdefault(one.tenant, []).append(one)
        data = {tenant: _encoder.encode(_Window(version=1, noticed=tuple(its))) for tenant, its in of_tenant.items()}

        def job(connection: Connection) -> int:
            place = int(connection.execute(self._next).scalar_one())
            at = self._database.now(connection)
            row = {"place": place, "gateway": gateway, "at": at}
            self._put.run_many(connection, [{**row, "tenant": tenant, "data": data[tenant]} for tenant in data])
            return place

        return await self._database.write(job)

    async def newest(self) -> int:
        """The last place that was given."""
        query = select(counter.c.value).where(counter.c.name == COUNTER)
        return await self._database.read(lambda connection: int(connection.execute(query).scalar() or 0))

    async def read(self, tenant: str, rollout: str, after: int, limit: int) -> Observations:
        """See `Sides.observations`."""
        c = observation.c
        query = select(c.place, c.data).where((c.tenant == tenant) & (c.place > after)).order_by(c.place).limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        seen: list[Seen] = []
        for place, data in rows:
            its = (one.seen for one in _decoder.decode(data).noticed if one.rollout == rollout)
            seen += [replace(one, window=place) for one in its]
        return Observations(seen=tuple(seen), through=rows[-1].place if rows else after)


def find_unneeded(connection: Connection, now: float, after: Cursor, *, keep: float) -> tuple[list[Key], Cursor | None]:
    """The next windows behind `after` that nobody needs, the oldest first, and where the last of them is.

    These are those that every open rollout has read, and those older than `keep` seconds. Only a reading: it looks
    through all that a rollout which is stuck hasn't read. What nobody needs stays so, since a rollout that begins reads
    from the newest place on.
    """
    c, r = observation.c, rollouts.c
    behind = (
        select(r.tenant, func.min(r.through).label("through")).where(r.ended.is_(None)).group_by(r.tenant).subquery()
    )
    old, read = now - keep, c.place <= func.coalesce(behind.c.through, c.place)
    order = (c.at, c.tenant, c.place)
    query = select(*order).outerjoin_from(observation, behind, c.tenant == behind.c.tenant)
    query = query.where(c.at <= max(old, now - GRACE), (c.at <= old) | read).order_by(*order).limit(_FOUND)
    if after:
        query = query.where(tuple_(*order) > tuple_(*map(literal, after)))
    rows = [tuple(row) for row in connection.execute(query)]
    return [(tenant, place) for _, tenant, place in rows], rows[-1] if len(rows) == _FOUND else None


def remove_windows(connection: Connection, now: float, keys: Sequence[Key]) -> int:
    """Remove windows by their tenants and places; how many."""
    return delete_keys(connection, (observation.c.tenant, observation.c.place), keys)
