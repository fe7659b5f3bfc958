"""A home through its life: backed up while it runs, moved to a server, restored elsewhere, upgraded at a start."""

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chimera.adapters.storage.backup.archive import reading
from chimera.adapters.storage.migrating import head_version, known_versions, upgrade_to
from chimera.adapters.storage.opening import open_database
from chimera.testing.postgresql import PostgreSQLServer

pytestmark = pytest.mark.slow

DEFINITION = """\
schema_version: "ADaC v2.0"
metadata: {name: keeper, version: 1.0.0, description: Says it again}
specification: {framework: function}
capabilities: {primary_functions: [echo]}
"""
OFTEN = {"CHIMERA_AUDIT__CHECKPOINT_ENTRIES": "5"}
PASSWORD = "kept-nowhere-4711"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQLServer]:
    with PostgreSQLServer() as made:
        yield made


def chimera(platform: Any, home: Path, *arguments: str, code: int = 0, **environ: str) -> str:
    """A command on a home in which nothing runs."""
    done = subprocess.run(
        [platform.process.args[0], "--home", str(home), *arguments],
        env={**platform.environ, "CHIMERA_HOME": str(home), **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def talk(platform: Any) -> None:
    platform.ok("invoke", "keeper", "hello", "--session", "ours")


def told(platform: Any) -> list[str]:
    state = platform.data("sessions", "show", "keeper", "ours")
    return [message["content"] for message in state["state"]["messages"]]


def until(holds: Any, within: float = 30.0) -> None:
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.1)


def made_audit(file: Path) -> int:
    with reading(file) as reader:
        return reader.manifest.audit


def audit_is_whole(platform: Any) -> dict[str, Any]:
    report: dict[str, Any] = platform.data("audit", "verify")
    assert report["ok"], report
    return report


def test_from_a_file_to_a_server_and_elsewhere(new_platform: Any, server: PostgreSQLServer, tmp_path: Path) -> None:
    url = server.new_database(migrated=False)
    first = new_platform(tmp_path / "first", **OFTEN)
    first.ok("apply", "-", text=DEFINITION)
    talk(first)
    made = first.data("backup", "create", str(tmp_path / "first.backup"))
    assert made["signed"]
    talk(first)
    refused = first.run("state", "move", "--to", url)
    assert refused.returncode == 65 and "runs in" in refused.stderr
    assert first.stop() == 0

    home, where = first.home, ("--to", url, "--password", "secret:database")
    said = chimera(first, home, "state", "move", *where, "--output", "json", CHIMERA_SECRET_database=PASSWORD)
    moved = json.loads(said)
    assert moved["settings"] is True and moved["rows"] > 20
    assert PASSWORD not in said + (home / "settings.toml").read_text()
    assert "password" in chimera(first, home, "state", "move", "--to", "postgresql://a:b@c/d", code=78)

    # With the settings taken back the file is no second state.
    (home / "settings.toml").rename(tmp_path / "aside")
    assert "moved" in chimera(first, home, "up", "--port", "0", code=78)
    (tmp_path / "aside").rename(home / "settings.toml")

    again = new_platform(home, CHIMERA_SECRET_database=PASSWORD, **OFTEN)
    try:
        assert [row["name"] for row in again.data("get", "agents")] == ["keeper"]
        assert len(told(again)) == 4
        talk(again)
        audit_is_whole(again)
        at_server = again.data("backup", "create", str(tmp_path / "server.backup"))
        assert at_server["database"] == "postgresql"
    finally:
        assert again.stop() == 0

    elsewhere = tmp_path / "elsewhere"
    chimera(first, elsewhere, "restore", str(tmp_path / "server.backup"), "--public-key", first.where["audit_keys"])
    assert (elsewhere / "audit.key").read_bytes() != (home / "audit.key").read_bytes()
    third = new_platform(elsewhere, **OFTEN)
    try:
        assert len(told(third)) == 6
        assert audit_is_whole(third)["signed_through"] > 0
        talk(third)
        assert "runs in" in third.run("restore", str(tmp_path / "first.backup"), "--replace").stderr
        until(lambda: audit_is_whole(third)["signed_through"] > made_audit(tmp_path / "server.backup"))
    finally:
        assert third.stop() == 0

    # Back to before the move, in a home that has seen more: what was lost is set aside, and the log verifies.
    said = chimera(first, elsewhere, "restore", str(tmp_path / "first.backup"), "--replace")
    assert "before-restore" in said
    assert list((elsewhere / "audit").glob("checkpoints.2*")) and list(elsewhere.glob("audit.key.2*"))
    report = json.loads(
        chimera(first, elsewhere, "audit", "verify", "--database", str(elsewhere / "chimera.db"), "--output", "json")
    )
    assert report["ok"] and report["signed_through"] > 0


def test_a_start_on_an_older_database_makes_a_backup_and_upgrades(new_platform: Any, tmp_path: Path) -> None:
    before = sorted(known_versions())[-2]

    def prepare(home: Path) -> None:
        async def make() -> None:
            database = open_database(home / "chimera.db")
            await database.exclusive(lambda connection: upgrade_to(connection, before))
            await asyncio.to_thread(database.close)

        asyncio.run(make())

    platform = new_platform(tmp_path / "home", prepare=prepare)
    try:
        (row,) = platform.data("backup", "list")
        assert row["schema"] == before
        assert "before-upgrade" in row["file"]
        platform.ok("backup", "verify", row["file"])
        checks = {row["check"]: row for row in platform.data("upgrade", "--check")}
        assert head_version() in checks["database"]["detail"]
        assert checks["platform"]["state"] == "ok"
    finally:
        assert platform.stop() == 0
