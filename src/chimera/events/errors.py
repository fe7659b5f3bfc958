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


class SubscriptionNotFound(EventError):
    """The tenant has no such subscription."""

    code = "subscription-not-found"
    status = 404
    title = "There is no such subscription"


class SubscriptionExists(EventError):
    """The tenant has a subscription of this name."""

    code = "subscription-exists"
    status = 409
    title = "The subscription exists"


class TooManySubscriptions(EventError):
    """The tenant has as many subscriptions as it may have."""

    code = "too-many-subscriptions"
    status = 422
    title = "Too many subscriptions"


class LetterNotFound(EventError):
    """There is no such dead letter: it was replayed or dropped, or its time is over."""

    code = "dead-letter-not-found"
    status = 404
    title = "There is no such dead letter"


class EventsGone(EventError):
    """Events at the place asked for are not in the journal: retention removed them, or it never had them."""

    code = "events-gone"
    status = 410
    title = "Events from there on are not kept"


class TooManyStreams(EventError):
    """As many streams of events are open at this gateway as may be."""

    code = "too-many-streams"
    status = 503
    title = "Too many streams of events"
