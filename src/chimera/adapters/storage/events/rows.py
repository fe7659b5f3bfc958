"""Rows of subscriptions and deliveries as values, and what every change of them records."""

from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import asdict
from sqlalchemy import Connection

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.reading import CHANGES
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.schema.catalogue import counter
from chimera.adapters.storage.schema.subscriptions import delivery
from chimera.events.delivery.model import EVERYWHERE, Letter, Row, Subscription, Target
from chimera.events.model import Fact, RecordedFact
from chimera.immune.audit.model import AuditRecord
from chimera.kernel.ids import new_id

PENDING, DEAD, DROPPED = "pending", "dead", "dropped"
PENDING_ROW = (
    *(delivery.c.seq, delivery.c.tenant, delivery.c.attempts, delivery.c.first, delivery.c.due),
    *(delivery.c.status, delivery.c.reason, delivery.c.target, delivery.c.event),
)

_ENCODER = msgspec.json.Encoder()
_FILTERS = msgspec.json.Decoder(list[dict[str, Any]])
_TARGET = msgspec.json.Decoder(Target)
_FACT = msgspec.json.Decoder(RecordedFact)


class Changes:
    """The number that grows with every change of a subscription by the API, or by the platform itself."""

    def __init__(self, database: Database) -> None:
        """Compile the statement."""
        first = database.insert(counter)
        counted = first.on_conflict_do_update(index_elements=["name"], set_={"value": counter.c.value + 1})
        self._count = database.prepared_insert(counter, counted)

    def count(self, connection: Connection) -> None:
        """One change more. Its row is locked until the commit, so these changes happen one after the other."""
        self._count.run(connection, name=CHANGES, value=1)


def subscription_row(one: Subscription) -> dict[str, Any]:
    """A subscription as a row."""
    return {**asdict(one), "filters": _ENCODER.encode(one.filters)}


def subscription_of(row: Any) -> Subscription:
    """A row as a subscription."""
    return Subscription(**{**row, "filters": _FILTERS.decode(row["filters"])})


def delivery_row(subscription: str, row: Row, keep: float) -> dict[str, Any]:
    """A delivery as a row; a dead letter is kept for `keep` seconds."""
    dead = row.letter is not None
    return {
        "subscription": subscription,
        "seq": row.seq,
        "tenant": row.tenant,
        "state": DEAD if dead else PENDING,
        "attempts": row.attempts,
        "first": row.first,
        "due": row.due,
        "status": row.status,
        "reason": row.reason,
        "target": None if row.target is None else _ENCODER.encode(row.target),
        "letter": row.letter,
        "died": row.died,
        "expires": row.died + keep if row.died is not None else None,
        "event": None if row.fact is None else _ENCODER.encode(row.fact),
    }


def deliveries_of(one: Subscription) -> Any:
    """The condition of a subscription's rows."""
    return (delivery.c.tenant == one.tenant) & (delivery.c.subscription == one.id)


def row_of(row: Any) -> Row:
    """A row of `PENDING_ROW` as a delivery."""
    return Row(
        seq=row.seq,
        tenant=row.tenant,
        attempts=row.attempts,
        first=row.first,
        due=row.due,
        status=row.status,
        reason=row.reason,
        target=target_of(row.target),
        fact=None if row.event is None else _FACT.decode(row.event),
    )


def target_of(data: bytes | None) -> Target | None:
    """A stored target."""
    return None if data is None else _TARGET.decode(data)


def encoded_target(target: Target) -> bytes:
    """A target to be stored."""
    return _ENCODER.encode(target)


def letter_of(row: Any, name: str) -> Letter:
    """A row of `delivery` as a dead letter of the subscription called `name`."""
    return Letter(
        letter=row.letter,
        tenant=row.tenant,
        subscription=name,
        seq=row.seq,
        attempts=row.attempts,
        first=row.first,
        died=row.died,
        status=row.status,
        reason=row.reason,
        expires=row.expires,
        target=target_of(row.target),
        fact=_FACT.decode(row.event),
    )


def origin(url: str) -> str:
    """A receiver's address without its path, which may hold a credential; that is all that is told of it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if url else ""


def tell(connection: Connection, what: str, one: Subscription, at: float, by: str) -> None:
    """The fact of a subscription's change, and its entry of the audit log."""
    data = {
        "subscription": one.id,
        "name": one.name,
        "receiver": origin(one.url),
        "state": one.state,
        "version": one.version,
    }
    if one.why:
        data["why"] = one.why
    subject = f"subscriptions/{one.name}"
    fact = Fact(id=new_id("evt"), type=what, tenant=one.tenant, subject=subject, at=at, data={**data, "by": by})
    journal(connection).fact(fact)
    note(connection, what, one.tenant, subject, at, by, data)


def note(
    connection: Connection, what: str, tenant: str, resource: str, at: float, by: str, detail: dict[str, Any]
) -> None:
    """An entry of the audit log."""
    held = "" if tenant == EVERYWHERE else tenant
    journal(connection).audit(
        AuditRecord(at=at, tenant=held, actor=by, action=what, resource=resource, outcome="done", detail=detail)
    )
