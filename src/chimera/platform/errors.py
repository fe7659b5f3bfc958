"""What can go wrong with cells and hosts."""

from chimera_host.contract.problem import ProblemError


class PlatformError(ProblemError):
    """Something went wrong with a cell."""

    title = "The cell failed"


class HostStartFailed(PlatformError):
    """A host of the cell could not be started."""

    code = "host-start-failed"
    status = 503
    title = "A host could not be started"


class RuntimeMissing(HostStartFailed):
    """The cell's runtime environment is not installed."""

    code = "runtime-missing"
    title = "A runtime environment is missing"


class UnknownHost(PlatformError):
    """No host has this id."""

    code = "unknown-host"
    status = 404
    title = "There is no such host"
