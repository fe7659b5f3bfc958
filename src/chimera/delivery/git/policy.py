"""`.chimera/policy.yaml`: how changes reach the protected branch, and where the repository is hosted.

The same file serves a bare repository, where `chimera repo protect` enforces it, and a hosted one, where it says how
CODEOWNERS and the workflow are written; the host's own settings enforce there.
"""

import re
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from chimera.agents import yaml
from chimera.agents.errors import UnreadableText
from chimera.delivery.git.errors import InvalidProtection
from chimera.delivery.git.workflow import Host

MAX_APPROVALS = 20
Branch = Annotated[str, Meta(min_length=1, max_length=200)]
Handle = Annotated[str, Meta(pattern=r"^@[\x21-\x7e]+$", max_length=200)]
Principal = Annotated[str, Meta(pattern=r"^[\x21-\x2b\x2d-\x7e]+$", max_length=200)]
CheckName = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", max_length=63)]

_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)|^[/.-]|[/.]$|^@$")


class Owners(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How teams are called at the host: by a pattern with `{team}`, or one by one."""

    handle: Handle = "@{team}"
    teams: dict[str, Handle] = {}

    def name(self, team: str) -> str:
        """A team's handle."""
        return self.teams.get(team) or self.handle.replace("{team}", team)


class RepositoryPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a change of the branch must have; `validate` is the folder of definitions, empty: they aren't validated."""

    branch: Branch = "main"
    approvals: Annotated[int, Meta(ge=0, le=MAX_APPROVALS)] = 1
    signed_off: bool = True
    signed_commits: bool = True
    checks: dict[CheckName, tuple[Principal, ...]] = {}
    validate: Annotated[str, Meta(max_length=500)] = "agents"
    host: Host = "github"
    owners: Owners = Owners()


def read_policy(text: str, *, file: str) -> RepositoryPolicy:
    """The policy in `text`; raises `InvalidProtection` with what is wrong."""
    try:
        data = yaml.load(text, file=file)
        policy = msgspec.convert(data if data is not None else {}, RepositoryPolicy)
    except UnreadableText as error:
        raise _invalid(f"{error.fault}") from error
    except msgspec.ValidationError as error:
        raise _invalid(f"{file}: {error}") from error
    if not is_branch(policy.branch):
        raise _invalid(f"{file}: {policy.branch!r} is not the name of a branch")
    if unsigned := sorted(name for name, signers in policy.checks.items() if not signers):
        raise _invalid(f"{file}: nobody may say that the check {unsigned[0]!r} succeeded")
    if policy.validate.startswith("/") or ".." in policy.validate.split("/"):
        raise _invalid(f"{file}: validate: {policy.validate!r} is not a folder of the repository")
    if policy.approvals and not policy.signed_commits:
        raise _invalid(
            f"{file}: approvals are asked for, but commits need no signature: whoever pushes could claim that somebody "
            "else made the commit, and approve it"
        )
    return policy


def is_branch(name: str) -> bool:
    """Whether `name` can be a branch's, by the rules of `git check-ref-format`."""
    return bool(name) and len(name) <= 200 and not _BAD_REF.search(name)


def _invalid(text: str) -> InvalidProtection:
    return InvalidProtection(text, next_step="mend the policy; the guide 'Git' explains its fields")
