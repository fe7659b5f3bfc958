"""What gateways saw of the sides of agents: one row for each tenant and window of a gateway, read from a place on.

A row holds all agents that were rolled out then, so that a window costs a gateway one small write however many there
are. Rows get their places under a lock, in the order of commits: whoever reads behind a place misses none.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.removing import delete_first
from chimera.adapters.storage.schema.catalogue import counter
from chimera.adapters.storage.schema.sides import observation
from chimera.delivery.sides.model import Observations, Seen
from chimera.gateway.sides.ports import Noticed

COUNTER = "observation"


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


def expire_observations(connection: Connection, before: float, limit: int) -> int:
    """Remove windows from before a time, at most `limit`; how many."""
    return delete_first(connection, observation, observation.c.at <= before, observation.c.at, limit)
