"""Keys, roles, tenants and policies by the command line, against a real platform."""

import json
from pathlib import Path
from typing import Any

HELLO = """\
schema_version: "ADaC v2.0"
metadata: {name: greeter, version: "1.0.0", description: Greets.}
specification: {framework: function}
capabilities: {primary_functions: [greet]}
behaviour: {function: {system_message: Greet.}}
"""


def test_who_may_ask_for_what(platform: Any, tmp_path: Path) -> None:
    definition = tmp_path / "greeter.yaml"
    definition.write_text(HELLO)
    platform.ok("apply", str(definition))
    made = platform.data("keys", "create", "shop", "--role", "operator", "--agent", "greeter", "--expires", "1h")
    key, token = made["key"]["id"], made["token"]
    assert platform.ok("--key", token, "invoke", "greeter", "hello").strip()
    assert platform.run("--key", token, "apply", str(definition)).returncode == 77  # limited to one agent
    rotated = platform.data("keys", "rotate", key)["token"]
    assert platform.run("--key", token, "invoke", "greeter", "hello").returncode == 0
    platform.ok("keys", "revoke", key)
    for each in (token, rotated):
        refused = platform.run("--key", each, "invoke", "greeter", "hello")
        assert refused.returncode == 77
        assert "revoked" in refused.stderr
    assert "revoked" in platform.ok("keys", "list")

    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "closed.cedar").write_text(
        'forbid (principal is Key, action == Action::"agent:invoke", resource == Agent::"default/greeter")\n'
        'unless { principal in Role::"admin" };\n'
    )
    cases = tmp_path / "cases.yaml"
    case = {"action": "agent:invoke", "agent": "greeter", "principal": "user:i|anna", "roles": ["operator"]}
    cases.write_text(json.dumps([{**case, "allowed": True}]))
    assert "ok" in platform.ok("policies", "test", str(cases), "--with", str(folder))
    cases.write_text(json.dumps([{**case, "allowed": False}]))
    failed = platform.run("policies", "test", str(cases))
    assert (failed.returncode, "FAIL" in failed.stdout) == (65, True)
    assert platform.data("policies", "apply", str(folder))[0]["version"] == 1
    other = platform.data("keys", "create", "other", "--role", "operator")
    assert platform.run("--key", other["token"], "invoke", "greeter", "hello").returncode == 77
    explained = platform.ok("policies", "explain", "agent:invoke", "greeter", "--as", f"key:{other['key']['id']}")
    assert "may not" in explained
    assert "default/closed" in explained
    platform.ok("policies", "delete", "closed")
    assert platform.run("--key", other["token"], "invoke", "greeter", "hello").returncode == 0
    (folder / "wrong.cedar").write_text("permit (principal, action, resource) when { resource.nothing };")
    wrong = platform.run("policies", "apply", str(folder))
    assert (wrong.returncode, "nothing" in wrong.stderr) == (65, True)

    platform.ok("roles", "set", "user:https://login|anna", "operator")
    assert platform.data("roles", "list")[0]["roles"] == ["operator"]
    platform.ok("roles", "set", "user:https://login|anna")
    assert platform.data("roles", "list") == []

    platform.ok("tenants", "create", "acme")
    inside = platform.data("--tenant", "acme", "keys", "create", "first", "--role", "admin")["token"]
    assert platform.run("--key", inside, "get", "agents").returncode == 77
    assert platform.ok("--tenant", "acme", "--key", inside, "get", "agents")
    platform.ok("tenants", "suspend", "acme")
    assert "suspended" in platform.run("--tenant", "acme", "--key", inside, "get", "agents").stderr
    platform.ok("tenants", "resume", "acme")
    assert platform.ok("--tenant", "acme", "--key", inside, "get", "agents")
    everywhere = platform.data("--tenant", "*", "keys", "create", "prometheus", "--role", "viewer")["token"]
    assert platform.ok("--key", everywhere, "get", "cells")
    assert {row["name"] for row in platform.data("tenants", "list")} >= {"acme", "default"}
