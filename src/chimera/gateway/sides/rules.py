"""Which revision of an agent takes a call, and which session may go on by another: pure.

A session on a revision that was taken back goes on by an older one only where that one can read its state. What all
revisions of a framework share is the conversation (`chimera_host.contract.call.SessionState`): its messages. Its values
are of three kinds. Those that the framework keeps are taken over, or begun anew, by the host itself, which knows both.
Those that came from outside belong to no revision. Those that code of the agent's own wrote are readable by the same
code alone: an older one can't know what a newer one made of them.
"""

from chimera.gateway.routes import Protocol, offers
from chimera.platform import routing
from chimera.platform.model import WHOLE_WEIGHT, Route
from chimera_host.contract.agent import AgentDocument
from chimera_host.contract.call import FRAMEWORK_VALUES, SessionState


def green_of(route: Route) -> Route | None:
    """The agent's green side; of an agent that has no other, `route` itself."""
    if route.side == "green":
        return route
    return next((one for one in route.others if one.side == "green"), None)


def draw(route: Route, key: str, protocol: Protocol) -> Route:
    """The side of an agent that takes what `key` names: a session, or a call without one.

    The same key gets the same side while weights stay, and moves once at most while green's weight grows. A green side
    that can't be run here, or doesn't offer the protocol, gets none.
    """
    green = green_of(route)
    if green is None or not green.weight or green.unservable is not None or not offers(green, protocol):
        return route
    weights = {"live": WHOLE_WEIGHT - green.weight, "green": green.weight}
    first = routing.sides(f"{route.tenant}/{route.agent}/{key}", weights)[0]
    return green if first == "green" else route


def served(route: Route, revision: str | None, now: float) -> Route | None:
    """The side that runs this revision, if one still does: live, green, or kept warm at `now`."""
    if revision is None:
        return None
    if route.revision == revision:
        return route
    for one in route.others:
        if one.revision == revision and (one.until is None or one.until > now) and one.unservable is None:
            return one
    return None


def is_withdrawn(route: Route, revision: str | None) -> bool:
    """Whether this revision was taken back."""
    return any(one.revision == revision for one in route.withdrawn)


def why_stays(state: SessionState, before: AgentDocument, after: AgentDocument) -> str | None:
    """Why a session of the revision `before` can't go on by the older one `after`; None where it can."""
    if before.framework != after.framework:
        return f"it was made by {before.framework}, and the revision that is live is of {after.framework}"
    own = sorted(name for name in state.values if name not in FRAMEWORK_VALUES)
    codes = [None if one.source is None else one.source.bundle for one in (before, after)]
    if own and codes[0] != codes[1] and codes[0] is not None:
        return f"code that is not in the live revision wrote its values ({', '.join(own)[:200]})"
    return None
