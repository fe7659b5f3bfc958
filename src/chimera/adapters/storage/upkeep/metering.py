"""Metered use: days that are old are added up into months, months that are too old are removed.

Both live in one table. A month is a row whose `day` has no day (2026-01), so it sorts before its days and no reader
of a day finds it. What is added up comes from the rows that the same statement removed, so no sum is lost or counted
twice, whoever does this and wherever he is killed; use that is written down late finds its month again the next time.
"""

import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, select, tuple_

from chimera.adapters.storage.database import insert_into
from chimera.adapters.storage.quota import adding
from chimera.adapters.storage.schema.quota import budget_slice, usage
from chimera.platform.upkeep.rules import month_of

_KEY = ("tenant", "agent", "model", "day")
_SUMS = ("calls", "prompt_tokens", "completion_tokens")
_DAY_LENGTH = len("2026-01-31")


def add_up(connection: Connection, before: str, limit: int) -> int:
    """Turn `limit` days at most that are older than the day `before` into sums of their months; how many there were."""
    c = usage.c
    key = tuple_(*(c[name] for name in _KEY))
    old = select(*(c[name] for name in _KEY)).where(is_day_before(before)).order_by(c.day).limit(limit)
    rows = connection.execute(delete(usage).where(key.in_(old)).returning(usage)).mappings().all()
    sums: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        its = (row["tenant"], row["agent"], row["model"], month_of(row["day"]))
        sums[its] = _added(sums.get(its), row)
    if sums:
        connection.execute(adding(insert_into(connection, usage)), list(sums.values()))
    return len(rows)


def drop_months(connection: Connection, before: str, limit: int) -> int:
    """Remove `limit` sums at most of months before the month `before`; how many."""
    c = usage.c
    key = tuple_(*(c[name] for name in _KEY))
    old = select(*(c[name] for name in _KEY)).where(is_month_before(before)).order_by(c.day).limit(limit)
    return connection.execute(delete(usage).where(key.in_(old))).rowcount


def is_day_before(before: str) -> ColumnElement[bool]:
    """Whether a row is a day before the day `before`."""
    return (usage.c.day < before) & (func.length(usage.c.day) == _DAY_LENGTH)


def is_month_before(before: str) -> ColumnElement[bool]:
    """Whether a row is a month before the month `before`."""
    return (usage.c.day < before) & (func.length(usage.c.day) < _DAY_LENGTH)


def first_day(connection: Connection) -> float | None:
    """When the first day that isn't added up began (seconds since the epoch)."""
    days = select(func.min(usage.c.day)).where(func.length(usage.c.day) == _DAY_LENGTH)
    return _time(connection.execute(days).scalar())


def first_month(connection: Connection) -> float | None:
    """When the first month began."""
    months = select(func.min(usage.c.day)).where(func.length(usage.c.day) < _DAY_LENGTH)
    found = connection.execute(months).scalar()
    return None if found is None else _time(f"{found}-01")


def first_slice(connection: Connection) -> float | None:
    """When the first day began of which a gateway held a part of a budget."""
    return _time(connection.execute(select(func.min(budget_slice.c.day))).scalar())


def _added(sums: dict[str, Any] | None, row: Any) -> dict[str, Any]:
    if sums is None:
        return {**row, "day": month_of(row["day"])}
    usd = None if sums["usd"] is None and row["usd"] is None else (sums["usd"] or 0.0) + (row["usd"] or 0.0)
    return {**sums, **{name: sums[name] + row[name] for name in _SUMS}, "usd": usd}


def _time(day: str | None) -> float | None:
    if day is None:
        return None
    try:
        return datetime.datetime.fromisoformat(day).replace(tzinfo=datetime.UTC).timestamp()
    except ValueError:
        return None
