"""What `chimera upgrade` does: what this release would change in a home, and doing it.

Only what must be done once for a new release is looked at: the database's schema, environments of frameworks, settings
that are gone, processes of another release. `chimera doctor` looks at the rest.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from chimera.adapters.runtimes import MARKER, Runtimes
from chimera.adapters.storage.backup.archive import Manifest
from chimera.adapters.storage.backup.creating import create_backup
from chimera.adapters.storage.backup.upgrading import Plan, bring_up, is_there, plan
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.migrating import SchemaState, refuse_unusable
from chimera.adapters.storage.opening import shown
from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.homes import Home, alone, release, with_database
from chimera.gateway.settings import gateway_groups
from chimera.kernel.places import runtime_overrides, runtimes_folder
from chimera.kernel.settings import FILE_NAME, SettingsError, load_group, read_groups
from chimera.platform.settings import NodeSettings

Row = dict[str, Any]


def check(home: Home) -> list[Row]:
    """What this release would do; nothing is changed."""
    return [*_database(home), *_runtimes(), _running(home), *_settings(home)]


def refuse_unusable_database(home: Home) -> None:
    """Raise `NewerDatabase` and its like for a database that this release may not work on."""
    if is_there(home.database):
        with_database(home, lambda database: database.read(refuse_unusable))


def upgrade(home: Home, *, with_backup: bool) -> Row:
    """Bring the home's database up to this release; what was done, and what is left to do."""
    done: tuple[str, Manifest | None] | None = None
    target: Path | None = None
    if is_there(home.database):
        with alone(home):
            place = target = home.new_backup("before-upgrade")
            told = out.progress("written")

            async def backup(database: Database) -> Manifest:
                return await create_backup(
                    database, place, release=release(), files=home.files(), sign=home.signed, progress=told
                )

            done = with_database(home, lambda database: bring_up(database, backup if with_backup else None))
            out.end_progress()
    version, manifest = done or (None, None)
    return {
        "from": version,
        "backup": None if manifest is None else str(target),
        "rows": None if manifest is None else manifest.rows,
        "checks": [*_database(home), *_runtimes(), *_settings(home)],
    }


def _row(check: str, state: str, detail: str, following: str = "") -> Row:
    return {"check": check, "state": state, "detail": detail, "next": following}


def _database(home: Home) -> Iterator[Row]:
    if not is_there(home.database):
        yield _row("database", "ok", f"{shown(home.database)} (not used yet)")
        return
    found: Plan = with_database(home, plan)
    where = f"{found.server} at {shown(home.database)}, {found.size:,} bytes"
    match found.state:
        case SchemaState.CURRENT:
            yield _row("database", "ok", f"{where}: schema {found.version}, which is this release's")
        case SchemaState.NONE:
            yield _row("database", "ok", f"{where}: empty")
        case SchemaState.OLDER:
            yield _row(
                "database",
                "to do",
                f"{where}: schema {found.version}, this release's is {found.head}",
                "chimera upgrade, or chimera up",
            )
            for version, line in found.migrations:
                yield _row(f"migration {version}", "to do", line)
            yield _backup(home, found)
            if found.others:
                yield _row("other homes", "ok", f"{found.others} connections of running homes; they go on meanwhile")
        case _:
            yield _row("database", "refused", f"{where}: schema {found.version}")


def _backup(home: Home, found: Plan) -> Row:
    folder = next(one for one in (home.path, *home.path.parents) if one.exists())
    free = shutil.disk_usage(folder).free
    takes = "seconds" if found.seconds < 60 else "minutes" if found.seconds < 3_600 else "hours"
    detail = f"at most {found.size:,} bytes, {free:,} are free; with the migrations it takes {takes}"
    if free < found.size:
        return _row("backup", "to do", detail, f"make room in {home.path}")
    return _row("backup", "ok", detail)


def _runtimes() -> Iterator[Row]:
    root = runtimes_folder(os.environ)
    for one in Runtimes(root, runtime_overrides(os.environ)).status():
        if one.installed:
            continue
        older = [found for found in root.glob(f"{one.name}-*") if (found / MARKER).exists()]
        if older:
            detail = f"an environment of another release is there; this one needs {one.packages} packages"
            yield _row(f"runtime {one.name}", "to do", detail, f"chimera runtime install {one.name}")


def _running(home: Home) -> Row:
    try:
        with alone(home):
            return _row("platform", "ok", "nothing runs in the home")
    except Exception as error:
        endpoint = home.path / "run" / "endpoint.json"
        running = None
        if endpoint.exists():
            running = msgspec.json.decode(endpoint.read_bytes()).get("release")
        if running == release():
            return _row("platform", "ok", f"release {running} runs, which is this one")
        detail = f"release {running or 'unknown'} runs" if endpoint.exists() else str(error)
        return _row("platform", "to do", detail, f"stop it, and start it with this release ({release()})")


def _settings(home: Home) -> Iterator[Row]:
    """Settings that this release doesn't know, or that have a value which it refuses."""
    file = home.path / FILE_NAME
    groups = {"node": NodeSettings, **gateway_groups()}
    known = {*groups, "model", "issuer"}
    found = read_groups(file, os.environ)
    problems = [f"{file}: unknown group {name!r}" for name in sorted(set(found) - known)]
    for name, group in groups.items():
        try:
            load_group(group, found.get(name, {}), where=f"{file}: {name}")
        except SettingsError as error:
            problems += error.problems
    for problem in problems:
        yield _row("settings", "to do", problem, "take it out or correct it; docs/reference/settings.md has all")
