"""No planted secret is in anything that a platform writes, answers or logs.

Planted are: credentials of tools (file, environment, mounted Kubernetes Secret), a model's key, API keys, tokens and
wrong keys that callers show. What is searched is everything else: the database's files, every log, what processes write
into the home, every answer of the API (errors, events, tasks, exports of sessions, people and the audit log too),
metrics, and what the command line prints. A backup is the database's files.
"""

import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHOP = """\
from chimera_host.broker.context import ToolContext


def price_of(item: str, context: ToolContext) -> str:
    \"\"\"Look up a price.\"\"\"
    if item == "broken":
        raise RuntimeError(f"the shop refused {context.credentials['env']}")  # as servers and libraries do
    if item == "leaky":
        return f"I was called with {context.credentials['file']}"
    return f"{item}: " + ",".join(f"{name}={len(value)}" for name, value in sorted(context.credentials.items()))


def missing(item: str, context: ToolContext) -> str:
    \"\"\"Never runs: its credential isn't stored.\"\"\"
    return item
"""
DEFINITION = """\
schema_version: "ADaC v2.0"
metadata: {name: clerk, version: "1.0.0", description: Looks up prices.}
specification: {framework: function, source: ./src}
capabilities:
  primary_functions: [look up prices]
  integration_points: ["service:models", "tool:price", "tool:gone"]
behaviour: {function: {system_message: Use your tools., tools: [price, gone]}}
tools:
  - type: function
    name: price
    function: "shop:price_of"
    credentials: {file: "secret:IN_A_FILE", env: "secret:IN_THE_ENVIRONMENT", mount: "secret:in-a-mount"}
  - {type: function, name: gone, function: "shop:missing", credentials: {x: "secret:ABSENT"}}
"""
SCRIPT = """
- {when: {last: broken}, tool_calls: [{name: price, arguments: {item: broken}}]}
- {when: {last: leaky}, tool_calls: [{name: price, arguments: {item: leaky}}]}
- {when: {last: gone}, tool_calls: [{name: gone, arguments: {item: x}}]}
- {when: {last: "price"}, tool_calls: [{name: price, arguments: {item: tea}}]}
"""


def planted(name: str) -> str:
    return f"PLANTED-{name}-{secrets.token_hex(16)}"


