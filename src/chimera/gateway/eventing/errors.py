"""What can be wrong with events that start agents, and with messages between agents."""

from chimera.gateway.errors import GatewayError


class InvalidEvent(GatewayError):
    """The event can't be read."""

    code = "invalid-event"
    status = 400
    title = "This is no CloudEvent"


class EventLoop(GatewayError):
    """Events started agents, whose events started agents, too many times one by the other."""

    code = "event-loop"
    status = 409
    title = "Events go round"
