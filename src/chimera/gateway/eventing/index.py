"""Which agents an event starts, without asking each of them: an index over what all agents of all tenants subscribe to.

A subscription stands under each of its types; one with `*` under what comes before it. Of those, the ones that name
their subjects in full stand under each subject. So an event costs a look at its type, at each length of beginnings that
anybody subscribed to, and at its subject; only who is found there is asked whether the rest agrees, and only then is
the data looked into. It follows the routes: an agent's part is taken out and put in anew when its route changes.

An agent is not started by what is told of itself (its own tasks, sessions and changes): it would be so for ever.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from chimera.agents.subscriptions import TakenEvents, filters_of
from chimera.events import filters
from chimera.events.filters import Filter
from chimera.events.inputs import at
from chimera.gateway.eventing.happening import Happening
from chimera.platform.model import Route

EVENTS = "events"
OWN_PREFIX = "chimera."


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Receiver:
    """One subscription of a live agent."""

    route: Route
    taken: TakenEvents
    rest: tuple[Filter, ...]

    def takes(self, event: Happening) -> bool:
        """Whether the event, whose type agrees, starts the agent."""
        if event.seq is not None and event.seq <= self.route.events_since:
            return False
        own = f"agents/{self.route.agent}"
        if event.type.startswith(OWN_PREFIX) and (event.subject == own or event.subject.startswith(own + "/")):
            return False
        if not filters.passes(self.rest, event.attributes):
            return False
        return all(_same(at(event.data, path), wanted) for path, wanted in self.taken.data.items())


@dataclass(kw_only=True, slots=True)
class _Bucket:
    """Who subscribed to one type, or to one beginning of types."""

    of_subject: dict[str, dict[Receiver, None]] = field(default_factory=dict)
    others: dict[Receiver, None] = field(default_factory=dict)

    def places(self, receiver: Receiver) -> Iterator[dict[Receiver, None]]:
        subjects = receiver.taken.subjects
        if subjects and not any(text.endswith("*") for text in subjects):
            for text in subjects:
                yield self.of_subject.setdefault(text, {})
        else:
            yield self.others


class AgentIndex:
    """The subscriptions of live agents."""

    def __init__(self) -> None:
        """Start empty."""
        self._exact: dict[tuple[str, str], _Bucket] = {}
        self._prefix: dict[tuple[str, str], _Bucket] = {}
        self._tenants: dict[str, set[int]] = {}
        self._of_agent: dict[tuple[str, str], list[Receiver]] = {}
        self._by_name: dict[tuple[str, str, str], Receiver] = {}

    def __len__(self) -> int:
        """How many subscriptions there are."""
        return len(self._by_name)

    def take(self, route: Route) -> None:
        """A route has changed."""
        if route.status == "live" and EVENTS in route.protocols:
            self.put(route)
        else:
            self.remove(route.tenant, route.agent)

    def put(self, route: Route) -> None:
        """The agent's route is this now."""
        self.remove(route.tenant, route.agent)
        made = [
            Receiver(route=route, taken=one, rest=tuple(filters_of(one)[1:]))  # the first is that of its types
            for one in route.subscriptions
        ]
        if not made:
            return
        self._of_agent[route.tenant, route.agent] = made
        for receiver in made:
            self._by_name[route.tenant, route.agent, receiver.taken.name] = receiver
            for bucket in self._buckets(receiver):
                for place in bucket.places(receiver):
                    place[receiver] = None

    def remove(self, tenant: str, agent: str) -> None:
        """The agent is not live any more, or is put anew."""
        for receiver in self._of_agent.pop((tenant, agent), ()):
            del self._by_name[tenant, agent, receiver.taken.name]
            for bucket in self._buckets(receiver):
                for place in bucket.places(receiver):
                    place.pop(receiver, None)

    def named(self, tenant: str, agent: str, subscription: str) -> Receiver | None:
        """One by its names."""
        return self._by_name.get((tenant, agent, subscription))

    def receivers(self, event: Happening) -> list[Receiver]:
        """Whom the event starts: each subscription once."""
        found: dict[Receiver, None] = {}
        for bucket in self._looked_at(event.tenant, event.type):
            for receiver in (*bucket.of_subject.get(event.subject, ()), *bucket.others):
                if receiver not in found and receiver.takes(event):
                    found[receiver] = None
        return list(found)

    def wanted(self, event: Happening) -> bool:
        """Whether it starts anybody."""
        return any(
            receiver.takes(event)
            for bucket in self._looked_at(event.tenant, event.type)
            for receiver in (*bucket.of_subject.get(event.subject, ()), *bucket.others)
        )

    def _looked_at(self, tenant: str, type_: str) -> Iterator[_Bucket]:
        if (exact := self._exact.get((tenant, type_))) is not None:
            yield exact
        for length in self._tenants.get(tenant, ()):
            if length <= len(type_) and (some := self._prefix.get((tenant, type_[:length]))) is not None:
                yield some

    def _buckets(self, receiver: Receiver) -> Iterable[_Bucket]:
        tenant = receiver.route.tenant
        for text in receiver.taken.types:
            if text.endswith("*"):
                self._tenants.setdefault(tenant, set()).add(len(text) - 1)
                yield self._prefix.setdefault((tenant, text[:-1]), _Bucket())
            else:
                yield self._exact.setdefault((tenant, text), _Bucket())


def _same(found: object, wanted: object) -> bool:
    """Equal, and of one kind: JSON's `true` is not 1."""
    return found == wanted and isinstance(found, bool) == isinstance(wanted, bool)
