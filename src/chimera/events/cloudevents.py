"""Facts as CloudEvents 1.0.2: the envelope, and its three forms in HTTP.

    structured   the whole event as JSON (application/cloudevents+json); a signature covers all of it
    binary       the data as body, the attributes as headers `ce-…`
    batched      several events as a JSON array (application/cloudevents-batch+json)

Choices that the specification leaves open. `type` is the fact's name behind `chimera.`; the specification recommends
a reversed domain name, which a program that others run under their own domains doesn't have. `source` is the tenant's
path in the API, behind what the caller puts before it; with `id` it is the same for every delivery of an event,
and no other event's. `subject` is the path below the tenant of what the event is about. `sequence` (an extension of the
specification's own list) is the event's place among all of the platform, as twenty digits, so that texts sort as the
numbers do. `traceparent` is there where the call is known that led to it. `chimerahops` (ours) counts the agents that
events have started down to this one; `correlationid` and `causationid` are the specification's own extensions, and
`replyto` (ours) names the agent that hears a message's reply.

The envelope is small and stands here; the package `cloudevents` is the oracle of its tests.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec
from msgspec import Struct

from chimera.events.model import Causes, RecordedFact

SPEC_VERSION = "1.0"
TYPE_PREFIX = "chimera."
STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
JSON = "application/json"

_UNQUOTED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


class CloudEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event as it is sent; attributes by their names in the specification."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: str
    datacontenttype: str
    dataschema: str
    sequence: str
    tenant: str
    data: msgspec.Raw
    traceparent: str | None = None
    chimerahops: int = 0
    correlationid: str | None = None
    causationid: str | None = None
    replyto: str | None = None


def event_of(fact: RecordedFact, source: str = "") -> CloudEvent:
    """The event of a fact; `source` is what stands before the tenant's path."""
    causes = fact.causes or _NONE
    return CloudEvent(
        specversion=SPEC_VERSION,
        id=fact.id,
        source=f"{source}/v1/tenants/{quote(fact.tenant, safe='*')}",
        type=TYPE_PREFIX + fact.type,
        subject=fact.subject,
        time=time_of(fact.at),
        datacontenttype=JSON,
        dataschema=schema_name(fact.type),
        sequence=f"{fact.seq:020d}",
        tenant=fact.tenant,
        data=fact.data,
        traceparent=fact.traceparent,
        chimerahops=causes.hops,
        correlationid=causes.correlation,
        causationid=causes.causation,
        replyto=causes.reply_to,
    )


def attributes(event: CloudEvent) -> dict[str, str]:
    """The context attributes that the event has, by name."""
    named = ((name, getattr(event, name)) for name in CloudEvent.__struct_fields__ if name != "data")
    return {name: str(value) for name, value in named if value is not None and value != 0}


def structured(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Headers and body of the structured form."""
    return {"Content-Type": f"{STRUCTURED}; charset=utf-8"}, _ENCODER.encode(event)


def binary(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Headers and body of the binary form."""
    headers = {"Content-Type": JSON}
    for name, value in attributes(event).items():
        if name != "datacontenttype":
            headers[f"ce-{name}"] = header_value(value)
    return headers, bytes(event.data)


def batched(events: Sequence[CloudEvent]) -> tuple[dict[str, str], bytes]:
    """Headers and body of the batched form."""
    return {"Content-Type": f"{BATCHED}; charset=utf-8"}, _ENCODER.encode(events)


def header_value(text: str) -> str:
    """An attribute as a header's value: percent-encoded as the HTTP binding says (3.1.3.2)."""
    return quote(text, safe=_UNQUOTED)


def schema_name(type_: str) -> str:
    """The URI that names the schema of a type's data (`chimera.events.catalogue.schema_of`)."""
    return f"urn:chimera:fact:{type_}:1"


def time_of(at: float) -> str:
    """Seconds since the epoch as RFC 3339, to the microsecond."""
    return datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


_NONE = Causes()
_ENCODER = msgspec.json.Encoder()
