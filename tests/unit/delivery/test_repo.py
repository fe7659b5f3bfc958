"""`chimera repo init`, `workflow` and `codeowners`: what they write, and what they leave alone."""

import datetime
import hashlib
import json
from pathlib import Path
from typing import cast

import pytest
import yaml
from click.testing import CliRunner, Result

from chimera.delivery.git.errors import InvalidProtection
from chimera.delivery.git.policy import RepositoryPolicy, is_branch, read_policy
from chimera.delivery.git.workflow import ADVISORIES, Host, workflow
from chimera.entrypoints.cli.main import cli

AGENT = """\
schema_version: "ADaC v2.0"
extends: autogen-conversational
metadata: {{name: {name}, version: "0.1.0", description: Answers.}}
capabilities: {{primary_functions: [answer]}}
{owner}
"""


def chimera(*arguments: str) -> Result:
    found = CliRunner().invoke(cli, ["repo", *arguments])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def actions(result: Result) -> dict[str, str]:
    return {one["path"]: one["action"] for one in json.loads(result.stdout)}


def put(folder: Path, path: str, team: str | None) -> None:
    file = folder / "agents" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(AGENT.format(name=file.stem, owner=f"owner: {{team: {team}}}" if team else ""))


@pytest.mark.parametrize("host", ["github", "gitea", "gitlab"])
def test_a_repository_is_laid_out_once(tmp_path: Path, host: str) -> None:
    folder = str(tmp_path / "catalogue")
    first = actions(chimera("init", folder, "--host", host, "-o", "json"))
    again = actions(chimera("init", folder, "--host", host, "-o", "json"))
    assert set(first.values()) == {"written"}
    assert set(again.values()) == {"unchanged"}
    # The policy says where it is hosted, also to whoever forgets to.
    assert set(actions(chimera("init", folder, "-o", "json")).values()) <= {"unchanged", "kept"}
    assert first.keys() == again.keys()


def test_what_it_lays_out_is_valid(tmp_path: Path) -> None:
    chimera("init", str(tmp_path))
    checked = CliRunner().invoke(cli, ["validate", str(tmp_path)])
    assert "1 valid, 0 errors, 0 warnings" in checked.output
    read_policy((tmp_path / ".chimera/policy.yaml").read_text(), file="policy.yaml")
    made = yaml.safe_load((tmp_path / ".github/workflows/chimera.yaml").read_text())
    assert [step["run"] for step in made["jobs"]["check"]["steps"] if "chimera " in step.get("run", "")] == [
        "chimera validate agents templates",
        "chimera scan agents templates --waivers .chimera/waivers.yaml",
        "chimera repo codeowners --check",
    ]
    assert made["permissions"] == {"contents": "read"}
    advisories = made["jobs"]["check"]["env"]["CHIMERA_SCANNING__ADVISORIES"]
    assert advisories.startswith("${{ inputs.advisories || vars.CHIMERA_SCANNING__ADVISORIES || 'https://")
    assert "advisories" in made[True]["workflow_dispatch"]["inputs"]  # YAML 1.1 reads `on` as true


