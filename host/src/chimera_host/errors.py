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


class TrialMisfit(HostError):
    """A test doesn't answer for something that its agent asked for, or what it checks with doesn't work."""

    code = "trial-misfit"
    status = 422
    title = "The test doesn't fit the agent"


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


class AgentBusy(HostError):
    """The agent has as many calls as it takes at once."""

    code = "agent-busy"
    status = 429
    title = "The agent is busy"


class AgentOverShare(HostError):
    """The agent used more of its host than its share while others wait."""

    code = "agent-over-share"
    status = 429
    title = "The agent used more than its share"


class AgentStorageFull(HostError):
    """The agent's own folder holds more than its quota."""

    code = "agent-storage-full"
    status = 507
    title = "The agent's storage is full"


class BundleRefused(AgentLoadError):
    """The agent's source bundle breaks a rule."""

    code = "bundle-refused"
    title = "The source bundle was refused"


class PlatformUnavailable(HostError):
    """The gateway's internal API does not answer."""

    code = "platform-unavailable"
    status = 503
    title = "The platform does not answer"


class InvalidCall(HostError):
    """The request is not a call as the contract defines it."""

    code = "invalid-call"
    status = 400
    title = "The call is malformed"


class CallTooLarge(HostError):
    """The request's body is larger than the host takes."""

    code = "call-too-large"
    status = 413
    title = "The call is too large"


class WrongKey(HostError):
    """The request doesn't show this host's key."""

    code = "unauthorized"
    status = 401
    title = "Not allowed"


class NothingHere(HostError):
    """No such path, or no such call."""

    code = "not-found"
    status = 404
    title = "Nothing is here"
