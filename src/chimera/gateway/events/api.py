"""The bodies of the operations on events, subscriptions and dead letters. Times are seconds since the epoch."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from chimera.events.catalogue import FACTS, schema_of
from chimera.events.cloudevents import TYPE_PREFIX, CloudEvent, event_of
from chimera.events.delivery.model import Counts, Letter, Mode, State, Subscription, Why
from chimera.gateway.eventing.happening import MOST_TEXT
from chimera.gateway.eventing.ports import AgentLetter

MOST_LETTERS = 1_000
LetterId = Annotated[str, Meta(pattern="^dl_[0-9a-z]{1,37}$")]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Url = Annotated[str, Meta(min_length=1, max_length=2_048)]
Text = Annotated[str, Meta(min_length=1, max_length=512)]
Attribute = Annotated[str, Meta(max_length=MOST_TEXT)]
Needed = Annotated[str, Meta(min_length=1, max_length=MOST_TEXT)]
Texts = Annotated[tuple[Text, ...], Meta(max_length=50)]
Filters = Annotated[list[dict[str, Any]], Meta(max_length=50)]
Place = Annotated[int, Meta(ge=0, le=9_223_372_036_854_775_807)]
Start = Place | Literal["now", "beginning"]
Reference = Annotated[str, Meta(max_length=160)]
Overlap = Annotated[float, Meta(ge=0, le=31_536_000)]


class SubscriptionBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A subscription to be made.

    `types` and `subjects` are what an event's type and subject may begin with; `filters` are filters of the CloudEvents
    Subscriptions API. An event must pass all three. `from` is where it begins: "now", "beginning" (all that is kept),
    or a place, behind which it begins. `secret` refers to a secret; without it one is made.
    """

    name: Name
    url: Url
    types: Texts = ()
    subjects: Texts = ()
    filters: Filters = []
    mode: Mode = "structured"
    start: Start = msgspec.field(default="now", name="from")
    secret: Reference = ""


class SubscriptionPatch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of a subscription changes. `types`, `subjects` and `filters` replace all filters that it had."""

    url: Url | None = None
    types: Texts | None = None
    subjects: Texts | None = None
    filters: Filters | None = None
    mode: Mode | None = None
    secret: Reference | None = None


class ResumeBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a subscription goes on: where it was, or `from` a place, "now" or the "beginning" of what is kept."""

    start: Start | None = msgspec.field(default=None, name="from")


class RotateBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the old secret goes on signing, in seconds; without it as `events.secret_overlap` says."""

    overlap: Overlap | None = None


class SubscriptionAnswer(Struct, frozen=True, kw_only=True):
    """A subscription.

    `why` says why it is paused: `asked`, `gone` (its receiver answered 410) or `letters` (too many dead letters).
    `position` is the place up to which all was delivered or waits apart, `behind` how many events of the platform came
    since; `pending` are deliveries that are tried again or wait for one that is. `served` says whether gateways with
    this gateway's key deliver it; `key` is that key's id.
    """

    id: str
    tenant: str
    name: str
    url: str
    filters: list[dict[str, Any]]
    mode: Mode
    state: State
    why: Why
    secret: str
    key: str
    served: bool
    position: int
    behind: int
    pending: int
    dead_letters: int
    created: float
    created_by: str
    updated: float
    previous_until: float | None
    delivered: float | None
    failed: float | None
    failure: str | None


class NewSubscription(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A subscription with its secret, which is shown this once; none where it is referred to."""

    subscription: SubscriptionAnswer
    secret: str | None = None


class SubscriptionPage(Struct, frozen=True, kw_only=True):
    """Subscriptions by name; `next` is the `after` of the next page."""

    subscriptions: list[SubscriptionAnswer]
    next: str | None = None


