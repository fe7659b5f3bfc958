"""What can go wrong with changes of definitions on their way to production."""

from chimera_host.contract.problem import ProblemError


class DeliveryError(ProblemError):
    """Something went wrong with a change on its way to production."""

    title = "The change can't go on"


class UnknownChange(DeliveryError):
    """No change request of the tenant has this id."""

    code = "unknown-change"
    status = 404
    title = "There is no such change"


class ChangeConflicts(DeliveryError):
    """Another open change touches the same agents, or they were changed after this one was made."""

    code = "change-conflicts"
    status = 409
    title = "The change conflicts with another"


class WrongState(DeliveryError):
    """What is asked can't be done to a change in its state."""

    code = "wrong-state"
    status = 409
    title = "The change is in another state"


class RevisionGone(DeliveryError):
    """A revision that a change names is not here any more."""

    code = "revision-gone"
    status = 409
    title = "A revision is not here any more"


class NoChange(DeliveryError):
    """The definitions are live as they are, so there is nothing to deliver."""

    code = "no-change"
    status = 409
    title = "Nothing would change"


class ApprovalRefused(DeliveryError):
    """Who approves may not: it is their own change, or no rule asks for a role of theirs."""

    code = "approval-refused"
    status = 403
    title = "This approval doesn't count"


class OutOfReach(DeliveryError):
    """The credential is narrowed to other agents than the change touches."""

    code = "out-of-reach"
    status = 403
    title = "The credential is for other agents"


class DirectRefused(DeliveryError):
    """The tenant's delivery policy lets agents be changed by change requests alone."""

    code = "direct-refused"
    status = 409
    title = "Agents are changed by change requests here"


class InvalidDeliveryPolicy(DeliveryError):
    """A delivery policy or a freeze window isn't valid."""

    code = "invalid-delivery-policy"
    status = 422
    title = "The delivery policy is not valid"
