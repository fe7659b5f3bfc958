"""The operations on events, subscriptions and dead letters, as data; `operations.py` publishes them with the others.

A tenant in the path may be `*`: the events of all tenants, for principals of the whole platform.
"""

from typing import Any

from chimera.entrypoints.published.operation import TENANT, Operation
from chimera.entrypoints.published.parameters import DEFAULT_PAGE, LARGEST_PAGE, page, whole
from chimera.events.cloudevents import STRUCTURED
from chimera.gateway.events import api

SUBSCRIPTION = TENANT + "/subscriptions/{subscription}"
LETTERS = TENANT + "/dead-letters"
HEADER_RESUME = "Last-Event-ID"

_PAGE = page("entries")
_NARROW = (
    ("type", "string", "only events whose type begins with this (`task.`); several by commas"),
    (
        "subject",
        "string",
        "only events whose subject begins with this (`agents/anna`); several by commas",
    ),
    ("filters", "string", "only events that pass these filters of the CloudEvents Subscriptions API, as a JSON array"),
)


def _operation(
    method: str, path: str, name: str, summary: str, action: str, answer: Any = None, **more: Any
) -> Operation:
    return Operation(
        method=method, path=path, name=name, summary=summary, tag="events", action=action, answer=answer, **more
    )


EVENTS = (
    _operation(
        *("GET", TENANT + "/events", "list_events"),
        *("Events in pages or, where `text/event-stream` is accepted, as a stream of server-sent events", "event:read"),
        api.EventPage,
        streams=True,
        query=(
            ("after", whole(0), "the place behind which to begin; a stream without it begins with what comes now"),
            ("last", whole(1, LARGEST_PAGE), "instead of `after`: the newest events, so many at most; no stream"),
            ("limit", whole(1, LARGEST_PAGE, DEFAULT_PAGE), "most events in the page"),
            *_NARROW,
        ),
        headers=((HEADER_RESUME, whole(0), "the id of the last event seen: the stream goes on behind it"),),
    ),
    _operation(
        *("POST", TENANT + "/events", "publish_event", "Send a CloudEvent; agents that subscribed to it are started"),
        *("event:publish", api.Published),
        body=api.EventBody,
        takes=STRUCTURED,
        status=202,
    ),
    _operation(
        *("GET", "/v1/event-types", "event_types", "Every type of event, with the JSON Schema of its data", "api:read"),
        api.FactTypes,
        resource="own",
    ),
    _operation(
        *("GET", TENANT + "/subscriptions", "list_subscriptions", "Subscriptions by name, in pages"),
        *("subscription:read", api.SubscriptionPage),
        query=_PAGE,
    ),
    _operation(
        *("POST", TENANT + "/subscriptions", "create_subscription"),
        *("Subscribe a receiver to events; its secret is shown this once", "subscription:write", api.NewSubscription),
        body=api.SubscriptionBody,
        status=201,
    ),
    _operation(
        *("GET", SUBSCRIPTION, "get_subscription", "A subscription, and how far it is", "subscription:read"),
        api.SubscriptionAnswer,
    ),
    _operation(
        *("PATCH", SUBSCRIPTION, "change_subscription", "Change a subscription's address, filters, form or secret"),
        *("subscription:write", api.SubscriptionAnswer),
        body=api.SubscriptionPatch,
    ),
    _operation(
        *("DELETE", SUBSCRIPTION, "delete_subscription", "Delete a subscription with its dead letters"),
        "subscription:write",
        status=204,
    ),
    _operation(
        *("POST", SUBSCRIPTION + "/pause", "pause_subscription", "Deliver nothing to a subscription for now"),
        *("subscription:write", api.SubscriptionAnswer),
    ),
    _operation(
        *("POST", SUBSCRIPTION + "/resume", "resume_subscription", "Go on, where it was or from another place"),
        *("subscription:write", api.SubscriptionAnswer),
        body=api.ResumeBody,
        body_required=False,
    ),
    _operation(
        *("POST", SUBSCRIPTION + "/rotate", "rotate_subscription"),
        *("Give a subscription a new secret; the old one signs for a while, too", "subscription:write"),
        api.NewSubscription,
        body=api.RotateBody,
        body_required=False,
    ),
    _operation(
        *("GET", LETTERS, "list_dead_letters", "Events that receivers and agents did not take, oldest first"),
        *("subscription:read", api.LetterPage),
        query=(
            ("subscription", "string", "only those of this subscription; `tasks` for tasks' webhooks"),
            ("agent", "string", "only those of this agent, or of its `subscription`"),
            *_PAGE,
        ),
    ),
    _operation(
        *("GET", LETTERS + "/{letter}", "get_dead_letter", "A dead letter with its event", "subscription:read"),
        api.LetterAnswer,
    ),
    _operation(
        *("POST", LETTERS + "/replay", "replay_dead_letters", "Have dead letters delivered again"),
        *("subscription:write", api.Settled),
        body=api.LettersBody,
    ),
    _operation(
        *("POST", LETTERS + "/drop", "drop_dead_letters", "Remove dead letters for good"),
        *("subscription:write", api.Settled),
        body=api.LettersBody,
    ),
)
