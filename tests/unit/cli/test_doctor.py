"""The doctor's look at Node.js is the platform's own, by the same setting; so is that at the audit log's key."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from chimera.adapters.signing.ed25519 import make_key
from chimera.entrypoints.cli.main import cli


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home; what the machine's variables set counts for nothing."""
    for name in [name for name in os.environ if name.startswith("CHIMERA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CHIMERA_HOME", str(tmp_path))
    return tmp_path


def check(name: str) -> dict[str, str]:
    rows = json.loads(CliRunner().invoke(cli, ["doctor", "--output", "json"]).stdout)
    return {row["check"]: row for row in rows}[name]


def program(home: Path, says: str) -> Path:
    file = home / "node-of-my-own"
    file.write_text(f"#!/bin/sh\necho {says}\n")
    file.chmod(0o700)
    return file


def test_the_setting_names_the_program(home: Path) -> None:
    mine = program(home, "v99.1.0")
    (home / "settings.toml").write_text(f'[node]\nnode_program = "{mine}"\n')
    assert check("node") == {"check": "node", "state": "ok", "detail": f"{mine} v99.1.0", "next": ""}


def test_the_home_that_the_command_names_is_looked_at(home: Path, tmp_path: Path) -> None:
    named = tmp_path / "named"
    named.mkdir()
    (home / "settings.toml").write_text("node = 3")
    (named / "chimera.key").write_text("k")
    (named / "chimera.key").chmod(0o644)
    rows = json.loads(CliRunner().invoke(cli, ["--home", str(named), "doctor", "--output", "json"]).stdout)
    found = {row["check"]: row for row in rows}
    assert "settings" not in found and found["database"]["state"] == "ok"
    assert (found["key"]["state"], found["key"]["next"]) == ("broken", f"chmod 600 {named / 'chimera.key'}")


def test_a_variable_names_the_program(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHIMERA_NODE__NODE_PROGRAM", str(program(home, "v18.20.0")))
    row = check("node")
    assert row["state"] == "limited" and "v18.20.0" in row["detail"] and "node.node_program" in row["next"]


def test_a_program_that_is_not_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHIMERA_NODE__NODE_PROGRAM", "no-such-program")
    row = check("node")
    assert row["state"] == "limited" and "no-such-program" in row["detail"]


def test_settings_that_can_not_be_read(home: Path) -> None:
    (home / "settings.toml").write_text("node = 3")
    row = check("settings")
    assert row["state"] == "broken" and "a group is a table" in row["detail"]


def test_the_key_of_the_audit_log_is_looked_at(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "audit").mkdir()
    (home / "audit" / "checkpoints").touch()
    row = check("audit key")
    assert row["state"] == "broken" and "bring it back" in row["next"]
    make_key(home / "audit.key", "log.example")
    assert check("audit key")["detail"] == f"{home / 'audit.key'} of log.example"
    (home / "audit.key").chmod(0o644)
    assert check("audit key")["next"] == f"chmod 600 {home / 'audit.key'}"
    monkeypatch.setenv("CHIMERA_AUDIT__KEY", "elsewhere")
    assert check("audit key")["state"] == "ok"
