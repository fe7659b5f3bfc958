"""References that follow others, and other ways by which Git is told one name and changes another reference."""

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from chimera.adapters.git.bare import load_rules, troubles
from chimera.delivery.git.errors import BareRefused
from chimera.entrypoints.cli.main import cli
from chimera.testing.repositories import AGENT

from .conftest import Server
from .test_protection import POLICY, changed, protect, said


@pytest.fixture
def protected(server: Server) -> Server:
    protect(server)
    return server


def git(bare: Path, *arguments: str) -> None:
    """What an admin runs in the bare repository."""
    subprocess.run(["git", *arguments], cwd=bare, check=True, capture_output=True)


def symbolic(server: Server, ref: str, target: str) -> None:
    git(server.bare, "symbolic-ref", ref, target)


@pytest.mark.parametrize("push", ["HEAD:master", "-f HEAD:master", ":master", "HEAD:further", "HEAD:refs/tags/v1"])
def test_a_push_through_a_symbolic_reference_is_refused(protected: Server, push: str) -> None:
    ann = protected.people["ann"]
    before = protected.tip()
    symbolic(protected, "refs/heads/master", "refs/heads/main")
    symbolic(protected, "refs/heads/further", "refs/heads/master")
    symbolic(protected, "refs/tags/v1", "refs/heads/main")
    ann.commit("New", agents__other=AGENT.format(name="other", description="Also answers."))
    refused = ann.push(*push.replace("HEAD:refs/tags", "-f HEAD:refs/tags").split())
    assert "it follows refs/heads/main" in refused
    assert "next: push to refs/heads/main" in refused
    assert protected.tip() == before
    assert protected.tip("refs/heads/master") == before


def test_one_that_follows_a_branch_which_is_not_there_yet_does_not_make_it(server: Server) -> None:
    protect(server, POLICY.replace("main", "live"))
    symbolic(server, "refs/heads/master", "refs/heads/live")
    assert "it follows refs/heads/live" in server.people["ann"].push("HEAD:master")
    assert server.tip("refs/heads/live") is None


def test_one_that_follows_a_free_branch_is_refused_and_its_target_is_free(protected: Server) -> None:
    ann = protected.people["ann"]
    changed(ann)
    symbolic(protected, "refs/heads/alias", "refs/heads/topic")
    commit = ann.commit("More")
    assert "next: push to refs/heads/topic" in ann.push("HEAD:alias")
    assert not ann.push("HEAD:topic")
    assert protected.tip("refs/heads/alias") == commit


@pytest.mark.parametrize("there", [True, False])
def test_a_protected_branch_that_follows_another_is_not_moved_by_that(protected: Server, there: bool) -> None:
    ann = protected.people["ann"]
    before = protected.tip()
    if there:
        git(protected.bare, "branch", "master", "main")
    symbolic(protected, "refs/heads/main", "refs/heads/master")
    ann.commit("New", agents__other=AGENT.format(name="other", description="Also answers."))
    for push in ("HEAD:master", "HEAD:main"):
        refused = ann.push(push)
        assert "the protected branch main follows refs/heads/master" in refused, push
        assert "chimera repo protect --check" in refused, push
    assert protected.tip() == (before if there else None)
    assert not ann.push("HEAD:topic")


@pytest.mark.parametrize(("link", "to"), [("linked", "."), ("linked", "../heads"), ("main2", "main")])
def test_a_push_through_a_link_is_refused(protected: Server, link: str, to: str) -> None:
    ann = protected.people["ann"]
    before = protected.tip()
    (protected.bare / "refs/heads" / link).symlink_to(to)
    ann.commit("New", agents__other=AGENT.format(name="other", description="Also answers."))
    ref = link if to == "main" else f"{link}/main"
    assert "it follows refs/heads/main" in ann.push(f"HEAD:refs/heads/{ref}")
    assert protected.tip() == before


@pytest.mark.parametrize(
    ("how", "told", "todo"),
    [
        ("symbolic", "refs/heads/master follows", "git symbolic-ref --delete refs/heads/master"),
        ("dangling", "refs/heads/master follows", "git symbolic-ref --delete refs/heads/master"),
        ("tag", "refs/tags/v1 follows", "git symbolic-ref --delete refs/tags/v1"),
        ("old", "refs/heads/old is a link", "rm "),
        ("folder", "refs/heads/linked is a link", "rm "),
        ("worktree", "finds no hook", "git worktree"),
        ("gone", "finds no hook", "git worktree"),
    ],
)
def test_what_leads_around_the_hook_is_found_and_nothing_is_installed_over_it(
    protected: Server, how: str, told: str, todo: str
) -> None:
    assert not troubles(protected.bare, load_rules(protected.bare))
    around(protected, how)
    [found] = troubles(protected.bare, load_rules(protected.bare))
    assert told in found
    assert todo in found
    checked = CliRunner().invoke(cli, ["repo", "protect", str(protected.bare), "--check"], standalone_mode=False)
    assert checked.return_value == 65
    assert told in checked.output
    shutil.rmtree(protected.bare / "chimera")
    with pytest.raises(BareRefused) as refused:
        protect(protected)
    assert told in refused.value.detail
    assert todo in refused.value.next_step
    assert not (protected.bare / "chimera").exists()


def test_it_installs_once_they_are_deleted_as_it_says(server: Server) -> None:
    for name in ("master", "dangling"):
        symbolic(server, f"refs/heads/{name}", "refs/heads/main" if name == "master" else "refs/heads/nowhere")
    with pytest.raises(BareRefused) as refused:
        protect(server)
    for command in refused.value.next_step.split("; "):
        git(server.bare, *command.removeprefix("git ").split())
    protect(server)
    assert not troubles(server.bare, load_rules(server.bare))
    assert server.tip() is not None


def around(server: Server, how: str) -> None:
    """What leads around the hook of a bare repository, made as admins make it."""
    heads = server.bare / "refs/heads"
    match how:
        case "symbolic":
            symbolic(server, "refs/heads/master", "refs/heads/main")
        case "dangling":
            symbolic(server, "refs/heads/master", "refs/heads/nowhere")
        case "tag":
            symbolic(server, "refs/tags/v1", "refs/heads/main")
        case "old":
            (heads / "old").symlink_to("refs/heads/main")
        case "folder":
            (heads / "linked").symlink_to(".")
        case _:
            tree = server.bare.parent / "tree"
            git(server.bare, "worktree", "add", "-q", "--detach", str(tree), "main")
            if how == "gone":
                shutil.rmtree(tree)


@pytest.mark.parametrize("separator", ["\u2028", "\x85"])
def test_a_name_that_holds_a_separator_of_lines_is_judged_whole(protected: Server, separator: str) -> None:
    ann = protected.people["ann"]
    commit = changed(ann)
    said(protected, commit)
    for ref in (f"refs/heads/odd{separator}", f"refs/heads/{separator}odd"):
        assert not ann.push(f"HEAD:{ref}")
        assert protected.tip(ref) == commit
    ann.git("fetch", "-q", "origin", f"refs/tags/approvals/{commit}/bob@example.com:refs/kept/approval")
    again = ann.push(f"refs/kept/approval:refs/tags/approvals/{commit}/bob@example.com{separator}")
    assert "it was signed as the tag" in again
    assert not ann.push("HEAD:main")
    assert protected.tip() == commit