def ask(url: str, key: str, method: str = "GET", body: Any = None) -> str:
    """The answer and its headers as text, whatever its status."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)
    request.add_header("Authorization", f"Bearer {key}")
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(answer.headers) + answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return str(error.headers) + error.read().decode()


def test_no_planted_secret_gets_out(new_platform: Callable[..., Any], tmp_path: Path) -> None:
    hidden = {name: planted(name) for name in ("file", "environment", "mount", "model", "shown", "home")}
    mount = tmp_path / "mounted"
    (mount / "..data").mkdir(parents=True)
    (mount / "..data" / "in-a-mount").write_text(hidden["mount"])  # as Kubernetes lays a Secret out
    (mount / "in-a-mount").symlink_to("..data/in-a-mount")
    home = tmp_path / "home"
    settings = f"""
    [identity]
    secret_mounts = "{mount}"
    [model.other]
    provider = "openai"
    base_url = "http://127.0.0.1:9/v1"
    api_key = "env:THE_MODELS_KEY"
    """
    environ = {
        "CHIMERA_SECRET_IN_THE_ENVIRONMENT": hidden["environment"],
        "THE_MODELS_KEY": hidden["model"],
        "CHIMERA_NODE__WARM_PARENTS": "false",
    }
    (tmp_path / "script.yaml").write_text(SCRIPT)
    platform = new_platform(
        home, "--script", str(tmp_path / "script.yaml"), prepare=_prepared(hidden, settings), **environ
    )
    said: list[str] = []
    try:
        (tmp_path / "src").mkdir()
        (tmp_path / "src" / "shop.py").write_text(SHOP)
        (tmp_path / "clerk.yaml").write_text(DEFINITION)
        platform.ok("apply", str(tmp_path / "clerk.yaml"))
        made = json.loads(platform.ok("keys", "create", "shop", "--role", "operator", "--output", "json"))
        hidden["key"] = made["token"].rpartition("_")[2]
        rotated = json.loads(platform.ok("keys", "rotate", made["key"]["id"], "--output", "json"))
        hidden["rotated"] = rotated["token"].rpartition("_")[2]
        hidden["home key"] = platform.key
        tenant = f"{platform.url}/v1/tenants/default"
        for text in ("price", "broken", "leaky", "gone"):
            answer = ask(f"{tenant}/agents/clerk/invoke", rotated["token"], "POST", {"input": text})
            said.append(answer)
            if text == "price":
                assert all(f"{name}=" in answer for name in ("env", "file", "mount")), "the tool had all three"
            if text == "leaky":
                assert "[secret:IN_A_FILE]" in answer
        for key in (hidden["shown"], f"chk_{'0' * 16}_{hidden['shown']}", f"a.{hidden['shown']}.c", made["token"]):
            said.append(ask(f"{tenant}/models", key))
            said.append(ask(f"{tenant}/agents/clerk/invoke", key, "POST", {"input": 3}))
        for text in ("broken", "leaky"):
            asked = {"input": text, "session": "s", "subject": "ann", "max_attempts": 1}
            task = json.loads(_body(ask(f"{tenant}/agents/clerk/tasks", rotated["token"], "POST", asked)))["task"]
            said.append(ask(f"{tenant}/agents/clerk/tasks/{task}?wait=30", platform.key))
            said.append(ask(f"{tenant}/agents/clerk/tasks/{task}/result", platform.key))
            assert '"state":"succeeded"' in said[-2] or '"problem"' in said[-2], "the task has ended"
        paths = (
            *("models", "keys", "policies", "roles", "agents/clerk", "agents/clerk/revisions", "agents"),
            *("tasks", "sessions", "agents/clerk/sessions/s/export", "subjects/ann/export", "spaces"),
            *("events?limit=1000", "dead-letters", "subscriptions", "audit?limit=1000", "audit/export"),
        )
        said += [ask(f"{tenant}/{path}", platform.key) for path in paths]
        said += [
            ask(f"{platform.url}{path}", platform.key)
            for path in ("/metrics", "/openapi.json", "/v1/logs?lines=10000", "/v1/top", "/v1/status", "/v1/incidents")
        ]
        for command in (
            ("describe", "clerk"),
            ("keys", "list"),
            ("status",),
            ("logs", "--lines", "10000"),
            ("doctor",),
            ("audit", "list"),
            ("audit", "export"),
            ("sessions", "export", "clerk", "s"),
            ("tasks", "list"),
        ):
            done = platform.run(*command)
            said += [done.stdout, done.stderr]
        platform.ok("keys", "revoke", made["key"]["id"])
    finally:
        platform.stop()
    for what in ("clerk", "task.succeeded", "agent:invoke", "session.updated", "key.rotated"):
        assert any(what in one for one in said), f"nothing was said of {what}"
    searched = {f"answer {number}": one.encode() for number, one in enumerate(said)}
    holders = {home / "secrets" / "IN_A_FILE", home / "chimera.key"}
    for file in home.rglob("*"):
        if file.is_file() and file not in holders:
            searched[str(file.relative_to(home))] = file.read_bytes()
    assert any(name.startswith("chimera.db") for name in searched)
    assert any(name.startswith("logs/") for name in searched)
    found = {
        f"{what} in {where}"
        for where, data in searched.items()
        for what, value in hidden.items()
        if value.encode() in data
    }
    assert not found


def _body(answer: str) -> str:
    return answer[answer.index("{") :]


def _prepared(hidden: dict[str, str], settings: str) -> Callable[[Path], None]:
    def prepare(home: Path) -> None:
        (home / "secrets").mkdir(mode=0o700)
        file = home / "secrets" / "IN_A_FILE"
        file.touch(mode=0o600)
        file.write_text(hidden["file"])
        (home / "settings.toml").write_text(settings)

    return prepare
