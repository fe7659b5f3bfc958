"""Which subscriptions want an event, without asking each of them.

Every type of fact has a list of the subscriptions that can want it, made when it is first met. Those that name one
subject (an agent's, a task's) stand under that subject instead, since there may be one for each of thousands. Whoever
is found is asked whether its filters let the event pass.
"""

from collections.abc import Iterable

from chimera.events import filters
from chimera.events.delivery.entries import Entry
from chimera.events.delivery.model import EVERYWHERE, Subscription


class Index:
    """The active subscriptions; made anew when they change."""

    def __init__(self, subscriptions: Iterable[Subscription]) -> None:
        """Index them."""
        self._by_subject: dict[tuple[str, str], list[Subscription]] = {}
        self._by_tenant: dict[str, list[Subscription]] = {}
        self._by_type: dict[tuple[str, str], list[Subscription]] = {}
        for one in subscriptions:
            subject = filters.demanded(one.filters, "subject")
            if subject is None:
                self._by_tenant.setdefault(one.tenant, []).append(one)
            else:
                self._by_subject.setdefault((one.tenant, subject), []).append(one)

    def wanted_by(self, entry: Entry) -> list[str]:
        """The ids of the subscriptions that want the event."""
        fact, attributes = entry.fact, entry.attributes
        found = []
        for tenant in (fact.tenant, EVERYWHERE) if fact.tenant != EVERYWHERE else (EVERYWHERE,):
            for one in self._by_subject.get((tenant, fact.subject), ()):
                if filters.passes(one.filters, attributes):
                    found.append(one.id)
            for one in self._possible(tenant, attributes["type"]):
                if filters.passes(one.filters, attributes):
                    found.append(one.id)
        return found

    def _possible(self, tenant: str, type_: str) -> list[Subscription]:
        key = (tenant, type_)
        found = self._by_type.get(key)
        if found is None:
            several = self._by_tenant.get(tenant, ())
            found = self._by_type[key] = [one for one in several if filters.may_pass(one.filters, type_)]
        return found
