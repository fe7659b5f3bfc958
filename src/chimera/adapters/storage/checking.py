"""A look at the database of a home, for people: can it be reached, what is it, is its schema this release's."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.migrating import SchemaState, schema_state
from chimera.adapters.storage.naming import database_name, open_of_settings
from chimera.adapters.storage.opening import is_url, shown
from chimera.platform.settings import NodeSettings

_MIB = 1024**2
_STATES = {
    SchemaState.NONE: "empty",
    SchemaState.CURRENT: "its schema is this release's",
    SchemaState.OLDER: "its schema is an older release's; the next start brings it up to date",
    SchemaState.NEWER: "its schema is a newer release's",
    SchemaState.MOVED: "it was moved to another, which has gone on since",
    SchemaState.MOVING: "a move to it is not finished",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What was found: one line, and what should be otherwise."""

    detail: str
    faults: tuple[str, ...] = ()


def check(settings: NodeSettings, home: Path, environ: Mapping[str, str]) -> Found:
    """Look at the database; raises `SettingsError`, or `StorageError` where it can't be used. Nothing is written."""
    name = database_name(settings, home)
    if not is_url(name) and not Path(name).exists():
        return Found(detail=f"{name} (not used yet)")
    database = open_of_settings(settings, home, environ)
    try:
        return asyncio.run(_look(database, shown(name)))
    finally:
        database.close()


async def _look(database: Database, name: str) -> Found:
    def query(connection: Connection) -> Found:
        health, state = database.health(connection), schema_state(connection)
        faults = health.faults
        if state is SchemaState.NEWER:
            faults = (*faults, "a newer release has written it; run that release, or a newer one")
        elif state is SchemaState.MOVED:
            faults = (*faults, "it was moved to another database, which has gone on; set node.database to that one")
        elif state is SchemaState.MOVING:
            faults = (*faults, "a move to it is not finished; give the same `chimera state move --to` again")
        size, free = database.size(connection), database.free(connection)
        room = "" if free is None else f", of which {free / _MIB:,.0f} are free"
        detail = f"{health.server} at {name}: {_STATES[state]}; {size / _MIB:,.0f} MiB{room}"
        return Found(detail=detail, faults=faults)

    return await database.read(query)
