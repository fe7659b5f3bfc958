"""What can go wrong with cells and hosts."""

from chimera.platform.reasons import Reason
from chimera_host.contract.problem import ProblemError


class PlatformError(ProblemError):
    """Something went wrong with a cell."""

    title = "The cell failed"


class HostStartFailed(PlatformError):
    """A host of the cell could not be started."""

    code = "host-start-failed"
    status = 503
    title = "A host could not be started"
    reason: str = Reason.HOST_NOT_STARTED.value


class HostEndedEarly(HostStartFailed):
    """A host of the cell ended before it was ready."""

    reason = Reason.CRASH_LOOP.value


class HostTooLarge(HostStartFailed):
    """A host of the cell used more memory than it may before it was ready."""

    reason = Reason.OUT_OF_MEMORY.value


class HostTooSlow(HostStartFailed):
    """A host of the cell runs and wasn't ready in time."""

    reason = Reason.NOT_READY_IN_TIME.value


class RuntimeMissing(HostStartFailed):
    """The cell's runtime environment is not installed."""

    code = "runtime-missing"
    title = "A runtime environment is missing"
    reason = Reason.RUNTIME_MISSING.value


class UnknownHost(PlatformError):
    """No host has this id."""

    code = "unknown-host"
    status = 404
    title = "There is no such host"
