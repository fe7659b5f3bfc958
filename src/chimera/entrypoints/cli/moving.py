"""`chimera state move`: the state of a home to a PostgreSQL server."""

import asyncio
import os
import tomllib
from pathlib import Path

import msgspec

from chimera.adapters.storage.backup.archive import sync_folder
from chimera.adapters.storage.backup.errors import MoveFailed, file_failed
from chimera.adapters.storage.backup.moving import Moved, Progress, move_to_server, unmark
from chimera.adapters.storage.naming import FILE_NAME as DATABASE_FILE
from chimera.adapters.storage.naming import MAINTENANCE, database_name, password_reference, read_password
from chimera.adapters.storage.opening import is_url, open_database, shown
from chimera.entrypoints.cli.homes import Home, alone
from chimera.kernel.settings import FILE_NAME
from chimera.platform.settings import NodeSettings


def move(home: Home, to: str, password: str | None, progress: Progress) -> Moved:
    """Move the home's SQLite file to the server; raises what the move does, and `MoveFailed` for a home without one."""
    if not is_url(to):
        raise MoveFailed(
            f"{to!r} is no URL of a PostgreSQL server",
            next_step="from a server to a file: `chimera backup create`, then `chimera restore` into another home",
        )
    node = NodeSettings(database=to, database_password=password or home.node.database_password)
    name = database_name(node, home.path)
    if home.node.database and home.node.database != to:
        raise MoveFailed(
            f"node.database is {shown(home.node.database)}: the home has no file to move",
            next_step="to go from a server to another: `chimera backup create`, then `chimera restore`",
        )
    secret = read_password(password_reference(node, home.path), os.environ)

    async def run() -> Moved:
        target = open_database(name, password=secret, application=MAINTENANCE)
        try:
            return await move_to_server(home.path / DATABASE_FILE, target, progress=progress)
        finally:
            await asyncio.to_thread(target.close)

    with alone(home):
        return asyncio.run(run())


def come_back(home: Home) -> str:
    """Let the file that was moved be used again, as it was then; its schema's version."""
    with alone(home):
        return unmark(home.path / DATABASE_FILE)


def settle_settings(home: Home, to: str, password: str | None) -> bool:
    """Write where the database is into the home's settings; False where a person must do it."""
    file = home.path / FILE_NAME
    wanted = {"database": to, **({"database_password": password} if password else {})}
    old = file.read_text("utf-8") if file.exists() else ""
    text = with_settings(old, wanted)
    if text is None:
        return False
    if text != old:
        _replace(file, text)
    return not any(name.lower() == "chimera_node__database" for name in os.environ)


def with_settings(text: str, wanted: dict[str, str]) -> str | None:
    """The text of a settings file with `wanted` in its table `node`, everything else as it was; None if that fails."""
    before = tomllib.loads(text)
    lines = text.splitlines()
    heads = [number for number, line in enumerate(lines) if line.split("#")[0].strip() == "[node]"]
    if not heads and "node" in before:
        return None  # written in another way, as `node.database = …` or an inline table
    if not heads:
        lines += ([""] if lines else []) + ["[node]"]
        heads = [len(lines) - 1]
    start = heads[0] + 1
    end = next((n for n in range(start, len(lines)) if lines[n].lstrip().startswith("[")), len(lines))
    kept = [line for line in lines[start:end] if line.partition("=")[0].strip() not in wanted]
    set_here = [f"{name} = {msgspec.json.encode(value).decode()}" for name, value in wanted.items()]
    made = "\n".join([*lines[:start], *set_here, *kept, *lines[end:]]) + "\n"
    try:
        after = tomllib.loads(made)
    except tomllib.TOMLDecodeError:
        return None
    expected = {**before, "node": {**before.get("node", {}), **wanted}}
    return made if after == expected else None


def _replace(file: Path, text: str) -> None:
    partial = file.with_name(f".{file.name}.partial")
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
    try:
        descriptor = os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as target:
            target.write(text)
            target.flush()
            os.fsync(target.fileno())
        partial.rename(file)
        sync_folder(file.parent)
    except OSError as error:
        raise file_failed(file, error) from None
