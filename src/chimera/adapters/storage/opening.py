"""Which database a name means: the path of a SQLite file, or (`postgresql://…`) a server's."""

from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.postgresql import APPLICATION, PostgreSQLDatabase
from chimera.adapters.storage.sqlite import SQLiteDatabase
from chimera.kernel.clock import Clock

_SCHEMES = ("postgresql", "postgres")


def open_database(
    name: str | Path, *, password: str | None = None, clock: Clock | None = None, application: str = APPLICATION
) -> Database:
    """Open the database; nothing is read or migrated yet.

    Args:
        name: A file, or a URL as libpq knows them (`sslmode`, `sslrootcert` and the rest are obeyed).
        password: The server's, where the URL doesn't say it.
        clock: Instead of the database's own clock, for tests.
        application: What a server calls its connections.
    """
    if is_url(name):
        return PostgreSQLDatabase(str(name), password=password, clock=clock, application=application)
    return SQLiteDatabase(Path(name), clock=clock)


def is_url(name: str | Path) -> bool:
    """Whether `name` is a server's URL."""
    return isinstance(name, str) and urlsplit(name).scheme in _SCHEMES


def shown(name: str | Path) -> str:
    """The name without a password, for logs and people."""
    if not is_url(name):
        return str(name)
    parts = urlsplit(str(name))
    user, at, place = parts.netloc.rpartition("@")
    netloc = f"{user.partition(':')[0]}{at}{place}"
    query = [(key, "***" if key == "password" else value) for key, value in parse_qsl(parts.query)]
    return urlunsplit(parts._replace(netloc=netloc, query=urlencode(query, safe="/*")))
