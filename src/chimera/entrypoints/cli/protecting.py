"""`chimera repo protect` on a bare repository, the hook it installs, and how people and checks say their word.

Words are signed tags, made by the person's own git, so that their key stays where it is.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.failing import INVALID

MEBIBYTE = 1024**2
HOOK_MEMORY = 4096 * MEBIBYTE
WORD_COLUMNS = (("commit", "COMMIT"), ("as", "AS"), ("word", "WORD"))
COLUMNS = (("branch", "BRANCH"), ("approvals", "APPROVALS"), ("checks", "CHECKS"), ("signers", "SIGNERS"))


@click.command(epilog="Example: chimera repo protect catalogue.git")
@click.argument("bare", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option(
    "--policy", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="By default the branch's own file."
)
@click.option(
    "--signers", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="By default the branch's own file."
)
@click.option("--branch", default="main", show_default=True, help="The branch whose files are taken.")
@click.option("--max-push", type=click.IntRange(1, 65536), default=256, show_default=True, help="Largest push, in MiB.")
@click.option("--check", is_flag=True, help="Change nothing; fail where the protection isn't as it was installed.")
@out.output_option
def protect(
    bare: Path, policy: Path | None, signers: Path | None, branch: str, max_push: int, check: bool, output: str
) -> int:
    """Protect the branch of the bare repository BARE, by a hook that judges each push.

    Run it again after the policy, the signers or Chimera's place on this machine changed.
    """
    from chimera.adapters.git.bare import is_bare, load_rules, troubles
    from chimera.adapters.git.bare import protect as install
    from chimera.delivery.git.errors import BareRefused

    if not is_bare(bare):
        raise BareRefused(f"{bare} is no bare repository", next_step=f"make one: git init --bare {bare}")
    if check:
        found = troubles(bare, load_rules(bare))
        if output != "table":
            out.show({"protected": not found, "troubles": found}, output)
        else:
            click.echo("\n".join(found) or f"{bare} is protected as it was installed")
        if found:
            click.echo(
                f"Next: mend it with `chimera repo protect {bare}`, and look at what was pushed since.", err=True
            )
        return INVALID if found else 0
    rules, names = _rules(bare, policy, signers, branch, max_push)
    install(bare, rules)
    row = {
        "branch": rules.policy.branch,
        "approvals": rules.policy.approvals,
        "checks": sorted(rules.policy.checks),
        "signers": names,
    }
    out.show(row, output, columns=COLUMNS, rows=[row])
    return 0


def _rules(bare: Path, policy: Path | None, signers: Path | None, branch: str, max_push: int) -> tuple[Any, list[str]]:
    from chimera.adapters.git.bare import HOOK, Rules, file_at, hook_text
    from chimera.delivery.git.errors import InvalidProtection
    from chimera.delivery.git.layout import POLICY_FILE, SIGNERS_FILE
    from chimera.delivery.git.policy import read_policy
    from chimera.delivery.git.signers import read_signers

    texts: dict[str, str] = {}
    for path, given in ((POLICY_FILE, policy), (SIGNERS_FILE, signers)):
        text = given.read_text("utf-8") if given is not None else file_at(bare, branch, path)
        if text is None:
            option = "--policy" if path == POLICY_FILE else "--signers"
            raise InvalidProtection(f"there is no {path} on the branch {branch!r}", next_step=f"give {option} FILE")
        texts[path] = text
    read = read_policy(texts[POLICY_FILE], file=POLICY_FILE)
    known = read_signers(texts[SIGNERS_FILE], file=SIGNERS_FILE)
    people = set(known.keys.values())
    speakers = sorted(name for names in read.checks.values() for name in names if known.named(name) is None)
    if speakers:
        raise InvalidProtection(f"{speakers[0]} may speak for a check, and has no key", next_step=f"see {SIGNERS_FILE}")
    if read.approvals >= max(1, len(people)) or (read.signed_commits and not people):
        raise InvalidProtection(
            f"{len(people)} people may sign; one makes a change and {read.approvals} approve it, so nothing could pass",
            next_step=f"add keys to {SIGNERS_FILE}",
        )
    command = [sys.executable, "-I", "-m", "chimera.entrypoints.cli.main", "repo", "hook", HOOK]
    rules = Rules(policy=read, signers=texts[SIGNERS_FILE], hook=hook_text(command), max_push_bytes=max_push * MEBIBYTE)
    return rules, sorted(map(str, people))


@click.command(hidden=True, epilog="Example: chimera repo hook pre-receive")
@click.argument("name", type=click.Choice(["pre-receive"]))
def hook(name: str) -> int:
    """Judge a push; git runs this in the bare repository."""
    from chimera.adapters.git.pushes import receive

    # A definition that unpacks to more than this machine has ends the push, not the machine.
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    bound = HOOK_MEMORY if most == resource.RLIM_INFINITY else min(most, HOOK_MEMORY)
    resource.setrlimit(resource.RLIMIT_AS, (bound, most))
    lines = [line for line in sys.stdin.read().split("\n") if line]
    refused = receive(Path(os.environ.get("GIT_DIR", ".")), lines, os.environ)
    for one in refused:
        click.echo(f"chimera: {one.ref}: {one.text}", err=True)
        for detail in one.details:
            click.echo(f"chimera:   {detail}", err=True)
        click.echo(f"chimera:   next: {one.next_step}", err=True)
    return INVALID if refused else 0


@click.command(epilog="Example: chimera repo approve 1a2b3c4d")
@click.argument("commit", default="HEAD")
@click.option("--withdraw", is_flag=True, help="Take an approval back.")
@click.option("--as", "name", help="Your name in the list of signers; by default git's user.email.")
@click.option("--remote", default="origin", show_default=True, help="Where to push it.")
@out.output_option
def approve(commit: str, withdraw: bool, name: str | None, remote: str, output: str) -> None:
    """Approve COMMIT: sign a tag that says so with your key, and push it."""
    from chimera.delivery.git.protection import APPROVALS, WORDS

    who = name or _git("config", "user.email")
    _say(APPROVALS, commit, who, WORDS[APPROVALS][withdraw], remote, output)


@click.command(epilog="Example: chimera repo report 1a2b3c4d ci --failed")
@click.argument("commit")
@click.argument("check")
@click.option("--failed", is_flag=True, help="It failed.")
@click.option("--remote", default="origin", show_default=True, help="Where to push it.")
@out.output_option
def report(commit: str, check: str, failed: bool, remote: str, output: str) -> None:
    """Say how CHECK went for COMMIT, by a tag signed with the key of this machine's git."""
    from chimera.delivery.git.protection import CHECKS, WORDS

    _say(CHECKS, commit, check, WORDS[CHECKS][failed], remote, output)


def _say(kind: str, commit: str, name: str, word: str, remote: str, output: str) -> None:
    whole = _git("rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}")
    tag = f"{kind}/{whole}/{name}"
    _git("-c", "gpg.format=ssh", "tag", "--sign", "--force", "--message", word, "--end-of-options", tag, whole)
    _git("push", "--quiet", "--end-of-options", remote, f"+refs/tags/{tag}:refs/tags/{tag}")
    said = {"commit": whole, "as": name, "word": word}
    out.show(said, output, columns=WORD_COLUMNS, rows=[said])


def _git(*arguments: str) -> str:
    from chimera.delivery.git.errors import GitError

    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise GitError(f"git can't be run: {error}", next_step="install the program git") from error
    if done.returncode != 0:
        raise GitError(done.stderr.strip() or f"git {arguments[0]} failed", next_step="see what git says")
    return done.stdout.strip()
