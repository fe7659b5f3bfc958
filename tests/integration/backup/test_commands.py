"""The commands on a home in which nothing runs: what lies beside the database, keys, and what is refused."""

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from chimera.adapters.signing.ed25519 import check_signature, make_key
from chimera.adapters.signing.files import FileOfCheckpoints
from chimera.adapters.storage.audit import AuditStorage
from chimera.adapters.storage.backup.errors import (
    BackupExists,
    InUse,
    MoveFailed,
    NotEmpty,
    UntrustedBackup,
)
from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.opening import open_database
from chimera.entrypoints.cli.main import cli
from chimera.immune.audit.checkpoint import make
from chimera.immune.audit.checkpointer import grown
from chimera.immune.audit.model import AuditRecord
from chimera.immune.audit.note import parse_public_key
from chimera.immune.audit.reading import verify
from chimera.kernel.places import hold
from chimera.kernel.settings import SettingsError
from chimera.testing.rows import digests_of, fill

ENTRY = AuditRecord(at=1.0, tenant="t", actor="a", action="b", resource="c", outcome="done", detail={})


def run(home: Path, *arguments: str) -> Any:
    """What a command prints as JSON; its error is raised."""
    done = CliRunner().invoke(cli, ["--home", str(home), *arguments, "--output", "json"], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return json.loads(done.stdout)


def record(home: Path, entries: int, *, sign: bool = True) -> None:
    """Append to the home's audit log, and sign it as `chimera up` does."""

    async def work() -> None:
        database = open_database(home / "chimera.db")
        try:
            await migrate(database)
            store = AuditStorage(database)
            await store.record([ENTRY] * entries)
            if sign:
                from chimera.adapters.signing.ed25519 import read_key

                head = await store.head()
                tree, last = await grown(store, await store.last_checkpoint(), head.seq)
                made = make(tree, last=last, at=2.0, signer=read_key(home / "audit.key"))
                await store.add_checkpoint(made)
                FileOfCheckpoints(home / "audit" / "checkpoints").append([made])
        finally:
            await asyncio.to_thread(database.close)

    asyncio.run(work())


def findings(home: Path) -> list[str]:
    """What a verification of the home's log against its files and keys finds."""

    async def work() -> list[str]:
        database = open_database(home / "chimera.db")
        lines = (home / "audit" / "public-keys").read_text().splitlines()
        try:
            report = await verify(
                AuditStorage(database),
                keys=[parse_public_key(line) for line in lines],
                checker=check_signature,
                files=[("file", FileOfCheckpoints(home / "audit" / "checkpoints"))],
            )
            return [one.kind for one in report.findings]
        finally:
            await asyncio.to_thread(database.close)

    return asyncio.run(work())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    (made / "audit").mkdir(parents=True)
    signer = make_key(made / "audit.key", "shop.example/audit")
    (made / "audit" / "public-keys").write_text(f"{signer.public}\n")
    (made / "chimera.key").write_text("the key")
    (made / "settings.toml").write_text("[node]\nmax_hosts = 3\n")
    (made / "secrets").mkdir()
    (made / "secrets" / "weather").write_text("not-in-a-backup")
    record(made, 10)
    return made


def test_a_backup_takes_along_what_is_needed_and_no_secret(home: Path, tmp_path: Path) -> None:
    plain = run(home, "backup", "create", str(tmp_path / "plain"))
    keys = run(home, "backup", "create", str(tmp_path / "keys"), "--with-keys")
    assert plain["files"] == ["settings.toml", "audit/public-keys", "audit/checkpoints"]
    assert keys["files"] == [*plain["files"], "audit.key", "chimera.key"]
    assert plain["signed"] and plain["tables"]["audit_entry"]["rows"] == 10
    with pytest.raises(BackupExists):
        run(home, "backup", "create", str(tmp_path / "plain"))

    first = run(home, "backup", "create")
    (listed,) = run(home, "backup", "list")
    assert (listed["file"], listed["digest"]) == (first["file"], first["digest"])
    assert Path(first["file"]).parent == home / "backups"


def test_only_what_the_key_has_signed_is_taken_where_it_is_asked_for(home: Path, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other.key", "shop.example/audit").public
    run(home, "backup", "create", str(tmp_path / "signed"))
    (home / "audit.key").rename(tmp_path / "audit.key")
    run(home, "backup", "create", str(tmp_path / "unsigned"))

    good = str(home / "audit" / "public-keys")
    assert run(home, "backup", "verify", str(tmp_path / "signed"), "--public-key", good)["signed"]
    run(home, "backup", "verify", str(tmp_path / "unsigned"))
    for file, key in (("unsigned", good), ("signed", str(other))):
        with pytest.raises(UntrustedBackup):
            run(home, "backup", "verify", str(tmp_path / file), "--public-key", key)
        with pytest.raises(UntrustedBackup):
            run(tmp_path / "new", "restore", str(tmp_path / file), "--public-key", key)
        assert not (tmp_path / "new" / "chimera.db").exists()


def test_a_new_home_gets_all_but_the_keys_and_signs_on_by_a_key_of_its_own(home: Path, tmp_path: Path) -> None:
    run(home, "backup", "create", str(tmp_path / "a"))
    new = tmp_path / "new"

    done = run(new, "restore", str(tmp_path / "a"))

    assert done["kept"] is None
    assert (new / "settings.restored.toml").read_text() == (home / "settings.toml").read_text()
    assert not (new / "settings.toml").exists() and not (new / "chimera.key").exists()
    assert findings(new) == []
    lines = (new / "audit" / "public-keys").read_text().splitlines()
    assert lines[:1] == (home / "audit" / "public-keys").read_text().splitlines()
    assert len(lines) == 2 and len({parse_public_key(line).name for line in lines}) == 1
    record(new, 3)
    assert findings(new) == []
    assert (new / "audit.key").stat().st_mode & 0o777 == 0o600


def test_with_its_keys_a_home_comes_back_as_it_was(home: Path, tmp_path: Path) -> None:
    run(home, "backup", "create", str(tmp_path / "a"), "--with-keys")
    new = tmp_path / "new"
    run(new, "restore", str(tmp_path / "a"))
    for name in ("audit.key", "chimera.key", "audit/public-keys", "audit/checkpoints"):
        assert (new / name).read_bytes() == (home / name).read_bytes(), name


def test_a_home_that_has_seen_more_keeps_the_proof_of_it(home: Path, tmp_path: Path) -> None:
    run(home, "backup", "create", str(tmp_path / "a"))
    record(home, 5)
    seen, key = (home / "audit" / "checkpoints").read_bytes(), (home / "audit.key").read_bytes()
    with pytest.raises(NotEmpty):
        run(home, "restore", str(tmp_path / "a"))

    done = run(home, "restore", str(tmp_path / "a"), "--replace")

    assert findings(home) == []
    (aside,) = (home / "audit").glob("checkpoints.*Z")
    (old_key,) = home.glob("audit.key.*Z")
    assert (aside.read_bytes(), old_key.read_bytes()) == (seen, key)
    assert (home / "audit.key").read_bytes() != key
    assert any("checkpoints" in step for step in done["next"])
    # What was there can be had back, and then nothing is set aside: nothing is lost.
    run(tmp_path / "back", "restore", done["kept"])
    assert (tmp_path / "back" / "audit" / "checkpoints").read_bytes() == seen
    assert findings(tmp_path / "back") == []


def test_a_home_that_has_lost_nothing_keeps_its_key(home: Path, tmp_path: Path) -> None:
    run(home, "backup", "create", str(tmp_path / "a"))
    key = (home / "audit.key").read_bytes()
    run(home, "restore", str(tmp_path / "a"), "--replace")
    assert (home / "audit.key").read_bytes() == key
    assert findings(home) == []


def test_a_database_that_can_not_be_read_is_set_aside(home: Path, tmp_path: Path) -> None:
    run(home, "backup", "create", str(tmp_path / "a"))
    before = asyncio.run(digests_of(str(home / "chimera.db")))
    (home / "chimera.db").write_bytes(b"this is no database, not any more" * 200)
    for suffix in ("-wal", "-shm"):
        (home / f"chimera.db{suffix}").unlink(missing_ok=True)
    with pytest.raises(click.UsageError):
        run(home, "restore", str(tmp_path / "a"), "--discard")

    done = run(home, "restore", str(tmp_path / "a"), "--replace", "--discard")

    assert Path(done["kept"]).read_bytes().startswith(b"this is no database")
    after = asyncio.run(digests_of(str(home / "chimera.db")))
    assert {**after, "audit_entry": 0} == {**before, "audit_entry": 0}


def test_a_home_in_which_something_runs_is_left_alone(home: Path, tmp_path: Path) -> None:
    run(home, "backup", "create", str(tmp_path / "a"))
    held = hold(home)
    try:
        for command in (
            ["restore", str(tmp_path / "a"), "--replace"],
            ["state", "move", "--to", "postgresql://db/x"],
            ["upgrade"],
        ):
            with pytest.raises(InUse):
                run(home, *command)
        run(home, "backup", "create", str(tmp_path / "b"))
    finally:
        os.close(held)


def test_a_move_sets_where_the_database_is(home: Path, new_name: Callable[[str], str]) -> None:
    opened = open_database(home / "chimera.db")

    async def more() -> None:
        await fill(opened, seed=2, rows=5)
        await asyncio.to_thread(opened.close)

    asyncio.run(more())
    before, to = asyncio.run(digests_of(str(home / "chimera.db"))), new_name("postgresql")

    done = run(home, "state", "move", "--to", to)

    assert done["settings"] and asyncio.run(digests_of(to)) == before
    assert f'database = "{to}"' in (home / "settings.toml").read_text()
    assert "max_hosts = 3" in (home / "settings.toml").read_text()
    assert run(home, "backup", "create")["database"] == "postgresql"
    with pytest.raises(MoveFailed):
        run(home, "state", "move", "--to", "postgresql://elsewhere/x")
    (home / "settings.toml").write_text("")
    assert run(home, "state", "move", "--back")["schema"]
    assert sqlite3.connect(home / "chimera.db").execute("SELECT version_num FROM alembic_version").fetchone()[0]


@pytest.mark.parametrize(
    ("to", "refused"),
    [("postgresql://a:secret@b/c", SettingsError), ("chimera2.db", MoveFailed), ("mysql://b/c", MoveFailed)],
)
def test_an_address_that_is_none_is_refused_without_its_password(home: Path, to: str, refused: type[Exception]) -> None:
    with pytest.raises(refused) as error:
        run(home, "state", "move", "--to", to)
    assert "secret@" not in str(error.value)
