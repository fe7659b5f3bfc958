"""What can be wrong with a catalogue's repository, its protection, and what follows it."""

from chimera_host.contract.problem import ProblemError


class GitError(ProblemError):
    """Something is wrong with a catalogue's repository."""

    title = "The repository can't be used so"


class InvalidProtection(GitError):
    """The policy of a protected branch, or the list of signers, is not valid."""

    code = "invalid-protection"
    status = 422
    title = "The protection of the branch is not valid"


class LayoutRefused(GitError):
    """A file of the repository's layout can't be written where it belongs."""

    code = "layout-refused"
    status = 409
    title = "The repository can't be laid out there"
