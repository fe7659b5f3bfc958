"""A protected bare repository, pushed to with the real git: what passes, and every way around it that we know."""

import random
import shutil

import pytest
from click.testing import CliRunner

from chimera.adapters.git.bare import load_rules, troubles
from chimera.entrypoints.cli.main import cli
from chimera.testing.repositories import AGENT

from .conftest import Person, Server

POLICY = "branch: main\napprovals: 1\nchecks: {ci: [ci@example.com]}\n"


def protect(server: Server, policy: str = POLICY, *options: str) -> str:
    file = server.bare.parent / "policy.yaml"
    file.write_text(policy)
    arguments = ["repo", "protect", str(server.bare), "--policy", str(file), "--signers", str(server.signers), *options]
    done = CliRunner().invoke(cli, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


@pytest.fixture
def protected(server: Server) -> Server:
    protect(server)
    return server


def changed(person: Person, description: str = "Answers better.", name: str = "hello") -> str:
    """A commit with a valid change, pushed to a branch of its own."""
    person.git("switch", "-q", "-C", "topic")
    commit = person.commit("Change", **{f"agents__{name}": AGENT.format(name=name, description=description)})
    assert not person.push("-f", "HEAD:refs/heads/topic")
    return commit


def fetched(person: Person) -> None:
    person.git("fetch", "-q", "origin")


def said(server: Server, commit: str, *, approver: str = "bob") -> None:
    """The words that let a commit pass."""
    for name, kind, subject, word in (
        (approver, "approvals", f"{approver}@example.com", "approved"),
        ("ci", "checks", "ci", "success"),
    ):
        fetched(server.people[name])
        assert not server.people[name].say(kind, commit, subject, word)


def test_a_change_that_was_seen_approved_and_checked_passes(protected: Server) -> None:
    ann = protected.people["ann"]
    commit = changed(ann)
    refused = ann.push("HEAD:main")
    assert "it has 0 of 1 approvals of this very commit" in refused
    assert "ci: nobody who may has said how it went" in refused
    said(protected, commit)
    assert not ann.push("HEAD:main")
    assert protected.tip() == commit


def test_a_push_says_all_that_is_wrong_at_once(protected: Server) -> None:
    ann = protected.people["ann"]
    before = protected.tip()
    ann.commit("Sloppy", "--no-gpg-sign", agents__hello='schema_version: "ADaC v2.0"\nmetadata: {name: Nope}\n')
    refused = ann.push("HEAD:main")
    for text in (
        "it can't be pushed to directly",
        "commits are not signed off by who committed them",
        "it has no SSH signature",
        "0 of 1 approvals",
        "checks of this commit have not succeeded",
        "agents/hello.yaml",
        "next: ",
    ):
        assert text in refused
    assert protected.tip() == before


AROUND = (
    "-f elsewhere:main",
    ":main",
    "--delete main",
    "-f a-tag:refs/heads/main",
    "--mirror",
    "HEAD:refs/heads/MAIN",
    "HEAD:refs/tags/main",
    "HEAD:refs/tags/heads/main",
    "HEAD:refs/heads/refs/heads/main",
    "HEAD:refs/replace/{old}",
    "HEAD:refs/notes/approvals",
    "HEAD:refs/main",
    "HEAD:HEAD",
    "HEAD:refs/tags/head",
    "HEAD:refs/remotes/origin/HEAD",
    "HEAD:refs/heads/topic HEAD:main",
    "--atomic HEAD:refs/heads/topic :main",
)


def test_no_push_gets_around_the_rules(protected: Server) -> None:
    ann = protected.people["ann"]
    before = protected.tip()
    ann.commit("New", agents__other=AGENT.format(name="other", description="Also answers."))
    ann.git("tag", "-a", "-m", "a tag", "a-tag")
    ann.git("branch", "new")
    ann.git("switch", "-q", "--orphan", "elsewhere")
    ann.commit("Another beginning")
    ann.git("switch", "-q", "new")
    for push in AROUND:
        refused = ann.push(*push.format(old=before).split())
        assert "chimera: " in refused, push
        assert "next: " in refused, push
        assert protected.tip() == before, push
        for ref in ("refs/tags/main", f"refs/replace/{before}", "refs/main", "refs/notes/approvals", "refs/heads/HEAD"):
            assert protected.tip(ref) is None, push


def test_the_branch_does_not_go_back(protected: Server) -> None:
    ann = protected.people["ann"]
    ann.git("branch", "older")
    commit = changed(ann)
    said(protected, commit)
    assert not ann.push("HEAD:main")
    refused = ann.push("-f", "older:main")
    assert "would take commits away" in refused
    assert "git rebase main" in refused
    assert protected.tip() == commit


def test_branches_that_are_not_protected_are_free(protected: Server) -> None:
    ann = protected.people["ann"]
    changed(ann)
    ann.git("commit", "-q", "--amend", "--no-gpg-sign", "-m", "anything")
    assert not ann.push("-f", "HEAD:refs/heads/topic")
    assert not ann.push(":refs/heads/topic")
    assert not ann.push("HEAD:refs/tags/v1")


class TestWords:
    """Approvals and checks: whose they are is not the pusher's to say."""

    def test_nobody_approves_their_own(self, protected: Server) -> None:
        ann = protected.people["ann"]
        commit = changed(ann)
        said(protected, commit, approver="ann")
        assert "ann@example.com: it is their own change" in ann.push("HEAD:main")

    def test_an_author_who_claims_to_be_somebody_else_approves_nothing(self, protected: Server) -> None:
        ann = protected.people["ann"]
        ann.git("switch", "-q", "-C", "topic")
        ann.environment |= {"GIT_AUTHOR_EMAIL": "bob@example.com", "GIT_COMMITTER_EMAIL": "bob@example.com"}
        commit = ann.commit("Not mine", agents__hello=AGENT.format(name="hello", description="Answers badly."))
        assert not ann.push("HEAD:refs/heads/topic")
        for name in ("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"):
            del ann.environment[name]
        said(protected, commit, approver="ann")
        refused = ann.push("HEAD:main")
        assert "ann@example.com signed what bob@example.com committed" in refused
        assert "it is their own change" in refused

    def test_an_approval_signed_by_a_stranger_is_refused(self, protected: Server) -> None:
        commit = changed(protected.people["ann"])
        eve = protected.people["eve"]
        fetched(eve)
        refused = eve.say("approvals", commit, "bob@example.com", "approved")
        assert "by a key that is not in the list of signers" in refused

    def test_an_approval_in_another_name_is_refused(self, protected: Server) -> None:
        ann = protected.people["ann"]
        refused = ann.say("approvals", changed(ann), "bob@example.com", "approved")
        assert "ann@example.com signed it for bob@example.com" in refused

    def test_an_approval_counts_for_its_own_commit_alone(self, protected: Server) -> None:
        ann, bob = protected.people["ann"], protected.people["bob"]
        first = changed(ann)
        said(protected, first)
        second = changed(ann, "Answers in another way.")
        fetched(ann)
        ann.git("fetch", "-q", "origin", "+refs/tags/*:refs/tags/*")
        moved = f"refs/tags/approvals/{second}/bob@example.com"
        ann.git(
            "update-ref", moved, ann.git("rev-parse", f"refs/tags/approvals/{first}/bob@example.com").stdout.strip()
        )
        assert "it was signed as the tag" in ann.push(moved)
        assert "0 of 1 approvals" in ann.push("HEAD:main")
        said(protected, second)
        assert bob.clone.exists()
        assert not ann.push("HEAD:main")

    def test_a_lightweight_tag_is_no_approval(self, protected: Server) -> None:
        ann = protected.people["ann"]
        commit = changed(ann)
        assert "it doesn't count" in ann.push(f"{commit}:refs/tags/approvals/{commit}/bob@example.com")

    def test_a_word_that_was_taken_back_can_not_be_brought_again(self, protected: Server) -> None:
        ann, bob = protected.people["ann"], protected.people["bob"]
        commit = changed(ann)
        said(protected, commit)
        ref = f"refs/tags/approvals/{commit}/bob@example.com"
        ann.git("fetch", "-q", "origin", f"{ref}:refs/kept/approval")
        assert not bob.say("approvals", commit, "bob@example.com", "withdrawn", at=4_000_000_000)
        assert "0 of 1 approvals" in ann.push("HEAD:main")
        assert "not newer" in ann.push(f"+refs/kept/approval:{ref}")
        assert "can't be deleted" in ann.push(f":{ref}")
        assert "0 of 1 approvals" in ann.push("HEAD:main")

    def test_a_word_is_taken_back_under_another_spelling_of_the_name(self, protected: Server) -> None:
        ann, bob = protected.people["ann"], protected.people["bob"]
        commit = changed(ann)
        said(protected, commit)
        assert not bob.say("approvals", commit, "Bob@example.com", "withdrawn", at=4_000_000_000)
        assert "0 of 1 approvals" in ann.push("HEAD:main")

    def test_a_check_speaks_by_its_own_key_and_may_fail(self, protected: Server) -> None:
        ann, ci = protected.people["ann"], protected.people["ci"]
        commit = changed(ann)
        assert "may not speak for the check 'ci'" in ann.say("checks", commit, "ci", "success")
        said(protected, commit)
        assert not ci.say("checks", commit, "ci", "failure", at=4_000_000_000)
        assert "ci: it failed" in ann.push("HEAD:main")

    def test_the_commands_say_words(self, protected: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        ann = protected.people["ann"]
        commit = changed(ann)
        for name, arguments in (("bob", ["approve", commit]), ("ci", ["report", commit, "ci"])):
            person = protected.people[name]
            fetched(person)
            with monkeypatch.context() as patched:
                patched.chdir(person.clone)
                for variable, value in person.environment.items():
                    patched.setenv(variable, value)
                done = CliRunner().invoke(cli, ["repo", *arguments])
            assert done.exit_code == 0, done.output
        assert not ann.push("HEAD:main")


class TestContent:
    """What a commit may hold where definitions are."""

    def judged(self, server: Server) -> str:
        ann = server.people["ann"]
        ann.git("add", "-A")
        ann.git("commit", "-q", "-s", "-S", "-m", "Odd")
        assert not ann.push("-f", "HEAD:refs/heads/topic")
        return ann.push("HEAD:main")

    def test_a_link_is_no_definition(self, protected: Server) -> None:
        (protected.people["ann"].clone / "agents/link.yaml").symlink_to("/etc/passwd")
        assert "agents/link.yaml is a link, which can't be applied" in self.judged(protected)

    def test_a_folder_of_definitions_is_no_link(self, protected: Server) -> None:
        ann = protected.people["ann"]
        (ann.clone / "agents").rename(ann.clone / "elsewhere")
        (ann.clone / "agents").symlink_to("elsewhere")
        assert "agents is a link and no folder" in self.judged(protected)

    def test_a_submodule_is_no_definition(self, protected: Server) -> None:
        ann = protected.people["ann"]
        ann.git("update-index", "--add", "--cacheinfo", f"160000,{ann.tip()},agents/other.yaml")
        ann.git("commit", "-q", "-s", "-S", "-m", "Odd")
        assert not ann.push("HEAD:refs/heads/topic")
        assert "agents/other.yaml is a submodule, which can't be applied" in ann.push("HEAD:main")

    def test_code_that_is_gone_breaks_its_definition(self, protected: Server) -> None:
        ann = protected.people["ann"]
        folder = ann.clone / "agents/team/code"
        folder.mkdir(parents=True)
        (folder / "tool.py").write_text("def run() -> str:\n    return 'x'\n")
        (ann.clone / "agents/team/tool.yaml").write_text(
            AGENT.format(name="tool", description="Has code.")
            + "specification: {source: code}\ntools: [{name: run, type: function, function: 'tool:run'}]\n"
        )
        first = self.judged(protected)
        said(protected, ann.tip())
        assert "not valid" not in first, first
        assert not ann.push("HEAD:main")
        (folder / "tool.py").rename(folder / "other.py")
        assert "agents/team/tool.yaml" in self.judged(protected)

    def test_a_push_has_a_largest_size(self, protected: Server) -> None:
        protect(protected, POLICY, "--max-push", "1")
        ann = protected.people["ann"]
        (ann.clone / "agents/large.bin").write_bytes(random.Random(1).randbytes(2 * 1024**2))
        ann.git("add", "-A")
        ann.git("commit", "-q", "-m", "Large")
        assert "size" in ann.push("HEAD:refs/heads/topic")
        assert protected.tip("refs/heads/topic") is None


class TestInPlace:
    """The protection itself, and what becomes of pushes without it."""

    @pytest.mark.parametrize("how", ["gone", "changed", "unable", "link", "elsewhere", "grafts", "alternates"])
    def test_the_check_finds_what_is_not_in_place(self, protected: Server, how: str) -> None:
        hook = protected.bare / "hooks/pre-receive"
        assert not troubles(protected.bare, load_rules(protected.bare))
        match how:
            case "gone":
                hook.unlink()
            case "changed":
                hook.write_text("#!/bin/sh\nexit 0\n")
            case "unable":
                hook.chmod(0o644)
            case "link":
                hook.rename(protected.bare / "elsewhere")
                hook.symlink_to(protected.bare / "elsewhere")
            case "elsewhere":
                with (protected.bare / "config").open("a") as config:
                    config.write("[core]\n\thooksPath = nowhere\n")
            case "grafts":
                (protected.bare / "info/grafts").write_text("")
            case _:
                (protected.bare / "objects/info/alternates").write_text("")
        checked = CliRunner().invoke(cli, ["repo", "protect", str(protected.bare), "--check"], standalone_mode=False)
        assert checked.return_value == 65
        assert "Next: mend it" in checked.output
        if how in ("gone", "changed", "unable", "elsewhere"):
            protect(protected)
            assert not troubles(protected.bare, load_rules(protected.bare))

    def test_rules_that_are_gone_refuse_every_push(self, protected: Server) -> None:
        shutil.rmtree(protected.bare / "chimera")
        assert "is not protected" in protected.people["ann"].push("HEAD:refs/heads/topic")

    def test_a_hook_through_a_link_is_not_installed(self, server: Server) -> None:
        shutil.rmtree(server.bare / "hooks")
        (server.bare / "hooks").symlink_to(server.bare.parent)
        with pytest.raises(Exception, match="is a link"):
            protect(server)
        assert not (server.bare.parent / "pre-receive").exists()

    @pytest.mark.parametrize(
        ("policy", "said"),
        [
            ("approvals: 3", "nothing could pass"),
            ("checks: {ci: [nobody@example.com]}", "has no key"),
            ("approvals: x", "approvals"),
        ],
    )
    def test_rules_that_can_not_work_are_not_installed(self, server: Server, policy: str, said: str) -> None:
        with pytest.raises(Exception, match=said):
            protect(server, policy)
        assert not (server.bare / "chimera").exists()
