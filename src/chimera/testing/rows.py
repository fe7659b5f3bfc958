"""Rows of every table, made by chance from a seed: any characters, bytes and numbers that a column can hold."""

import asyncio
import random
from collections.abc import Iterator
from typing import Any

from chimera.adapters.storage.backup.restoring import digest_of
from chimera.adapters.storage.backup.rows import Column, Kind, Layout, Values
from chimera.adapters.storage.backup.tables import layouts_at, write_rows
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.schema.tables import metadata

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-_ \n\"'\\äßÄ漢字🙂\u202e\x01\x7f"
_IN_KEYS = ("digest", "key")
Refers = dict[tuple[str, ...], tuple[str, tuple[str, ...]]]
DRAWS = 8
SETTLED = ("run_holder", "gateway_alive", "task_worker", "lease", "journal_head", "subscription")
"""What a restore may change on purpose: holders that are gone; tokens, places and cursors that go on higher."""
KEPT = ("journal_head",)
"""Tables with rows of the migrations' own, which are left as they are."""


def _refers() -> dict[str, Refers]:
    """For each table, which of its columns must be those of a row of which other table."""
    return {
        table.name: {
            tuple(column.name for column in key.columns): (
                key.referred_table.name,
                tuple(element.column.name for element in key.elements),
            )
            for key in table.foreign_key_constraints
        }
        for table in metadata.tables.values()
    }


def made_rows(layouts: tuple[Layout, ...], *, seed: int, rows: int) -> Iterator[tuple[Layout, list[Values]]]:
    """Rows for each table, in an order in which they can be inserted."""
    chance, refers = random.Random(seed), _refers()
    made: dict[str, list[dict[str, object]]] = {}
    for layout in layouts:
        if layout.table in KEPT:
            continue
        key = [column.name for column in metadata.tables[layout.table].primary_key]
        taken, found = set[tuple[object, ...]](), list[dict[str, object]]()
        for _ in range(DRAWS * rows):
            if len(found) == rows:
                break
            row = {column.name: _value(chance, column) for column in layout.columns}
            for columns, (other, theirs) in refers.get(layout.table, {}).items():
                referred = chance.choice(made[other])
                row.update((name, referred[their]) for name, their in zip(columns, theirs, strict=True))
            if (mark := tuple(row[name] for name in key)) not in taken:  # a key that refers may be drawn twice
                taken.add(mark)
                found.append(row)
        made[layout.table] = found
        yield layout, [tuple(row[name] for name in layout.names) for row in found]


async def fill(database: Database, *, seed: int = 1, rows: int = 20, version: str = "head") -> int:
    """Fill every table of the schema's version; how many rows."""
    layouts = layouts_at(version)

    def job(connection: Any) -> int:
        count = 0
        for layout, values in made_rows(layouts, seed=seed, rows=rows):
            write_rows(connection, layout, values)
            count += len(values)
        return count

    return await database.exclusive(job)


async def digests(database: Database, version: str = "head") -> dict[str, tuple[int, str]]:
    """Count and digest of every table but the settled ones."""

    def query(connection: Any) -> dict[str, tuple[int, str]]:
        found = {layout.table: digest_of(connection, layout) for layout in layouts_at(version)}
        return {name: (one.rows, one.text) for name, one in found.items() if name not in SETTLED}

    return await database.read(query)


async def digests_of(name: str, version: str = "head") -> dict[str, tuple[int, str]]:
    """The same of a database by its name."""
    opened = open_database(name)
    try:
        return await digests(opened, version)
    finally:
        await asyncio.to_thread(opened.close)


def _value(chance: random.Random, column: Column) -> object:
    if column.nullable and chance.random() < 0.3:
        return None
    match column.kind:
        case Kind.TEXT:
            length = min(column.length or 400, 60)
            return "".join(chance.choices(_LETTERS, k=chance.randint(min(8, length), length)))
        case Kind.BYTES:
            return chance.randbytes(8 + chance.choice((0, 40) if column.name in _IN_KEYS else (0, 1, 40, 3000)))
        case Kind.INT32:
            return chance.randint(-(2**31), 2**31 - 1)
        case Kind.INT64:
            return chance.randint(-(2**63), 2**63 - 1)
        case Kind.FLOAT:
            return chance.choice((0.0, 1.5, -2.25e300, 5e-324, float("inf"), chance.random() * 2e9))
        case Kind.BOOL:
            return chance.random() < 0.5
