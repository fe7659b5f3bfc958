"""The database that the settings name: where it is, and how its password is found.

`node.database` is empty for a SQLite file in the home, or a server's URL. A URL holds no password: settings are shown,
logged and written to files. `node.database_password` says where it is: `env:NAME`, `file:PATH`, or `secret:NAME` as
tools' credentials are named. Without it, libpq's own ways count (`PGPASSWORD`, a password file, a certificate).
"""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.opening import is_url, open_database, shown
from chimera.kernel.settings import SettingsError
from chimera.platform.settings import NodeSettings

FILE_NAME = "chimera.db"


MAINTENANCE = "chimera maintenance"
"""What a server calls the connections of commands that look after a database while the platform doesn't run."""


def open_of_settings(
    settings: NodeSettings, home: Path, environ: Mapping[str, str], *, application: str = MAINTENANCE
) -> Database:
    """The database of a home, opened; raises `SettingsError`. Nothing is read or migrated yet."""
    reference = password_reference(settings, home)
    return open_database(
        database_name(settings, home), password=read_password(reference, environ), application=application
    )


def database_name(settings: NodeSettings, home: Path) -> str:
    """The name for `open_database`; raises `SettingsError` for a URL that isn't one, or that holds a password."""
    if not settings.database:
        return str(home / FILE_NAME)
    if not is_url(settings.database):
        raise SettingsError(
            [f"node.database: {shown(settings.database)!r} is no URL such as postgresql://user@host/name"]
        )
    parts = urlsplit(settings.database)
    if parts.password is not None or "password" in parse_qs(parts.query, keep_blank_values=True):
        raise SettingsError(
            [
                f"node.database: {shown(settings.database)} holds a password; "
                "name it in node.database_password as env:NAME, file:PATH or secret:NAME"
            ]
        )
    return settings.database


def password_reference(settings: NodeSettings, home: Path) -> str | None:
    """Where the password is, for a process that doesn't know the home: `env:NAME` or `file:PATH`."""
    kind, _, name = settings.database_password.partition(":")
    if not settings.database_password:
        return None
    if kind == "secret" and name:
        file = home / "secrets" / name
        return f"file:{file}" if file.exists() else f"env:CHIMERA_SECRET_{name}"
    if kind in ("env", "file") and name:
        return settings.database_password
    raise SettingsError(["node.database_password: a password is given as env:NAME, file:PATH or secret:NAME"])


def open_named(name: str, reference: str | None, environ: Mapping[str, str]) -> Database:
    """The database, opened; raises `SettingsError` where its password can't be had."""
    return open_database(name, password=read_password(reference, environ))


def read_password(reference: str | None, environ: Mapping[str, str]) -> str | None:
    """The password; raises `SettingsError` where it isn't there, or where others may read its file."""
    kind, _, name = (reference or "").partition(":")
    if reference is None:
        return None
    if kind == "env":
        if name not in environ:
            raise SettingsError([f"node.database_password: the environment has no {name}"])
        return environ[name]
    file = Path(name)
    try:
        if file.stat().st_mode & 0o077:
            raise SettingsError([f"node.database_password: others may read {name}; chmod 600 {name}"])
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"node.database_password: {error}"]) from error
