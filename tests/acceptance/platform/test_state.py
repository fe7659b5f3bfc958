"""Sessions, people, keys and spaces by the command line, against a real platform."""

import json
import os
import signal
from pathlib import Path
from typing import Any

HELLO = """\
schema_version: "ADaC v2.0"
metadata: {name: keeper, version: "1.0.0", description: Keeps.}
specification: {framework: function}
capabilities: {primary_functions: [keep]}
behaviour: {function: {system_message: Keep.}}
"""
BOARD = 'owner: agent:keeper\naccess: {"*": read}\nrules: {votes/*: counter, log: append, plan: custom}\n'


def test_conversations_are_kept_found_exported_and_erased(platform: Any, tmp_path: Path) -> None:
    definition = tmp_path / "keeper.yaml"
    definition.write_text(HELLO)
    platform.ok("apply", str(definition))
    for name in ("monday", "tuesday"):
        platform.ok("invoke", "keeper", f"the secret of {name}", "--session", name, "--subject", "annabelle")
    platform.ok("invoke", "keeper", "hello", "--session", "other", "--no-stream")

    assert [row["session"] for row in platform.data("sessions", "list", "--subject", "annabelle")] == [
        "monday",
        "tuesday",
    ]
    assert len(platform.data("sessions", "list", "keeper")) == 3
    assert platform.data("sessions", "list", "keeper", "--idle", "1h") == []
    assert "other" in platform.ok("sessions", "list")
    shown = platform.data("sessions", "show", "keeper", "monday")
    assert (shown["version"], shown["subject"], len(shown["state"]["messages"])) == (1, "annabelle", 2)
    one = [json.loads(line) for line in platform.ok("sessions", "export", "keeper", "monday").splitlines()]
    assert [record["record"] for record in one] == ["session"]
    whole = platform.ok("sessions", "export", "--subject", "annabelle")
    assert whole.count("\n") == 2 and "the secret of monday" in whole and "the secret of tuesday" in whole
    assert platform.data("sessions", "person", "annabelle")["kept"]["sessions"] == 2
    assert platform.run("sessions", "export").returncode == 64

    assert "sessions\t2" in platform.ok("sessions", "erase", "annabelle", "--yes")
    assert platform.data("sessions", "list", "--subject", "annabelle") == []
    platform.ok("sessions", "delete", "keeper", "other", "--yes")
    gone = platform.run("sessions", "show", "keeper", "other")
    assert (gone.returncode, "no session" in gone.stderr) == (65, True)
    told = [json.dumps(entry) for entry in platform.data("audit", "list", "--limit", "1000")]
    erased = [entry for entry in told if "subject:erase" in entry and "subjects/" in entry]
    assert len(erased) == 1 and '"sessions": 2' in erased[0]
    assert not any("annabelle" in entry or "secret" in entry for entry in told)


def test_the_same_key_gives_the_same_answer(platform: Any, tmp_path: Path) -> None:
    definition = tmp_path / "keeper.yaml"
    definition.write_text(HELLO)
    platform.ok("apply", str(definition))
    first = platform.data("invoke", "keeper", "hello", "--key", "order-1")
    again = platform.data("invoke", "keeper", "hello", "--key", "order-1")
    assert (first["output"], first["run"]) == (again["output"], again["run"])
    assert again["usage"]["total_tokens"] == 0
    reused = platform.run("invoke", "keeper", "something else", "--key", "order-1")
    assert (reused.returncode, "used for a request" in reused.stderr) == (65, True)
    nothing = platform.run("invoke", "keeper", "--session", "s", "--resume")
    assert "no unfinished work" in nothing.stderr


def test_spaces_are_declared_written_and_read(platform: Any, tmp_path: Path) -> None:
    board = tmp_path / "board.yaml"
    board.write_text(BOARD)
    made = platform.data("state", "spaces", "put", "board", str(board))
    assert (made["version"], made["declared"]["owner"]) == (1, "agent:keeper")
    write = ("state", "spaces", "write", "board")
    platform.ok(*write, "votes/a", "2", "--add")
    platform.ok(*write, "votes/a", "3", "--add")
    platform.ok(*write, "log", '"first"', "--append")
    version = platform.data(*write, "plan", '["a"]', "--version", "0")["entries"][0]["version"]
    stale = platform.run(*write, "plan", '["b"]', "--version", "1")
    assert (stale.returncode != 0, "somebody else has written" in stale.stderr) == (True, True)
    platform.ok(*write, "plan", '["a", "b"]', "--version", str(version))
    found = {row["key"]: row["value"] for row in platform.data("state", "spaces", "entries", "board")}
    assert found == {"log": ["first"], "plan": ["a", "b"], "votes/a": 5}
    assert platform.run(*write, "votes/a", "1").returncode != 0
    assert platform.run(*write, "votes/a", "one", "--add").returncode == 64
    assert "board" in platform.ok("state", "spaces", "list")
    assert platform.data("state", "spaces", "show", "board")["entries"] == 3
    platform.ok("state", "spaces", "delete", "board", "--yes")
    assert platform.data("state", "spaces", "list") == []


def test_all_of_it_works_while_the_control_plane_is_away(platform: Any, tmp_path: Path) -> None:
    definition = tmp_path / "keeper.yaml"
    definition.write_text(HELLO)
    platform.ok("apply", str(definition))
    platform.ok("invoke", "keeper", "hello", "--session", "before", "--subject", "annabelle")
    control_plane = platform.pids()["control-plane"]
    os.kill(control_plane, signal.SIGSTOP)
    try:
        platform.ok("invoke", "keeper", "hello", "--session", "during", "--subject", "annabelle", "--key", "k")
        assert len(platform.data("sessions", "list", "--subject", "annabelle")) == 2
        assert platform.ok("sessions", "export", "--subject", "annabelle").count("\n") == 3
        platform.ok("sessions", "erase", "annabelle", "--yes")
    finally:
        os.kill(control_plane, signal.SIGCONT)
