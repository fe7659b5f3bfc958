"""A change's rows and its value, and what is told of it."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, select

from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.schema.delivery import change as table
from chimera.adapters.storage.schema.delivery import change_approval, change_item, change_verdict
from chimera.delivery.model import (
    IN_FLIGHT,
    Approval,
    Change,
    ChangeItem,
    ChangeRow,
    Emergency,
    Origin,
    Reason,
    Told,
    Verdict,
    Wanted,
    review_of,
)
from chimera.events.catalogue import ChangeTold
from chimera.events.model import Fact
from chimera.immune.audit.model import AuditRecord
from chimera.kernel.ids import new_id

_COLUMNS = ("id", "tenant", "title", "author", "author_person", "repository", "commit", "content", "risk", "state")
_SHORT = 500


class _Rest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What of a change has no column."""

    since: float
    origin: Origin = "api"
    description: str = ""
    contributors: tuple[str, ...] = ()
    reason: str = ""
    next_step: str = ""
    risk_reasons: tuple[Reason, ...] = ()
    emergency: Emergency | None = None
    wanted: Wanted = "go"
    wanted_by: str = ""
    amended: str = ""


_REST = msgspec.json.Decoder(_Rest)
_REST_FIELDS = _Rest.__struct_fields__


def change_row(change: Change) -> dict[str, Any]:
    """The row of `change`."""
    rest = _Rest(**{name: getattr(change, name) for name in _REST_FIELDS})
    return {
        **{name: getattr(change, name) for name in _COLUMNS},
        "agents": len(change.items),
        "created": change.created,
        "updated": change.updated,
        "ended": None if change.state in IN_FLIGHT else change.since,
        "staged": int(change.staged),
        "version": change.version,
        "record": msgspec.json.encode(rest),
    }


def header_of(row: Any) -> Change:
    """A change by its row, without what stands in other tables."""
    rest = _REST.decode(row.record)
    return Change(
        **{name: getattr(row, name) for name in _COLUMNS},
        **{name: getattr(rest, name) for name in _REST_FIELDS},
        items=(),
        created=row.created,
        updated=row.updated,
        staged=bool(row.staged),
        version=row.version,
    )


def read_change(connection: Connection, tenant: str, id_: str, *, lock: bool = False) -> Change | None:
    """A change with all that belongs to it."""
    query = select(table).where((table.c.tenant == tenant) & (table.c.id == id_))
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        return None
    its = (change_item.c.tenant == tenant) & (change_item.c.change == id_)
    items = tuple(
        ChangeItem(**{name: getattr(one, name) for name in ChangeItem.__struct_fields__})
        for one in connection.execute(select(change_item).where(its).order_by(change_item.c.agent))
    )
    said = (change_verdict.c.tenant == tenant) & (change_verdict.c.change == id_)
    return msgspec.structs.replace(
        header_of(row),
        items=items,
        verdicts=read_verdicts(connection, said),
        approvals=_approvals(connection, tenant, id_),
    )


def read_verdicts(connection: Connection, where: ColumnElement[bool]) -> tuple[Verdict, ...]:
    """Verdicts in the order in which their checks gave them."""
    c = change_verdict.c
    return tuple(
        Verdict(
            stage=one.stage,
            check=one.check,
            outcome=one.outcome,
            agent=one.agent,
            detail=one.detail,
            next_step=one.next_step,
            evidence=msgspec.json.decode(one.evidence),
            at=one.at,
        )
        for one in connection.execute(select(change_verdict).where(where).order_by(c.stage, c.check, c.number))
    )


def _approvals(connection: Connection, tenant: str, id_: str) -> tuple[Approval, ...]:
    c = change_approval.c
    query = select(change_approval).where((c.tenant == tenant) & (c.change == id_)).order_by(c.number)
    return tuple(
        Approval(
            by=one.by,
            person=one.person,
            decision=one.decision,
            content=one.content,
            at=one.at,
            roles=tuple(one.roles.split()),
            comment=one.comment,
        )
        for one in connection.execute(query)
    )


def item_rows(change: Change) -> list[dict[str, Any]]:
    """The rows of a change's items."""
    named = {"tenant": change.tenant, "change": change.id}
    return [{**named, **{name: getattr(item, name) for name in ChangeItem.__struct_fields__}} for item in change.items]


def verdict_rows(change: Change, verdicts: Sequence[Verdict]) -> Iterable[dict[str, Any]]:
    """The rows of what one check says."""
    for number, one in enumerate(verdicts):
        yield {
            "tenant": change.tenant,
            "change": change.id,
            "stage": one.stage,
            "check": one.check,
            "number": number,
            "agent": one.agent,
            "outcome": one.outcome,
            "detail": one.detail,
            "next_step": one.next_step,
            "evidence": msgspec.json.encode(one.evidence),
            "at": one.at,
        }


def approval_row(change: Change, approval: Approval) -> dict[str, Any]:
    """The row of a change's newest approval."""
    return {
        "tenant": change.tenant,
        "change": change.id,
        "number": len(change.approvals),
        "by": approval.by,
        "person": approval.person,
        "decision": approval.decision,
        "content": approval.content,
        "at": approval.at,
        "roles": " ".join(approval.roles),
        "comment": approval.comment,
    }


def listed(row: Any, now: float) -> ChangeRow:
    """A row as lists show it."""
    rest = _REST.decode(row.record)
    return ChangeRow(
        **{name: getattr(row, name) for name in ChangeRow.__struct_fields__ if name in row._mapping},
        reason=rest.reason,
        next_step=rest.next_step,
        review=review_of(rest.emergency, now),
    )


def tell(connection: Connection, change: Change, told: Told) -> None:
    """The fact of a change of a change request, and its entry of the audit log."""
    resource = f"changes/{change.id}"
    data = ChangeTold(
        change=change.id,
        state=change.state,
        risk=change.risk,
        content=change.content,
        agents=len(change.items),
        by=told.by,
        commit=change.commit,
    )
    detail = {
        name: value[:_SHORT] if isinstance(value, str) else value
        for name, value in {"content": change.content, "state": change.state, **told.detail}.items()
    }
    record = journal(connection)
    at = change.updated
    record.fact(Fact(id=new_id("evt"), type=told.fact, tenant=change.tenant, subject=resource, at=at, data=data))
    record.audit(
        AuditRecord(
            at=at,
            tenant=change.tenant,
            actor=told.by,
            action=told.fact,
            resource=resource,
            outcome="done",
            detail=detail,
        )
    )
