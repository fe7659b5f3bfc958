"""What can be wrong with events and subscriptions to them."""

from chimera_host.contract.problem import ProblemError


class EventError(ProblemError):
    """Something about events is wrong."""

    code = "event-error"
    status = 500
    title = "Something about events is wrong"


class InvalidSubscription(EventError):
    """The subscription can't be made as it is written: its address, its filters or its bounds."""

    code = "invalid-subscription"
    status = 422
    title = "The subscription is not valid"
