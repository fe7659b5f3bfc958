"""Bad input of delivery by the command line: each has a clear state, a reason and a next step; nothing is half live."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chimera.testing.repositories import Repository

HELLO = """\
schema_version: "ADaC v2.0"
metadata: {{name: {name}, version: "1.0.0", description: Greets {whom}.}}
specification: {{framework: function{more}}}
capabilities: {{primary_functions: [greet]}}
budget: {{tokens_per_day: 1000}}
"""
ENDLESS = """\
tests:
  - {name: never ends, input: hi, answers: [{text: hi}], timeout_seconds: 1, expect: {check: "checks:never"}}
"""
CHECKS = """\
import time


def never(answer, case):
    while True:
        time.sleep(0.01)
"""
WRONG, NOT_ALLOWED = 65, 77
NAMES = [f"greeter-{number}" for number in range(6)]
TENANT = ("--tenant", "strict")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, new_platform: Callable[..., Any]) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("bad")
    running = new_platform(
        folder / "home",
        CHIMERA_SYNC__FOLDERS=str(folder / "served"),
        CHIMERA_SYNC__POLL="0.1",
        CHIMERA_SCANNING__SCANNERS="secrets",
    )
    yield running
    assert running.stop() == 0


def files(whom: str, names: list[str] = NAMES) -> dict[str, str | None]:
    return {f"agents/{name}.yaml": HELLO.format(name=name, whom=whom, more="") for name in names}


def live(platform: Any, *options: str) -> dict[str, str]:
    """What each agent says of itself."""
    return {row["name"]: row["description"] for row in platform.data(*options, "get", "agents")}


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_branch_that_breaks_vanishes_or_is_rewritten_changes_nothing_that_is_live(platform: Any) -> None:
    repository = Repository(platform.home.parent / "served" / "catalogue")
    first = repository.commit(files("all"))
    platform.ok("sync", "add", "catalogue", repository.url)
    as_before = dict.fromkeys(NAMES, "Greets all.")
    assert live(platform) == as_before

    def refused(phase: str, *said: str) -> str:
        """A look that ends in this phase, which says so; and all is live as it was."""
        told = platform.run("sync", "run", "catalogue")
        assert (told.returncode, [one for one in said if one not in told.stderr]) == (WRONG, []), told.stderr
        assert "Next: " in told.stderr
        assert f"phase: {phase}" in platform.ok("sync", "show", "catalogue")
        assert live(platform) == as_before
        return str(told.stderr)

    # Half of its definitions are broken, and the other half would be live if a commit could be live by halves.
    broken = {f"agents/{name}.yaml": "schema_version: nonsense\n" for name in NAMES[::2]}
    half = repository.commit({**files("everybody", NAMES[1::2]), **broken})
    refused("broken", half[:12], "nothing of the commit was applied", "mend them in the repository", *broken)

    repository.folder.rename(repository.folder.with_name("elsewhere"))
    refused("unreachable", "catalogue")
    repository.folder.with_name("elsewhere").rename(repository.folder)
    refused("broken", half[:12])

    repository.git("reset", "-q", "--hard", first)
    repository.commit(files("nobody"))
    repository.git("reset", "-q", "--hard", "HEAD~1")
    platform.ok("sync", "run", "catalogue")  # back where it was: nothing is to be done
    forward = repository.commit(files("everybody"))
    platform.ok("sync", "run", "catalogue")
    as_before = dict.fromkeys(NAMES, "Greets everybody.")
    assert live(platform) == as_before

    repository.git("reset", "-q", "--hard", first)
    rewritten = repository.commit(files("strangers"))
    refused("rewritten", forward[:12], rewritten[:12], f"--allow-rewrite {rewritten}")
    platform.ok("sync", "run", "catalogue", "--allow-rewrite", rewritten)
    assert set(live(platform).values()) == {"Greets strangers."}


def test_a_change_that_can_not_be_is_refused_with_its_reason_and_leaves_all_as_it_was(
    platform: Any, tmp_path: Path
) -> None:
    platform.ok("tenants", "create", TENANT[1])
    people = {
        name: (*TENANT, "--key", platform.data(*TENANT, "keys", "create", name, "--role", role)["token"])
        for name, role in (("anna", "operator"), ("ben", "approver"), ("carl", "operator"), ("dora", "viewer"))
    }
    anna, ben, carl, dora = people.values()
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    for file in (one, two):
        file.write_text(HELLO.format(name=file.stem, whom="all", more=""))
    platform.ok(*TENANT, "apply", str(one), str(two))
    as_before = {"one": "Greets all.", "two": "Greets all."}
    policy = tmp_path / "policy"
    shown = platform.ok(*TENANT, "change", "policy", "show").replace("direct: true", "direct: false")
    policy.write_text(shown.replace("automatic: true", "automatic: false"))
    platform.ok(*TENANT, "change", "policy", "set", str(policy))

    # Half of it has faults: all are named, and no change is opened.
    one.write_text(HELLO.format(name="one", whom="everybody", more=""))
    two.write_text("schema_version: nonsense\n")
    half = platform.run(*anna, "apply", str(one), str(two))
    assert (half.returncode, "two.yaml" in half.stderr) == (WRONG, True), half.stderr
    half = platform.run(*anna, "change", "open", str(one), str(two))
    assert (half.returncode, "No change was opened" in half.stderr, "Next: " in half.stderr) == (WRONG, True, True)
    assert platform.data(*anna, "change", "list") == []

    # Two changes of one agent: the second is refused, and names the first.
    change = platform.data(*anna, "change", "open", str(one))["id"]
    one.write_text(HELLO.format(name="one", whom="nobody", more=""))
    late = platform.run(*carl, "change", "open", str(one))
    assert (late.returncode, change in late.stderr, "Next: " in late.stderr) == (WRONG, True, True), late.stderr
    assert [row["id"] for row in platform.data(*anna, "change", "list")] == [change]

    # Whose word counts not: who made it, and who has no such role.
    for who, said in ((anna, "approve"), (carl, "change:approve"), (dora, "change:approve")):
        word = platform.run(*who, "change", "approve", change)
        assert (word.returncode, said in word.stderr, "Next: " in word.stderr) == (NOT_ALLOWED, True, True), word.stderr
    found = platform.data(*anna, "change", "show", change)
    assert (found["approvals"], found["state"] in ("open", "building", "awaiting-approval")) == ([], True), found
    platform.ok(*anna, "change", "abort", change)

    # A test that never ends.
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "checks.py").write_text(CHECKS)
    two.write_text(HELLO.format(name="two", whom="some", more=", source: ./src") + ENDLESS)
    one.write_text(HELLO.format(name="one", whom="some", more=""))
    ended = platform.run(*anna, "change", "open", str(one), str(two), "--wait")
    assert ended.returncode == WRONG, ended.stdout + ended.stderr
    said = ended.stdout + ended.stderr
    assert "failed" in said and "never ends" in said and "chimera test --run" in said, said
    word = platform.run(*ben, "change", "approve", platform.data(*anna, "change", "list")[0]["id"])
    assert (word.returncode, "failed" in word.stderr) == (WRONG, True), word.stderr
    assert platform.data(*anna, "rollout", "list") == []
    assert live(platform, *TENANT) == as_before
