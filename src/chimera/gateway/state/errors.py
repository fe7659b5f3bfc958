"""What the state API refuses."""

from chimera.gateway.errors import GatewayError


class SessionChanged(GatewayError):
    """The session is not at the version that `If-Match` names."""

    code = "session-changed"
    status = 412
    title = "The session is at another version"


class PreconditionRequired(GatewayError):
    """A change must say which version it is made to."""

    code = "precondition-required"
    status = 428
    title = "Say which version you change"


class SubjectMismatch(GatewayError):
    """The session belongs to another person."""

    code = "subject-mismatch"
    status = 409
    title = "The session is another person's"


class KeyReused(GatewayError):
    """The Idempotency-Key was used for another request."""

    code = "idempotency-key-reused"
    status = 422
    title = "This key was used for something else"


class RunInProgress(GatewayError):
    """The run is being worked on."""

    code = "run-in-progress"
    status = 409
    title = "This is being done already"


class RunTaken(GatewayError):
    """Another call works on the run; what this one does counts no more."""

    code = "run-taken"
    status = 409
    title = "Another call has taken over"


class NothingToResume(GatewayError):
    """The session has no unfinished run."""

    code = "nothing-to-resume"
    status = 409
    title = "Nothing is unfinished"


class NoRun(GatewayError):
    """The call has no run, so nothing of it outlives it."""

    code = "no-run"
    status = 409
    title = "The call keeps nothing"


class StepConflict(GatewayError):
    """The step was saved before with another content."""

    code = "step-conflict"
    status = 409
    title = "The step was finished otherwise"


class SpaceNotFound(GatewayError):
    """There is no such space."""

    code = "space-not-found"
    status = 404
    title = "There is no such space"


class SpaceForbidden(GatewayError):
    """The space's access list doesn't name the agent."""

    code = "space-forbidden"
    status = 403
    title = "The agent may not use this space"


class SpaceConflict(GatewayError):
    """A key of the space, or the space, isn't at the version that the writer expects."""

    code = "space-conflict"
    status = 409
    title = "The shared state has changed"


class SpaceRuleBroken(GatewayError):
    """A write is of another kind than the space's rules allow for its key."""

    code = "space-rule"
    status = 422
    title = "The space's rules don't allow this write"
