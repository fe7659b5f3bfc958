"""Metered use, slices of budgets, and the gateways that are alive (the ports `QuotaStore` and `UsageStore`).

What is left of a budget is worked out from rows that several gateways write, so grants and settlements come one after
the other: each first locks one row of the table `counter`. Both are batches, a few a second for a gateway.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, case, delete, func, select, tuple_

from chimera.adapters.storage.database import Database, Insert
from chimera.adapters.storage.removing import delete_first
from chimera.adapters.storage.schema.catalogue import counter
from chimera.adapters.storage.schema.quota import budget_slice, gateway_alive, usage
from chimera.gateway.ports import Usage
from chimera.gateway.quota import rules
from chimera.gateway.quota.model import NANO, Amount, Ask, Settlement

LOCK = "quota"
_KEY = ["tenant", "agent", "day", "gateway"]
_AT_ONCE = 300
"""Agents whose sums are read by one statement."""


class QuotaStorage:
    """Quotas on one database."""

    def __init__(self, database: Database) -> None:
        """Compile the statements for `database`."""
        self._database = database
        self._add = database.prepared_insert(usage, adding(database.insert(usage)))
        self._slice = database.prepared_insert(budget_slice, _adding_to_slice(database.insert(budget_slice)))
        self._beat = database.prepared_insert(gateway_alive, database.upsert(gateway_alive, ("gateway",)))

    async def grant(self, gateway: str, asks: Sequence[Ask]) -> Sequence[Amount | None]:
        """See `QuotaStore`."""
        return await self._database.write(lambda connection: self._grant(connection, gateway, asks))

    async def settle(self, gateway: str, settlement: Settlement) -> None:
        """See `QuotaStore`."""
        await self._database.write(lambda connection: self._settle(connection, gateway, settlement))

    async def beat(self, gateway: str, expiry: float) -> int:
        """See `QuotaStore`."""
        return await self._database.write(lambda connection: self._alive(connection, gateway, expiry))

    async def leave(self, gateway: str) -> None:
        """See `QuotaStore`."""
        gone = delete(gateway_alive).where(gateway_alive.c.gateway == gateway)
        await self._database.write(lambda connection: connection.execute(gone).rowcount)

    async def usage_of_day(self, day: str) -> Sequence[Usage]:
        """All sums of a day (UTC)."""
        query = select(usage).where(usage.c.day == day)
        found = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [Usage(**row) for row in found]

    def _grant(self, connection: Connection, gateway: str, asks: Sequence[Ask]) -> list[Amount | None]:
        _lock(connection)
        answers: list[Amount | None] = []
        for start in range(0, len(asks), _AT_ONCE):
            page = asks[start : start + _AT_ONCE]
            taken = _taken(connection, page)
            for ask in page:
                used = taken.get((ask.tenant, ask.agent, ask.day), Amount())
                left = Amount(tokens=ask.budget.tokens or 0, nano_usd=ask.budget.nano_usd or 0).minus(used)
                answers.append(rules.grant(ask.budget, left, ask.need))
        self._slice.run_many(
            connection,
            (
                _row(ask.tenant, ask.agent, ask.day, gateway, granted=amount)
                for ask, amount in zip(asks, answers, strict=True)
                if amount is not None
            ),
        )
        return answers

    def _settle(self, connection: Connection, gateway: str, settlement: Settlement) -> None:
        _lock(connection)
        self._add.run_many(connection, [msgspec.structs.asdict(row) for row in settlement.usage])
        self._slice.run_many(
            connection,
            [
                _row(
                    *(one.tenant, one.agent, one.day, gateway),
                    granted=Amount().minus(one.returned),
                    used=one.used,
                )
                for one in settlement.spent
            ],
        )

    def _alive(self, connection: Connection, gateway: str, expiry: float) -> int:
        now = self._database.now(connection)
        connection.execute(delete(gateway_alive).where(gateway_alive.c.expires <= now))
        self._beat.run(connection, gateway=gateway, expires=now + expiry)
        return int(connection.execute(select(func.count()).select_from(gateway_alive)).scalar() or 0)


def expire_slices(connection: Connection, before: str, limit: int) -> int:
    """Remove slices of days before `before` (as 2026-01-31), at most `limit`; how many."""
    day = budget_slice.c.day
    return delete_first(connection, budget_slice, day < before, day, limit)


def _lock(connection: Connection) -> None:
    connection.execute(select(counter.c.value).where(counter.c.name == LOCK).with_for_update())


def _taken(connection: Connection, asks: Sequence[Ask]) -> dict[tuple[str, str, str], Amount]:
    """What is used of the agents' budgets, and held by gateways of what isn't used."""
    keys = [(ask.tenant, ask.agent, ask.day) for ask in asks]
    found: dict[tuple[str, str, str], Amount] = {}
    summed = func.sum(usage.c.prompt_tokens + usage.c.completion_tokens), func.sum(usage.c.usd)
    used = select(usage.c.tenant, usage.c.agent, usage.c.day, *summed)
    used = used.where(tuple_(usage.c.tenant, usage.c.agent, usage.c.day).in_(keys))
    for tenant, agent, day, tokens, usd in connection.execute(used.group_by("tenant", "agent", "day")):
        found[tenant, agent, day] = Amount(tokens=int(tokens), nano_usd=round((usd or 0.0) * NANO))
    slices = select(budget_slice)
    slices = slices.where(tuple_(budget_slice.c.tenant, budget_slice.c.agent, budget_slice.c.day).in_(keys))
    for row in connection.execute(slices):
        key = (row.tenant, row.agent, row.day)
        held = Amount(
            tokens=max(0, row.granted_tokens - row.used_tokens),
            nano_usd=max(0, row.granted_nano_usd - row.used_nano_usd),
        )
        found[key] = found.get(key, Amount()).plus(held)
    return found


def _row(
    tenant: str, agent: str, day: str, gateway: str, *, granted: Amount, used: Amount | None = None
) -> dict[str, str | int]:
    used = used or Amount()
    return {
        "tenant": tenant,
        "agent": agent,
        "day": day,
        "gateway": gateway,
        "granted_tokens": granted.tokens,
        "granted_nano_usd": granted.nano_usd,
        "used_tokens": used.tokens,
        "used_nano_usd": used.nano_usd,
    }


def _adding_to_slice(statement: Insert) -> Insert:
    added = statement.excluded
    names = ("granted_tokens", "granted_nano_usd", "used_tokens", "used_nano_usd")
    return statement.on_conflict_do_update(
        index_elements=_KEY, set_={name: budget_slice.c[name] + added[name] for name in names}
    )


def adding(statement: Insert) -> Insert:
    """An insert of use that adds to the sums where a row of its key is there."""
    added = statement.excluded
    either = usage.c.usd.is_not(None) | added.usd.is_not(None)
    total = func.coalesce(usage.c.usd, 0.0) + func.coalesce(added.usd, 0.0)
    return statement.on_conflict_do_update(
        index_elements=["tenant", "agent", "model", "day"],
        set_={
            "calls": usage.c.calls + added.calls,
            "prompt_tokens": usage.c.prompt_tokens + added.prompt_tokens,
            "completion_tokens": usage.c.completion_tokens + added.completion_tokens,
            "usd": case((either, total)),
        },
    )
