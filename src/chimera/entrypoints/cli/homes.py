"""A home and its database, for commands that work on them themselves instead of asking the API."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from chimera.adapters.signing.ed25519 import read_key
from chimera.adapters.storage.backup.archive import Manifest, signed
from chimera.adapters.storage.backup.errors import InUse
from chimera.adapters.storage.backup.upgrading import new_backup
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.errors import StorageError
from chimera.adapters.storage.naming import database_name, open_of_settings
from chimera.adapters.storage.opening import is_url
from chimera.entrypoints.cli.places import home_folder, settings_of
from chimera.immune.audit.settings import AuditSettings
from chimera.kernel.places import BESIDE, PRIVATE, hold
from chimera.kernel.settings import FILE_NAME, load_group
from chimera.platform.settings import NodeSettings

T = TypeVar("T")

ELSEWHERE = "elsewhere"


@dataclass(frozen=True, kw_only=True, slots=True)
class Home:
    """A home's folder and the settings that say where its state and its audit key are."""

    path: Path
    node: NodeSettings
    audit: AuditSettings

    @property
    def database(self) -> str:
        """The name of its database."""
        return database_name(self.node, self.path)

    @property
    def signing_key(self) -> Path | None:
        """The file of the key that signs the audit log; None where another machine signs."""
        if self.audit.key == ELSEWHERE:
            return None
        return Path(self.audit.key) if self.audit.key else self.path / "audit.key"

    def files(self, *, keys: bool = False) -> dict[str, Path]:
        """What a backup takes along, by its name in it."""
        found = {name: self.path / name for name in (*BESIDE, *(PRIVATE if keys else ()))}
        if keys and self.signing_key is not None:
            found["audit.key"] = self.signing_key
        return found

    def new_backup(self, why: str) -> Path:
        """Where a backup goes for which nobody gave a path."""
        return new_backup(self.path, why)

    def signed(self, manifest: Manifest) -> Manifest:
        """The manifest, signed by the home's audit key if it is here."""
        key = self.signing_key
        return signed(manifest, None if key is None or not key.exists() else read_key(key))


def home_of(options: Mapping[str, Any]) -> Home:
    """The home that the command line or the environment names; raises `SettingsError`."""
    path = home_folder(options).absolute()
    file, groups = path / FILE_NAME, settings_of(options)
    return Home(
        path=path,
        node=load_group(NodeSettings, groups.get("node", {}), where=f"{file}: node"),
        audit=load_group(AuditSettings, groups.get("audit", {}), where=f"{file}: audit"),
    )


@contextmanager
def alone(home: Home) -> Iterator[None]:
    """Keep `chimera up` and every other such command out of the home; raises `InUse` where one is there."""
    try:
        descriptor = hold(home.path)
    except BlockingIOError:
        raise InUse(
            f"Chimera runs in {home.path}, or another command works on it", next_step="stop it, then try again"
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)


def with_database(home: Home, work: Callable[[Database], Awaitable[T]]) -> T:
    """Open the home's database, work with it, close it; raises `StorageError` where there is none."""
    if not is_url(home.database) and not Path(home.database).exists():
        raise StorageError(f"there is no database at {home.database}", next_step="give the --home of one that was used")

    async def run() -> T:
        database = open_of_settings(home.node, home.path, os.environ)
        try:
            return await work(database)
        finally:
            await asyncio.to_thread(database.close)

    return asyncio.run(run())


def release() -> str:
    """This release's version."""
    return version("chimera-ecosystem")