def advisories_in(folder: Path, *, modified: datetime.datetime) -> Path:
    affected = [{"package": {"ecosystem": "PyPI", "name": "no-such-package"}, "versions": ["0.0.1"]}]
    folder.mkdir(exist_ok=True)
    record = {"id": "OSV-1", "modified": modified.isoformat(), "affected": affected}
    (folder / "one.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("host", ["github", "gitlab"])
def test_the_workflow_passes_what_is_well_and_stops_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """The commands of the workflow as they are written, in a repository as it was laid out."""
    chimera("init", str(tmp_path / "catalogue"), "--host", host)
    monkeypatch.chdir(tmp_path / "catalogue")
    file = workflow(cast(Host, host), version="1", branch="main")
    made = yaml.safe_load(Path(file.path).read_text())
    if host == "gitlab":
        commands, given = made["check"]["script"], made["check"]["variables"]
    else:
        commands = [step["run"] for step in made["jobs"]["check"]["steps"] if "run" in step]
        given = made["jobs"]["check"]["env"]
    assert list(given) == [ADVISORIES]
    commands = [one.split()[1:] for one in commands if one.startswith("chimera ")]

    def check() -> list[int]:
        done = [CliRunner().invoke(cli, one, standalone_mode=False).return_value for one in commands]
        return [code or 0 for code in done]

    today = datetime.datetime.now(datetime.UTC)
    monkeypatch.setenv(ADVISORIES, str(advisories_in(tmp_path / "advisories", modified=today)))
    assert check() == [0, 0, 0]
    put(Path(), "leaky.yaml", "support")
    leaky = Path("agents/leaky.yaml")
    leaky.write_text(leaky.read_text().replace("Answers.", "Asks with ghp_" + hashlib.sha256(b"").hexdigest()[:36]))
    assert check() == [0, 1, 65], "a secret is found, and an owner isn't written down"
    leaky.unlink()
    advisories_in(tmp_path / "advisories", modified=today - datetime.timedelta(days=30))
    assert check() == [0, 2, 0], "advisories that are old find nothing out"
    monkeypatch.delenv(ADVISORIES)
    assert check() == [0, 2, 0], "and so do those that aren't there"


def test_what_people_wrote_stays(tmp_path: Path) -> None:
    chimera("init", str(tmp_path))
    for path in ("README.md", ".chimera/policy.yaml", ".github/workflows/chimera.yaml"):
        with (tmp_path / path).open("a") as file:
            file.write("# ours\n")
    owners = tmp_path / ".github/CODEOWNERS"
    owners.write_text(owners.read_text() + "/docs/ @writers\n")
    put(tmp_path, "hello.yaml", "support")
    done = actions(chimera("init", str(tmp_path), "-o", "json"))
    assert {done[path] for path in ("README.md", ".chimera/policy.yaml", ".github/workflows/chimera.yaml")} == {"kept"}
    assert done[".github/CODEOWNERS"] == "renewed"
    assert owners.read_text().endswith("/docs/ @writers\n")
    assert "/agents/hello.yaml @support\n" in owners.read_text() or "/agents/ @support\n" in owners.read_text()
    assert (tmp_path / "README.md").read_text().endswith("# ours\n")


def test_a_generated_file_that_nobody_edited_is_written_anew(tmp_path: Path) -> None:
    chimera("init", str(tmp_path))
    file = tmp_path / ".github/workflows/chimera.yaml"
    whole = file.read_text()
    policy = tmp_path / ".chimera/policy.yaml"
    policy.write_text(policy.read_text().replace("branch: main", "branch: live"))
    assert json.loads(chimera("workflow", "--folder", str(tmp_path), "-o", "json").stdout)["action"] == "renewed"
    assert file.read_text() != whole
    assert 'branches: ["live"]' in file.read_text()


@pytest.mark.parametrize("link", ["agents", ".github", "README.md"])
def test_nothing_is_written_through_a_link(tmp_path: Path, link: str) -> None:
    folder, elsewhere = tmp_path / "catalogue", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / link).symlink_to(elsewhere if link != "README.md" else elsewhere / "file")
    with pytest.raises(Exception, match="link"):
        chimera("init", str(folder))
    assert not list(elsewhere.iterdir())


def test_codeowners_can_be_checked(tmp_path: Path) -> None:
    chimera("init", str(tmp_path), "--handle", "@example/{team}")
    put(tmp_path, "payments/invoices.yaml", "payments")
    put(tmp_path, "payments/refunds.yaml", "payments")
    put(tmp_path, "mixed/one.yaml", "payments")
    put(tmp_path, "mixed/two.yaml", None)
    before = (tmp_path / ".github/CODEOWNERS").read_text()
    stale = chimera("codeowners", "--folder", str(tmp_path), "--check")
    assert (tmp_path / ".github/CODEOWNERS").read_text() == before
    assert "chimera repo codeowners" in stale.output
    assert "no team owns agents/mixed/two.yaml" in stale.output
    chimera("codeowners", "--folder", str(tmp_path))
    lines = (tmp_path / ".github/CODEOWNERS").read_text().splitlines()
    assert lines[1:-1] == ["/agents/mixed/one.yaml @example/payments", "/agents/payments/ @example/payments"]
    fresh = chimera("codeowners", "--folder", str(tmp_path), "--check", "-o", "json")
    assert json.loads(fresh.stdout)["action"] == "unchanged"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("approvals: -1", "approvals"),
        ("branch: a..b", "'a..b' is not the name of a branch"),
        ("branch: --upload-pack=x", "is not the name of a branch"),
        ("checks: {ci: []}", "nobody may say that the check 'ci' succeeded"),
        ("signed_commits: false", "could claim that somebody else made the commit"),
        ("validate: ../x", "is not a folder of the repository"),
        ("aprovals: 2", "aprovals"),
        ("- a", "object"),
        ("a: [", "policy.yaml"),
    ],
)
def test_a_bad_policy_is_refused_with_its_reason(text: str, said: str) -> None:
    with pytest.raises(InvalidProtection) as caught:
        read_policy(text, file="policy.yaml")
    assert said in caught.value.detail


def test_an_empty_policy_asks_for_what_can_not_be_forged() -> None:
    assert read_policy("", file="policy.yaml") == RepositoryPolicy(approvals=1, signed_off=True, signed_commits=True)


@pytest.mark.parametrize("name", ["main", "release/1.0", "a@b"])
def test_names_of_branches(name: str) -> None:
    assert is_branch(name)


@pytest.mark.parametrize(
    "name", ["", "-x", "a b", "a~1", "a:b", "/a", "a/", "a.lock", "a..b", "a@{1}", "@", "a/.b", "a\\b"]
)
def test_names_that_are_no_branches(name: str) -> None:
    assert not is_branch(name)
