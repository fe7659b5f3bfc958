"""The audit log by the command line, against a real platform: what it records, what verifies it, what shows damage."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HELLO = """\
schema_version: "ADaC v2.0"
metadata: {name: audited, version: "1.0.0", description: Is audited.}
specification: {framework: function}
capabilities: {primary_functions: [greet]}
behaviour: {function: {system_message: Greet.}}
"""
CHIMERA = str(Path(sys.executable).with_name("chimera"))


@pytest.fixture
def start(new_platform: Any, tmp_path: Path) -> Iterator[Any]:
    made: list[Any] = []

    def starting(prepare: Callable[[Path], None] = lambda _: None, **environ: str) -> Any:
        made.append(new_platform(tmp_path / "home", prepare=prepare, **environ))
        return made[-1]

    yield starting
    for one in made:
        if one.process.returncode is None:
            one.stop()


def change(platform: Any, statement: str, *values: object) -> None:
    """Change the database behind the platform's back."""
    connection = sqlite3.connect(platform.home / "chimera.db", timeout=20)
    with connection:
        connection.execute(statement, values)
    connection.close()


def log_of(platform: Any, *wanted: str) -> list[dict[str, Any]]:
    return [one["entry"] for one in platform.data("--tenant", "*", "audit", "list", "--limit", "500", *wanted)]


def until_signed(platform: Any, through: int) -> dict[str, Any]:
    """Verify until a checkpoint covers so many entries; each verification is recorded, so there is always more."""
    for _ in range(30):
        report: dict[str, Any] = platform.data("audit", "verify")
        assert report["ok"], report
        if report["signed_through"] >= through:
            return report
    raise AssertionError("no checkpoint was signed in thirty verifications")


def test_what_happens_is_recorded_signed_and_verified(start: Any, tmp_path: Path) -> None:
    platform = start(CHIMERA_AUDIT__CHECKPOINT_SECONDS="1")
    definition = tmp_path / "audited.yaml"
    definition.write_text(HELLO)
    platform.ok("apply", str(definition))
    assert platform.ok("invoke", "audited", "a word that nobody else says")
    viewer = platform.data("keys", "create", "v", "--role", "viewer")["token"]
    assert platform.run("--key", viewer, "invoke", "audited", "x").returncode == 77
    platform.ok("delete", "audited")

    entries = log_of(platform)
    actions = {one["action"] for one in entries}
    assert {"platform.started", "agent.created", "agent:invoke", "key.created", "agent.deleted"} <= actions
    assert "a word that nobody else says" not in json.dumps(entries)
    (denied,) = log_of(platform, "--decision", "deny")
    assert denied["resource"] == "agents/audited"
    (decided,) = [one for one in log_of(platform, "--action", "agent:invoke") if one.get("decision") == "allow"]
    assert {one.get("outcome", "") for one in log_of(platform, "--call", decided["call"])} == {"", "ok"}

    report = until_signed(platform, 5)
    assert (report["first"], report["removed_through"], report["findings"]) == (1, 0, [])
    proof = platform.data("--tenant", "*", "audit", "prove", "3")
    assert proof["entry"]["seq"] == 3
    assert platform.data("audit", "checkpoint")[0]["note"].startswith("chimera-audit-")
    exported = tmp_path / "audit.jsonl"
    platform.ok("--tenant", "*", "audit", "export", "--to", str(exported))
    checkpoints = platform.home / "audit" / "checkpoints"
    assert "Nothing was altered." in platform.ok("audit", "verify", "--export", str(exported))
    lines = exported.read_text().splitlines(keepends=True)
    exported.write_text("".join(lines[:3] + lines[4:]))
    done = platform.run("audit", "verify", "--export", str(exported), "--output", "json")
    assert (done.returncode, json.loads(done.stdout)["findings"][0]["kind"]) == (65, "missing")

    assert platform.stop() == 0
    database = str(platform.home / "chimera.db")
    keys = str(platform.home / "audit" / "public-keys")
    offline = ("audit", "verify", "--database", database, "--public-key", keys, "--checkpoints", str(checkpoints))
    assert platform.data(*offline)["ok"]
    change(platform, "UPDATE audit_entry SET entry = CAST(replace(entry, 'system', 'nobody') AS BLOB) WHERE seq = 1")
    done = platform.run(*offline, "--output", "json")
    assert done.returncode == 65
    assert json.loads(done.stdout)["findings"][0]["seq"] == 1
    assert "edited, or moved" in platform.run(*offline).stdout


def test_another_machine_signs(start: Any, tmp_path: Path) -> None:
    key = tmp_path / "elsewhere.key"

    def prepare(home: Path) -> None:
        (home / "audit").mkdir()
        command = [CHIMERA, "audit", "key", str(key), "--make", "shop.example/audit", "--output", "json"]
        made = subprocess.run(command, capture_output=True, check=True)
        (home / "audit" / "public-keys").write_text(json.loads(made.stdout)["public_key"] + "\n")

    platform = start(prepare, CHIMERA_AUDIT__KEY="elsewhere")
    sign = ("audit", "checkpoint", "--sign", "--signing-key", str(key))
    (first,) = platform.data(*sign)
    (second,) = platform.data(*sign)
    assert second["size"] > first["size"]
    assert until_signed(platform, second["size"])["log"] == "shop.example/audit"
    remembered = key.with_name(key.name + ".checkpoints")
    assert len(remembered.read_text().splitlines()) == 2
    # What the signer knows and the log lost: nothing more is signed.
    change(platform, "DELETE FROM audit_checkpoint WHERE size >= ?", second["size"])
    refused = platform.run(*sign)
    assert refused.returncode == 65
    assert "no checkpoint of" in refused.stderr
