"""Everything the gateway refuses or fails with, each with a stable code and an HTTP status."""

from collections.abc import Sequence

from chimera_host.contract.problem import ProblemError


class GatewayError(ProblemError):
    """The gateway could not take the call."""


class Unauthenticated(GatewayError):
    """No key, or a wrong one."""

    code = "unauthenticated"
    status = 401
    title = "A valid key is needed"


class Forbidden(GatewayError):
    """The request comes from where none may come from (Host or Origin header)."""

    code = "forbidden"
    status = 403
    title = "The request is not allowed"


class AgentNotFound(GatewayError):
    """No live agent has this name."""

    code = "agent-not-found"
    status = 404
    title = "There is no such agent"


class ProtocolNotOffered(GatewayError):
    """The agent's definition doesn't offer this protocol."""

    code = "protocol-not-offered"
    status = 403
    title = "The agent can't be reached this way"


class InvalidRequest(GatewayError):
    """The request's body, parameters or headers are wrong."""

    code = "invalid-request"
    status = 400
    title = "The request is not valid"


class SessionConflict(GatewayError):
    """Somebody else saved this session meanwhile."""

    code = "session-conflict"
    status = 409
    title = "The session has changed"


class AgentBusy(GatewayError):
    """The agent has as many calls as its definition allows."""

    code = "agent-busy"
    status = 429
    title = "The agent is busy"


class BudgetExceeded(GatewayError):
    """The agent's budget of the day is used up."""

    code = "budget-exceeded"
    status = 429
    title = "The agent's budget is used up"


class RateExceeded(GatewayError):
    """The agent has had as many calls in the last minute as its definition allows."""

    code = "rate-exceeded"
    status = 429
    title = "The agent is called too often"


class PriceUnknown(GatewayError):
    """The agent's budget is in money, and its model has no price."""

    code = "price-unknown"
    status = 503
    title = "The model has no price"


class QuotaUnavailable(GatewayError):
    """What is left of a budget can't be read, so nothing of it is spent."""

    code = "quota-unavailable"
    status = 503
    title = "Budgets can't be read"


class GatewayOverloaded(GatewayError):
    """All queues are full."""

    code = "overloaded"
    status = 503
    title = "Too many calls at once"


class CellUnavailable(GatewayError):
    """No host of the agent's cell could be started in time."""

    code = "cell-unavailable"
    status = 503
    title = "The agent's cell did not start"


class NotServable(GatewayError):
    """This home can't run the agent."""

    code = "not-servable"
    status = 501
    title = "The agent can't run here"


class HostFailed(GatewayError):
    """The host died while it ran the call."""

    code = "host-failed"
    status = 502
    title = "The host failed"


class CallTimeout(GatewayError):
    """The call did not finish before its deadline."""

    code = "deadline-exceeded"
    status = 504
    title = "The call took too long"


class ControlPlaneUnavailable(GatewayError):
    """The control plane is not there; calls go on, changes wait."""

    code = "control-plane-unavailable"
    status = 503
    title = "The control plane is away"


class ModelUnavailable(GatewayError):
    """The model's provider failed in a way that may pass."""

    code = "model-unavailable"
    status = 503
    title = "The model is not available"


class ModelTimeout(ModelUnavailable):
    """The model's provider did not answer in the time that the call had."""


class ModelRejected(GatewayError):
    """The model's provider refused the request for good."""

    code = "model-rejected"
    status = 502
    title = "The model refused the request"


class ScriptOver(GatewayError):
    """A test's script has no answer for what an agent asks its model, or for what it asks of others."""

    code = "script-over"
    status = 422
    title = "The test doesn't answer for the model"


class PayloadTooLarge(GatewayError):
    """The request's body, or the state of its session, is larger than allowed."""

    code = "payload-too-large"
    status = 413
    title = "Too large"


class NotFound(GatewayError):
    """Nothing is at this address."""

    code = "not-found"
    status = 404
    title = "Nothing is here"


class MethodNotAllowed(GatewayError):
    """The address exists, but not with this method."""

    code = "method-not-allowed"
    status = 405
    title = "Not with this method"

    def __init__(self, detail: str, methods: Sequence[str]) -> None:
        """Name the methods that the address takes."""
        self.allow = ", ".join(sorted(methods))
        super().__init__(detail, next_step=f"it takes {self.allow}")


class UnsupportedMediaType(GatewayError):
    """The request's body is of a kind, or compressed in a way, that isn't taken here."""

    code = "unsupported-media-type"
    status = 415
    title = "Not this kind of body"


class CallLoop(GatewayError):
    """Agents call agents too deep, or too often for one call from outside."""

    code = "call-loop"
    status = 508
    title = "Agents call each other without end"


class UnknownCall(GatewayError):
    """The call that a host names isn't in flight on the host's cell."""

    code = "unknown-call"
    status = 403
    title = "No such call is in flight"


class CredentialRefused(GatewayError):
    """The agent's document doesn't refer to this credential."""

    code = "credential-refused"
    status = 403
    title = "The credential was refused"


class CredentialMissing(GatewayError):
    """The platform holds no credential of this name."""

    code = "credential-not-found"
    status = 404
    title = "There is no such credential"


class NodeUnavailable(GatewayError):
    """The node agent is not there; running hosts go on, none is started."""

    code = "node-unavailable"
    status = 503
    title = "The node agent is away"


class CircuitOpen(ModelUnavailable):
    """The model's provider failed so often that it is left alone for a while."""


class FunctionRefused(GatewayError):
    """The address of the agent's function is not one that may be called."""

    code = "function-refused"
    status = 403
    title = "The function may not be called"


class FunctionUnavailable(GatewayError):
    """The agent's function can't be reached, or has too much to do."""

    code = "function-unavailable"
    status = 503
    title = "The function is not available"


class FunctionTimeout(GatewayError):
    """The agent's function did not answer in time."""

    code = "function-timeout"
    status = 504
    title = "The function took too long"


class FunctionFailed(GatewayError):
    """The agent's function failed, or answered what is no answer."""

    code = "function-failed"
    status = 502
    title = "The function failed"


class RevisionWithdrawn(GatewayError):
    """The agent's revision was taken back while the call ran, and its calls were ended."""

    code = "revision-withdrawn"
    status = 503
    title = "The agent's revision was taken back"


class SessionWithdrawn(GatewayError):
    """The session is on a revision that was taken back, and can't go on by the one that is live."""

    code = "session-withdrawn"
    status = 409
    title = "The session can't go on"
