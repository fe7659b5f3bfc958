"""`chimera doctor`: what this machine has and lacks, each with what to do."""

import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import connect, options_of
from chimera.entrypoints.cli.places import home_folder
from chimera.kernel.places import runtime_overrides, runtimes_folder
from chimera.kernel.settings import FILE_NAME, SettingsError, load_group, read_groups
from chimera_host.contract.problem import ProblemError

FREE_BYTES = 2 * 1024**3
COLUMNS = (("check", "CHECK"), ("state", "STATE"), ("detail", "DETAIL"), ("next", "NEXT"))

Row = dict[str, Any]


@click.command(epilog="Example: chimera doctor --output json")
@out.output_option
@click.pass_context
def doctor(context: click.Context, output: str) -> int:
    """Check this machine: system, disk, runtimes, keys, database, what runs. Ends with 1 where something is broken."""
    home = home_folder(options_of(context))
    rows = [*_machine(home), *_runtimes(), *_home(home), *_database(home), *_audit(home), _running(context)]
    out.show(rows, output, columns=COLUMNS, rows=rows)
    return int(any(row["state"] == "broken" for row in rows))


def _row(check: str, state: str, detail: str, following: str = "") -> Row:
    return {"check": check, "state": state, "detail": detail, "next": following}


def _machine(home: Path) -> Iterator[Row]:
    system = platform.system()
    if system == "Linux":
        yield _row("system", "ok", f"{system} {platform.release()}")
    else:
        step = "on Windows, run it in WSL2" if system == "Windows" else "works without fork and control groups"
        yield _row("system", "limited", system, step)
    yield _row("python", "ok" if sys.version_info >= (3, 11) else "broken", platform.python_version())
    yield _row("sqlite", "ok", sqlite3.sqlite_version)
    free = shutil.disk_usage(Path.home()).free
    state = "ok" if free > FREE_BYTES else "limited"
    yield _row("disk", state, f"{free >> 30} GiB free", "" if state == "ok" else "make room: 2 GiB are needed")
    yield _node(home)
    from chimera.adapters.substrates.local.limits import detect

    groups = detect()
    detail = f"control groups version {groups.version}" if groups.folders else "control groups can't be written"
    step = "" if groups.folders else "hosts are limited by watching their memory instead"
    yield _row("limits", "ok" if groups.folders else "limited", detail, step)


def _node(home: Path) -> Row:
    from chimera.adapters.runtimes import Runtimes
    from chimera.adapters.substrates.local import nodejs
    from chimera.platform.errors import RuntimeMissing
    from chimera.platform.settings import NodeSettings

    file = home / FILE_NAME
    try:
        settings = load_group(NodeSettings, read_groups(file, os.environ).get("node", {}), where=f"{file}: node")
        found, version = nodejs.look(
            settings.node_program, Runtimes(runtimes_folder(os.environ), runtime_overrides(os.environ))
        )
    except SettingsError as error:
        return _row("settings", "broken", str(error), "correct the settings")
    except RuntimeMissing as error:
        return _row("node", "limited", error.detail, error.next_step or "")
    return _row("node", "ok", f"{found} {version}")


def _runtimes() -> Iterator[Row]:
    from chimera.adapters.runtimes import Runtimes

    for one in Runtimes(runtimes_folder(os.environ), runtime_overrides(os.environ)).status():
        if one.installed:
            yield _row(f"runtime {one.name}", "ok", str(one.path))
        else:
            yield _row(f"runtime {one.name}", "missing", "not installed", f"chimera runtime install {one.name}")


def _home(home: Path) -> Iterator[Row]:
    key = home / "chimera.key"
    if not key.exists():
        yield _row("home", "ok", f"{home} (not used yet)")
    elif key.stat().st_mode & 0o077:
        yield _row("key", "broken", f"others may read {key}", f"chmod 600 {key}")
    else:
        yield _row("key", "ok", str(key))


def _database(home: Path) -> Iterator[Row]:
    from chimera.adapters.storage.checking import check
    from chimera.platform.settings import NodeSettings

    file = home / FILE_NAME
    try:
        settings = load_group(NodeSettings, read_groups(file, os.environ).get("node", {}), where=f"{file}: node")
        found = check(settings, home, os.environ)
    except SettingsError as error:
        yield _row("database", "broken", str(error), "correct the settings")
    except ProblemError as error:
        yield _row("database", "broken", error.detail, error.next_step or "")
    else:
        yield _row("database", "ok", found.detail)
        for fault in found.faults:
            what, _, step = fault.partition("; ")
            yield _row("database", "limited", what, step)


def _audit(home: Path) -> Iterator[Row]:
    from chimera.adapters.signing.ed25519 import read_key
    from chimera.immune.audit.settings import AuditSettings

    file = home / FILE_NAME
    try:
        settings = load_group(AuditSettings, read_groups(file, os.environ).get("audit", {}), where=f"{file}: audit")
        if settings.key == "elsewhere":
            yield _row("audit key", "ok", "another machine signs the audit log's checkpoints")
            return
        key = Path(settings.key) if settings.key else home / "audit.key"
        if settings.key or key.exists() or (home / "audit" / "checkpoints").exists():
            yield _row("audit key", "ok", f"{key} of {read_key(key).public.name}")
    except SettingsError as error:
        yield _row("audit key", "broken", str(error), "correct the settings")
    except ProblemError as error:
        yield _row("audit key", "broken", error.detail, error.next_step or "")


def _running(context: click.Context) -> Row:
    import asyncio

    async def look() -> str:
        async with connect(options_of(context)) as api:
            await api.call("GET", "/v1/status")
            return api.url

    try:
        return _row("platform", "ok", asyncio.run(look()))
    except ProblemError as error:
        return _row("platform", "not running", error.detail, error.next_step or "")
