"""Everything that can go wrong in a host, each with a stable code and an HTTP status."""

from chimera_host.contract.problem import ProblemError


class HostError(ProblemError):
    """Something went wrong in the host."""

    title = "The host failed"


class AgentLoadError(HostError):
    """The agent's revision could not be loaded."""

    code = "agent-load-failed"
    status = 500
    title = "The agent could not be loaded"


class AgentFailed(HostError):
    """The agent raised an error."""

    code = "agent-failed"
    status = 502
    title = "The agent failed"


class CallCancelled(HostError):
    """The caller went away or cancelled the call."""

    code = "call-cancelled"
    status = 499
    title = "The call was cancelled"


class DeadlineExceeded(CallCancelled):
    """The call's deadline passed."""

    code = "deadline-exceeded"
    status = 504
    title = "The call took too long"


class HostBusy(HostError):
    """The host has as many calls as it takes."""

    code = "host-busy"
    status = 503
    title = "The host is full"


class HostDraining(HostError):
    """The host is shutting down and takes no new calls."""

    code = "host-draining"
    status = 503
    title = "The host is shutting down"


class ToolRefused(HostError):
    """The broker refused a tool call."""

    code = "tool-refused"
    status = 403
    title = "The tool call was refused"


class ToolFailed(HostError):
    """A tool failed, was too slow, or answered too much."""

    code = "tool-failed"
    status = 502
    title = "The tool failed"


class ModelFailed(HostError):
    """The model could not answer."""

    code = "model-failed"
    status = 502
    title = "The model failed"
