"""A bare repository whose branch is protected: the hook put there, the rules it goes by, and whether both are in place.

The rules (policy and signers) lie beside the repository's objects, where no push reaches, as they were when `protect`
was run: so a push can't change what it is judged by. Whatever goes wrong in the hook refuses the push.

Who may write to the folder itself needs no push. The protection is for those who reach the repository by a server. What
an admin made there in good faith may still lead around it: a symbolic reference, a link, a linked worktree.
"""

import os
import shlex
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from chimera.delivery.git.errors import BareRefused
from chimera.delivery.git.policy import RepositoryPolicy
from chimera.delivery.git.protection import HEADS
from chimera.delivery.git.signers import read_signers

SETTINGS = "chimera"
"""The folder in the bare repository where the rules lie."""
HOOK = "pre-receive"
GIT_TIMEOUT = 60.0
_CONFIG = {
    "core.hooksPath": "hooks",
    "receive.fsckObjects": "true",
    "receive.denyDeleteCurrent": "refuse",
    "core.logAllRefUpdates": "true",
}


class Rules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `protect` left: the policy, the signers' file, and the hook that belongs to it."""

    policy: RepositoryPolicy
    signers: str
    hook: str
    max_push_bytes: int
    version: int = 1


def hook_text(command: Sequence[str]) -> str:
    """The hook; `command` is what it runs."""
    return (
        "#!/bin/sh\n"
        "# Installed by `chimera repo protect`, and checked by `chimera repo protect --check`. Don't edit it.\n"
        f"exec {shlex.join(command)}\n"
    )


def protect(folder: Path, rules: Rules) -> None:
    """Install the hook and `rules` in the bare repository `folder`; raises `BareRefused`."""
    read_signers(rules.signers, file="signers")
    hooks = folder / "hooks"
    place = folder / SETTINGS
    for one in (hooks, place, hooks / HOOK):
        if one.is_symlink():
            raise BareRefused(f"{one} is a link, which others may lead elsewhere", next_step="put a plain one there")
    around = list(_around(folder))
    if around:
        raise BareRefused("; ".join(what for what, _ in around), next_step="; ".join(todo for _, todo in around))
    for one in (hooks, place):
        one.mkdir(exist_ok=True)
    # The rules first: a hook without them refuses everything.
    _replace(place / "rules.json", msgspec.json.format(msgspec.json.encode(rules), indent=1), 0o644)
    _replace(hooks / HOOK, rules.hook.encode(), 0o755)
    for name, value in {**_CONFIG, "receive.maxInputSize": str(rules.max_push_bytes)}.items():
        run_git(folder, "config", "--replace-all", name, value)


def troubles(folder: Path, rules: Rules) -> list[str]:
    """What of the protection isn't as it was installed."""
    found: list[str] = []
    hook = folder / "hooks" / HOOK
    if hook.is_symlink() or (folder / "hooks").is_symlink():
        found.append(f"{hook} is a link")
    elif not hook.is_file():
        found.append(f"the hook {hook} is gone: pushes are not checked")
    elif hook.read_text("utf-8", "replace") != rules.hook:
        found.append(f"the hook {hook} was changed")
    elif not hook.stat().st_mode & stat.S_IXUSR:
        found.append(f"the hook {hook} can't be run, so Git passes over it")
    for name, value in {**_CONFIG, "receive.maxInputSize": str(rules.max_push_bytes)}.items():
        done = run_git(folder, "config", "--get-all", name, codes=(0, 1)).text.split()
        if done != [value]:
            found.append(f"the setting {name} is {' '.join(done) or 'gone'} and not {value}")
    for file in (folder / "info/grafts", folder / "objects/info/alternates"):
        if file.exists():
            found.append(f"{file} makes Git read other objects than were pushed here")
    if run_git(folder, "for-each-ref", "refs/replace/").text.strip():
        found.append("references in refs/replace/ make Git show other content for a commit")
    found += [f"{what}; mend it: {todo}" for what, todo in _around(folder)]
    return found


