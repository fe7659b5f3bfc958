"""Following a branch by the command line, on a real platform whose control plane is killed on the way."""

import json
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from chimera.testing.repositories import Repository

from .conftest import AT_ONCE, Platform, keep_advisories

HELLO = """\
schema_version: "ADaC v2.0"
metadata: {{name: {name}, version: "1.0.0", description: Greets {whom}.}}
specification: {{framework: function}}
capabilities: {{primary_functions: [greet]}}
budget: {{tokens_per_day: 1000}}
"""
AWAY, WRONG = 69, 65
AGENTS = 60


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, Repository]]:
    if shutil.which("git") is None:
        pytest.skip("needs git")
    folder = tmp_path_factory.mktemp("sync")
    repository = Repository(folder / "served/catalogue")
    advisories = keep_advisories(tmp_path_factory.mktemp("advisories"))
    made = Platform(
        folder / "home",
        CHIMERA_SYNC__FOLDERS=str(folder / "served"),
        CHIMERA_SYNC__POLL="0.1",
        CHIMERA_SCANNING__ADVISORIES=str(advisories),
        **AT_ONCE,
    )
    yield made, repository
    made.stop()


def definitions(whom: str) -> dict[str, str | None]:
    names = [f"greeter-{number:02d}" for number in range(AGENTS)]
    return {f"agents/{name}.yaml": HELLO.format(name=name, whom=whom) for name in names}


def source(platform: Any) -> dict[str, Any]:
    """The source, once the control plane answers."""
    for _ in range(120):
        done = platform.run("sync", "show", "catalogue", "-o", "json")
        if done.returncode != AWAY:
            break
        time.sleep(0.5)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def until(platform: Any, phase: str, **wanted: Any) -> dict[str, Any]:
    for _ in range(120):
        state: dict[str, Any] = source(platform)["state"]
        if state.get("phase") == phase and all(state.get(key) == value for key, value in wanted.items()):
            return state
        time.sleep(0.5)
    raise AssertionError(state)


def described(platform: Any) -> set[str]:
    """What the agents say of themselves, one text for each half that were applied together."""
    rows = platform.data("get", "agents", "--limit", "500")
    return {row["description"] for row in rows if row["name"].startswith("greeter-")}


def test_a_branch_is_followed_whatever_is_killed(followed: tuple[Platform, Repository]) -> None:
    platform, repository = followed
    first = repository.commit(definitions("all"), "Begin")
    refused = platform.run("sync", "add", "catalogue", "https://git.example.com/x")
    assert (refused.returncode, "sync.hosts" in refused.stderr) == (WRONG, True), refused.stderr
    added = json.loads(platform.ok("sync", "add", "catalogue", repository.url, "--interval", "5", "-o", "json"))
    assert (added["state"]["phase"], added["state"]["commit"], added["state"]["agents"]) == ("current", first, AGENTS)
    assert platform.data("describe", "greeter-07")["pin"]["commit"] == first
    assert first[:12] in platform.ok("get", "revisions", "greeter-07")

    for number in range(3):
        commit = repository.commit(definitions(f"everybody {number}"))
        asked = platform.run("sync", "run", "catalogue", "--wait", "0")
        assert asked.returncode in (0, 75, AWAY), asked.stderr
        time.sleep(0.15 * number)
        platform.kill("control-plane")
        until(platform, "current", commit=commit)
        assert described(platform) == {f"Greets everybody {number}."}

    broken = repository.commit(
        {"agents/greeter-00.yaml": "schema_version: nonsense\n"} | {"agents/greeter-01.yaml": None}
    )
    told = platform.run("sync", "run", "catalogue")
    assert (told.returncode, "agents/greeter-00.yaml" in told.stderr) == (WRONG, True), told.stderr
    assert source(platform)["state"]["seen"] == broken
    assert len(platform.data("get", "agents", "--limit", "500")) >= AGENTS

    repository.git("reset", "-q", "--hard", first)
    rewritten = repository.commit({"README.md": "Another past."})
    told = platform.run("sync", "run", "catalogue")
    assert (told.returncode, f"--allow-rewrite {rewritten}" in told.stderr) == (WRONG, True), told.stderr
    platform.ok("sync", "run", "catalogue", "--allow-rewrite", rewritten)
    assert described(platform) == {"Greets all."}


def test_a_commit_waits_for_its_change_request(followed: tuple[Platform, Repository]) -> None:
    platform, repository = followed
    policy = repository.folder.parent / "policy.yaml"
    policy.write_text(platform.ok("change", "policy", "show").replace("direct: true", "direct: false"))
    platform.ok("change", "policy", "set", str(policy))
    key = platform.data("keys", "create", "approver", "--role", "approver")["token"]
    commit = repository.commit({"agents/greeter-05.yaml": HELLO.format(name="greeter-05", whom="friends")}, "Be kind")
    platform.run("sync", "run", "catalogue")
    waiting = until(platform, "waiting", seen=commit)
    (change,) = [row for row in platform.data("change", "list") if row["id"] == waiting["change"]]
    assert (change["title"], change["agents"]) == ("Be kind", 1)
    assert platform.data("describe", "greeter-05")["pin"]["commit"] != commit
    platform.ok("--key", key, "change", "approve", waiting["change"])
    state = until(platform, "current", commit=commit)
    assert state.get("drifted", 0) == 0
    assert platform.data("describe", "greeter-05")["pin"]["commit"] == commit
    assert platform.data("describe", "greeter-06")["pin"]["commit"] != commit
    assert "Be kind" in platform.ok("sync", "show", "catalogue")
    platform.ok("sync", "remove", "catalogue")
    assert len(platform.data("get", "agents", "--limit", "500")) >= AGENTS
