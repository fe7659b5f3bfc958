"""A fact: something that has happened, as it is recorded in the transaction that made it true."""

from typing import Any

import msgspec
from msgspec import Struct


class Causes(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What led to a fact, as far as events did.

    `hops` counts the agents that events have started, one by what the other did, down to this. `correlation` names the
    conversation that a message belongs to, `causation` the event that it answers, `reply_to` the agent that hears its
    reply.
    """

    hops: int = 0
    correlation: str | None = None
    causation: str | None = None
    reply_to: str | None = None


class Fact(Struct, frozen=True, kw_only=True):
    """One fact before it has its place in the order of all facts (`seq`, given when its transaction commits).

    `type` is the fact's name in the catalogue of facts (`session.updated`), `subject` what it happened to
    (`agents/anna/sessions/s1`): facts of one subject are delivered in their order. `data` is what the type says it is:
    a struct or a mapping that JSON can hold. `at` is in seconds since the epoch.
    """

    id: str
    type: str
    tenant: str
    subject: str
    at: float
    data: Struct | dict[str, Any]
    traceparent: str | None = None
    causes: Causes | None = None


class RecordedFact(Struct, frozen=True, kw_only=True):
    """A fact in its place: `seq` counts all facts of the platform without a gap, in the order of their commits.

    `data` is JSON as it was recorded; whoever only passes a fact on does not decode it.
    """

    seq: int
    id: str
    type: str
    tenant: str
    subject: str
    at: float
    data: msgspec.Raw
    traceparent: str | None = None
    causes: Causes | None = None