def followed_by(folder: Path, ref: str) -> str | None:
    """What Git changes in the place of `ref`, which is symbolic or leads through a link; None where it is `ref` itself.

    Raises `BareRefused` where it follows what can't be a reference.
    """
    done = run_git(folder, "symbolic-ref", "--quiet", ref, codes=(0, 1))
    if done.returncode == 0:
        return done.text.strip()
    top = (folder / "refs").resolve()
    place = top / ref.removeprefix("refs/")
    end = place.resolve()
    return None if end == place else f"refs/{os.path.relpath(end, top)}"


def _around(folder: Path) -> Iterator[tuple[str, str]]:
    """What leads a push around the rules or the hook, and what to do.

    A reference that follows one which isn't there is in no list of Git's, so the files are looked at too.
    """
    refs = folder / "refs"
    rows = run_git(folder, "for-each-ref", "--format=%(refname) %(symref)").lines
    symbolic = {ref for ref, target in (row.split(" ", 1) for row in rows) if target}
    links: set[str] = set()
    for file in refs.rglob("*"):
        with suppress(FileNotFoundError):  # a push may change it meanwhile
            if file.is_symlink():
                links.add(f"refs/{file.relative_to(refs)}")
            elif file.is_file() and file.read_bytes().startswith(b"ref:"):
                symbolic.add(f"refs/{file.relative_to(refs)}")
    for ref in sorted(symbolic | links):
        if ref in links:
            yield f"{ref} is a link: a push to it may change another reference", f"rm {shlex.quote(str(folder / ref))}"
        elif not any(ref.startswith(f"{link}/") for link in links):
            yield (
                f"{ref} follows another reference, which a push to it would change",
                f"git symbolic-ref --delete {shlex.quote(ref)}",
            )
    trees = folder / "worktrees"
    if trees.is_dir() and any(trees.iterdir()):
        yield f"a push by the worktrees in {trees} finds no hook", "git worktree remove each, then git worktree prune"


def load_rules(folder: Path) -> Rules:
    """The rules that `protect` left there; raises `BareRefused`."""
    file = folder / SETTINGS / "rules.json"
    try:
        return msgspec.json.decode(file.read_bytes(), type=Rules)
    except FileNotFoundError:
        raise BareRefused(f"{folder} is not protected", next_step="run `chimera repo protect` there") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise BareRefused(f"{file} can't be read: {error}", next_step="run `chimera repo protect` anew") from error


def is_bare(folder: Path) -> bool:
    """Whether `folder` is a bare repository."""
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()


def file_at(folder: Path, branch: str, path: str) -> str | None:
    """A file's text on a branch; None where branch or file isn't there."""
    done = run_git(folder, "cat-file", "blob", f"{HEADS}{branch}:{path}", codes=(0, 128))
    return done.text if done.returncode == 0 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """What git answered."""

    returncode: int
    text: str

    @property
    def lines(self) -> list[str]:
        """Its lines, by git's only separator: names may hold others that Unicode knows."""
        return [line for line in self.text.split("\n") if line]


def run_git(folder: Path, *arguments: str, codes: Sequence[int] = (0,)) -> Ran:
    """Run git in a bare repository; raises `BareRefused` where it fails, or answers none of `codes`."""
    command = ["git", "--no-replace-objects", *arguments]
    try:
        done = subprocess.run(
            command, cwd=folder, env=_environment(folder), capture_output=True, timeout=GIT_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BareRefused(f"git did not answer: {error}", next_step="see that the program git is installed") from error
    if done.returncode not in codes:
        raise BareRefused(done.stderr.decode("utf-8", "replace").strip(), next_step="see what git says")
    return Ran(returncode=done.returncode, text=done.stdout.decode("utf-8", "surrogateescape"))


def _environment(folder: Path) -> dict[str, str]:
    """Git's environment: within a push its own, else that of a command in the repository, whatever is set outside."""
    if "GIT_QUARANTINE_PATH" in os.environ:
        return dict(os.environ)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, "GIT_DIR": str(folder.resolve())}


def _replace(file: Path, data: bytes, mode: int) -> None:
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_bytes(data)
    fresh.chmod(mode)
    fresh.replace(file)
