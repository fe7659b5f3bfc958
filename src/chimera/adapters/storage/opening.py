"""Which database a name means: the path of a SQLite file, or (`postgresql://…`) a server's."""

from pathlib import Path

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.sqlite import SQLiteDatabase


def open_database(name: str | Path) -> Database:
    """Open the database; nothing is migrated."""
    return SQLiteDatabase(Path(name))
