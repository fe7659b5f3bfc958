"""A bare repository whose branch is protected: the hook put there, the rules it goes by, and whether both are in place.

The rules (policy and signers) lie beside the repository's objects, where no push reaches, as they were when `protect`
was run: so a push can't change what it is judged by. Whatever goes wrong in the hook refuses the push.

Who may write to the folder itself needs no push. The protection is for those who reach the repository by a server.
"""

import os
import shlex
import stat
import subprocess
from collections.abc import Sequence
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
    return found


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
