"""Subscriptions and deliveries, as values. Times are seconds since the epoch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec import Struct

from chimera.events.model import RecordedFact

Result = Literal["delivered", "gone", "failed", "refused"]
Mode = Literal["structured", "binary"]
State = Literal["active", "paused"]
Why = Literal["", "asked", "gone", "letters"]
"""Why a subscription is paused: somebody asked for it, its receiver answered 410, or it has too many dead letters."""
Kind = Literal["http", "tasks", "bus"]
"""`tasks` and `bus` are the platform's own subscriptions of a tenant: by one webhooks of tasks are delivered, by the
other events go to agents that they start."""

EVERYWHERE = "*"
"""The tenant of a subscription to the events of all tenants."""
TASKS: Literal["tasks"] = "tasks"
BUS: Literal["bus"] = "bus"
OWN: tuple[Kind, ...] = (TASKS, BUS)
"""The kinds that nobody subscribed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a request to a receiver.

    `delivered`: the receiver has it (2xx). `gone`: it wants no more (410). `failed`: another attempt may help, after
    `retry_after` seconds if the receiver said so. `refused`: the address may not be called. `reason` is a sentence that
    holds nothing of what the receiver answered but its status, and nothing of the address.
    """

    result: Result
    status: int | None = None
    reason: str = ""
    retry_after: float | None = None


class Subscription(Struct, frozen=True, kw_only=True):
    """A subscription as stored.

    `secret` is a reference to the secret that signs, or empty: then it is derived from the platform's key of the id
    `key`, and `generation` counts its rotations; the secret before goes on until `previous_until`. `cursor` is the
    place up to which everything was delivered or has a row of its own. `version` counts changes, `epoch` those that
    move the cursor. `delivered` and `failed` say when that last happened, `failure` why.
    """

    id: str
    tenant: str
    name: str
    url: str
    key: str
    cursor: int
    created: float
    created_by: str
    updated: float
    kind: Kind = "http"
    filters: list[dict[str, Any]] = []
    mode: Mode = "structured"
    state: State = "active"
    why: Why = ""
    paused: float | None = None
    secret: str = ""
    generation: int = 1
    previous_until: float | None = None
    version: int = 1
    epoch: int = 1
    delivered: float | None = None
    failed: float | None = None
    failure: str | None = None


class Target(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a task wants its states told: `states` are names of facts without `task.`; the rest as above."""

    url: str
    key: str
    states: tuple[str, ...]
    secret: str = ""


class Row(Struct, frozen=True, kw_only=True):
    """A delivery that has failed, or waits behind one that has.

    `letter` is set once it is given up: then it is a dead letter, and `fact` is what it holds. `first` is when it was
    first tried.
    """

    seq: int
    tenant: str
    attempts: int = 0
    first: float | None = None
    due: float | None = None
    status: int | None = None
    reason: str | None = None
    target: Target | None = None
    letter: str | None = None
    died: float | None = None
    fact: RecordedFact | None = None


class Letter(Struct, frozen=True, kw_only=True):
    """A dead letter as a person sees it; `subscription` is the name, `tasks` for a task's webhook."""

    letter: str
    tenant: str
    subscription: str
    seq: int
    attempts: int
    died: float
    fact: RecordedFact
    first: float | None = None
    status: int | None = None
    reason: str | None = None
    expires: float | None = None
    target: Target | None = None


class Counts(Struct, frozen=True, kw_only=True):
    """How a subscription stands: deliveries that wait or are tried again, and dead letters."""

    pending: int = 0
    letters: int = 0


@dataclass(kw_only=True, slots=True)
class Progress:
    """What of one subscription is written down in one transaction.

    `put` and `drop` are rows made or changed, and rows that are no longer needed. `tasks` are tasks (tenant, name)
    whose webhooks have had their last fact. `pause` pauses the subscription for this reason.
    """

    subscription: str
    epoch: int
    cursor: int
    put: Sequence[Row] = ()
    drop: Sequence[int] = ()
    tasks: Sequence[tuple[str, str]] = ()
    delivered: float | None = None
    failed: float | None = None
    failure: str | None = None
    pause: Why = ""
    marks: dict[int, int] = field(default_factory=dict)


class Kept(Struct, frozen=True, kw_only=True):
    """What is stored of a subscription's deliveries: rows to go on with, and places behind its cursor that are over."""

    rows: list[Row]
    over: frozenset[int] = frozenset()
