"""Which events start an agent: the section `subscriptions` as it is compiled, and the rules of its types.

A type of event is one of the platform's own facts (`task.failed`, which is `chimera.task.failed` on its way) or anybody
else's (`com.example.order.created`). The platform's are a closed list, so that a misspelling is an error; a name that
only looks like one of them, by its first word, is taken for a misspelling too. A `*` at the end stands for the rest.
"""

import difflib
from typing import Any, Literal

from msgspec import Struct

from chimera.agents import quantities
from chimera.agents.spec import EventSubscription
from chimera.events.catalogue import FACTS
from chimera.events.cloudevents import TYPE_PREFIX
from chimera.events.filters import Filter

MESSAGES = "messages"
"""What stands for a subscription where another agent's message starts an agent."""
DataValue = str | int | float | bool
SessionOf = Literal["event", "subject", "subscription"]

_FIRST_WORDS = frozenset(name.partition(".")[0] for name in FACTS)


class TakenEvents(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One subscription of an agent in its one way of writing: types in full, times in seconds."""

    name: str
    types: tuple[str, ...]
    sources: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    filters: tuple[dict[str, Any], ...] = ()
    data: dict[str, DataValue] = {}
    input: str | None = None
    session: SessionOf = "event"
    attempts: int | None = None
    expires: float = 86_400.0
    priority: int = 0


def taken(one: EventSubscription) -> TakenEvents:
    """The one way of writing a subscription that was checked."""
    return TakenEvents(
        name=one.name,
        types=tuple(sorted({full_type(text) for text in one.types})),
        sources=tuple(sorted(set(one.sources))),
        subjects=tuple(sorted(set(one.subjects))),
        filters=one.filters,
        data=one.data,
        input=one.input,
        session=one.session,
        attempts=one.attempts,
        expires=quantities.seconds(one.expires),
        priority=one.priority,
    )


def full_type(text: str) -> str:
    """A type as it stands in an event: the platform's own with their prefix, others as they are."""
    return TYPE_PREFIX + text if not text.startswith(TYPE_PREFIX) and _some_fact(text) else text


def type_fault(text: str) -> tuple[str, str | None] | None:
    """What is wrong with a type, and the nearest one that isn't; None where nothing is."""
    bare = text.removesuffix("*")
    if not bare:
        return "it names no type: an agent is not started by everything", None
    own = bare.removeprefix(TYPE_PREFIX)
    if _some_fact(text.removeprefix(TYPE_PREFIX)):
        return None
    if bare.startswith(TYPE_PREFIX) or own.partition(".")[0] in _FIRST_WORDS:
        near = difflib.get_close_matches(own, FACTS, n=1)
        return f"no event of the platform has the type {text!r}", near[0] if near else None
    return None


def matching(name: str, texts: tuple[str, ...]) -> Filter:
    """The filter of an attribute that is one of `texts`, or begins with one that ends in `*`."""
    found: list[Filter] = [
        {"prefix": {name: text[:-1]}} if text.endswith("*") else {"exact": {name: text}} for text in texts
    ]
    return found[0] if len(found) == 1 else {"any": found}


def filters_of(one: TakenEvents) -> list[Filter]:
    """All that is asked of an event's attributes, as filters of the CloudEvents Subscriptions API."""
    named = (("type", one.types), ("source", one.sources), ("subject", one.subjects))
    return [*(matching(name, texts) for name, texts in named if texts), *one.filters]


def _some_fact(text: str) -> bool:
    if text.endswith("*"):
        return any(name.startswith(text[:-1]) for name in FACTS) and text != "*"
    return text in FACTS
