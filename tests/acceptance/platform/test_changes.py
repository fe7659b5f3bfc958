"""Change requests by the command line, against a real platform, whose control plane is killed on the way."""

import json
import time
from pathlib import Path
from typing import Any

HELLO = """\
schema_version: "ADaC v2.0"
metadata: {{name: {name}, version: "{version}", description: Greets {whom}.}}
specification: {{framework: function}}
capabilities: {{primary_functions: [greet]}}
budget: {{tokens_per_day: 1000}}
"""
AWAY = 69
TENANT = ("--tenant", "reviewed")


def keys(platform: Any) -> list[tuple[str, ...]]:
    """One key for each of two people: who changes agents, and who approves."""
    platform.ok("tenants", "create", TENANT[1])
    made = [
        platform.data(*TENANT, "keys", "create", role, "--role", role)["token"] for role in ("operator", "approver")
    ]
    return [(*TENANT, "--key", token) for token in made]


def when_back(platform: Any, *arguments: str) -> str:
    """A command, once the control plane answers again."""
    for _ in range(60):
        done = platform.run(*arguments)
        if done.returncode != AWAY:
            break
        time.sleep(0.5)
    assert done.returncode == 0, done.stderr
    said: str = done.stdout
    return said


def test_agents_are_changed_by_change_requests_alone(platform: Any, tmp_path: Path) -> None:
    anna, ben = keys(platform)
    folder = tmp_path / "agents"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.yaml").write_text(HELLO.format(name=name, version="1.0.0", whom="all"))
    assert "2 created" in platform.ok(*anna, "apply", str(folder)), "apply is direct until a policy says otherwise"

    policy = tmp_path / "policy.yaml"
    shown = platform.ok(*TENANT, "change", "policy", "show").replace("direct: true", "direct: false")
    policy.write_text(shown.replace("automatic: true", "automatic: false"))  # people decide, however good it is
    platform.ok(*TENANT, "change", "policy", "set", str(policy), "--expect", "0")
    assert platform.run(*anna, "change", "policy", "set", str(policy)).returncode == 77, "administrators set it"
    refused = platform.run(*anna, "delete", "one", "--yes")
    assert (refused.returncode, "chimera change open" in refused.stderr) == (65, True), refused.stderr

    for name in ("one", "two"):
        (folder / f"{name}.yaml").write_text(HELLO.format(name=name, version="1.0.1", whom="everybody"))
    opened = json.loads(platform.ok(*anna, "apply", str(folder), "--output", "json"))["change"]
    assert (opened["risk"], opened["agents"]) == ("low", 2)
    assert platform.data(*anna, "describe", "one")["version"] == "1.0.0"
    again = platform.run(*anna, "change", "open", str(folder))
    assert (again.returncode, opened["id"] in again.stderr) == (65, True), again.stderr

    own = platform.run(*anna, "change", "approve", opened["id"])
    assert own.returncode == 77
    platform.kill("control-plane")
    approved = when_back(platform, *ben, "change", "approve", opened["id"], "--comment", "fine")
    assert "is approved" in approved
    done = platform.run(*ben, "change", "show", opened["id"], "--wait")
    assert done.returncode == 0, done.stderr
    assert "approved by" in done.stdout and "fine" in done.stdout
    assert platform.data(*anna, "describe", "one")["version"] == "1.0.1"
    assert [row["state"] for row in platform.data(*anna, "change", "list", "--agent", "two")] == ["done"]

    platform.ok(*TENANT, "change", "freeze", "add", "always", "--day", "mon", "--from", "00:00", "--to", "00:00")
    assert "always" in platform.ok(*anna, "change", "freeze", "list")
    platform.ok(*TENANT, "change", "freeze", "remove", "always")

    removal = platform.data(*anna, "change", "open", "--remove", "two", "--title", "two is not needed")
    assert removal["risk"] == "medium"
    rejected = platform.ok(*ben, "change", "reject", removal["id"], "--comment", "it is")
    assert "rejected" in rejected
    assert platform.run(*anna, "change", "show", removal["id"], "--wait").returncode == 65
    told = platform.ok(*TENANT, "audit", "list", "--action", "change.rejected")
    assert removal["id"] in told

    (folder / "bad.yaml").write_text("schema_version: nonsense\n")
    bad = platform.run(*anna, "change", "open", str(folder))
    assert (bad.returncode, "No change was opened" in bad.stderr) == (65, True)
