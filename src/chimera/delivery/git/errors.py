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


class MalformedObject(GitError):
    """An object of the repository isn't there, is damaged, or is not what Git writes."""

    code = "malformed-object"
    status = 422
    title = "An object of the repository can't be read"


class BadTree(GitError):
    """A folder of the commit holds what may not be in it: a name that leads elsewhere, a link, a submodule."""

    code = "bad-tree"
    status = 422
    title = "The commit holds what can't be applied"


class BareRefused(GitError):
    """A bare repository can't be protected, or what it is protected by can't be read."""

    code = "bare-refused"
    status = 409
    title = "The bare repository can't be protected"


class AddressRefused(GitError):
    """The address of a repository is none that may be followed."""

    code = "address-refused"
    status = 422
    title = "This repository can't be followed"


class InvalidSource(GitError):
    """What is wanted of a source is not valid."""

    code = "invalid-source"
    status = 422
    title = "The source is not valid"


class UnknownSource(GitError):
    """The tenant follows no source of this name."""

    code = "unknown-source"
    status = 404
    title = "There is no such source"


class SourceChanged(GitError):
    """A source was changed or removed while a commit of it was on its way; nothing of that was applied."""

    code = "source-changed"
    status = 409
    title = "The source was changed meanwhile"


class Unreachable(GitError):
    """A repository or its branch isn't there, doesn't answer, or doesn't let us in."""

    code = "repository-unreachable"
    status = 503
    title = "The repository can't be reached"


class RepositoryTooLarge(GitError):
    """A repository has more than `sync.repository_bytes`."""

    code = "repository-too-large"
    status = 413
    title = "The repository is too large"


class MakersUnknown(GitError):
    """Not all who made the new commits are known, so nobody can be said not to be one of them."""

    code = "makers-unknown"
    status = 409
    title = "Who made the commits is not known"


class HookRefused(GitError):
    """A webhook's signature is missing, doesn't fit or is old, or no such webhook is there."""

    code = "hook-refused"
    status = 401
    title = "The webhook is not taken"