class LetterAnswer(Struct, frozen=True, kw_only=True):
    """A dead letter: an event that a receiver did not take, with why. Its `subscription` is `tasks` for a task's.

    An `agent`'s is an event that its subscription wanted; `task` is the task that ended badly, where there was one. It
    has no `position`, since anybody may have told the event. `event` is the CloudEvent.
    """

    letter: str
    subscription: str
    position: int | None
    attempts: int
    first: float | None
    died: float
    expires: float | None
    status: int | None
    reason: str | None
    event: dict[str, Any]
    agent: str | None = None
    task: str | None = None


class LetterPage(Struct, frozen=True, kw_only=True):
    """Dead letters by their ids, which are in the order of their deaths; `next` is the `after` of the next page."""

    dead_letters: list[LetterAnswer]
    next: str | None = None


class LettersBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Dead letters by their ids, or the oldest of a subscription, or of an agent (at most 1,000)."""

    dead_letters: Annotated[tuple[LetterId, ...], Meta(min_length=1, max_length=MOST_LETTERS)] | None = None
    subscription: Name | None = None
    agent: Name | None = None


class Settled(Struct, frozen=True, kw_only=True):
    """How many dead letters were replayed or dropped, and whether the subscription has more."""

    dead_letters: int
    more: bool = False


class EventBody(Struct, frozen=True, kw_only=True):
    """A CloudEvent 1.0 in its JSON form, with any extension attributes beside these. `id` and `source` name it."""

    specversion: Literal["1.0"]
    id: Needed
    source: Needed
    type: Needed
    subject: Attribute | None = None
    time: Attribute | None = None
    datacontenttype: Attribute | None = None
    dataschema: Attribute | None = None
    data: Any = None


class Published(Struct, frozen=True, kw_only=True):
    """How many agents the event starts: their tasks are accepted."""

    started: int


class EventPage(Struct, frozen=True, kw_only=True):
    """Events in their order. The next page, or a stream, goes on `after` the place `next`; `more`: there is more."""

    events: list[CloudEvent]
    next: int
    more: bool


class FactTypeAnswer(Struct, frozen=True, kw_only=True):
    """A type of event: the form of its subject, what it means, the JSON Schema of its data."""

    type: str
    subject: str
    meaning: str
    schema: dict[str, Any]


class FactTypes(Struct, frozen=True, kw_only=True):
    """Every type of event."""

    types: list[FactTypeAnswer]


def subscription_answer(one: Subscription, counts: Counts, *, last: int, key: str) -> SubscriptionAnswer:
    """A subscription as it is shown by a gateway whose key is `key`, where the journal's last place is `last`."""
    named = SubscriptionAnswer.__struct_fields__
    shown = {name: getattr(one, name) for name in named if hasattr(one, name)}
    return SubscriptionAnswer(
        **shown,
        served=one.key == key,
        position=one.cursor,
        behind=max(0, last - one.cursor),
        pending=counts.pending,
        dead_letters=counts.letters,
    )


def letter_answer(letter: Letter, source: str) -> LetterAnswer:
    """A dead letter as it is shown."""
    return LetterAnswer(
        letter=letter.letter,
        subscription=letter.subscription,
        position=letter.seq,
        attempts=letter.attempts,
        first=letter.first,
        died=letter.died,
        expires=letter.expires,
        status=letter.status,
        reason=letter.reason,
        event=msgspec.json.decode(msgspec.json.encode(event_of(letter.fact, source))),
    )


def agent_letter_answer(letter: AgentLetter) -> LetterAnswer:
    """A dead letter of an agent as it is shown."""
    return LetterAnswer(
        letter=letter.letter,
        subscription=letter.subscription,
        position=None,
        attempts=letter.attempts,
        first=letter.first,
        died=letter.died,
        expires=letter.expires,
        status=None,
        reason=letter.reason,
        event=letter.event,
        agent=letter.agent or None,
        task=letter.task,
    )


def fact_types() -> FactTypes:
    """Every type of event, from the catalogue of facts."""
    return FactTypes(
        types=[
            FactTypeAnswer(type=TYPE_PREFIX + one.name, subject=one.subject, meaning=one.doc, schema=schema_of(one))
            for one in FACTS.values()
        ]
    )
