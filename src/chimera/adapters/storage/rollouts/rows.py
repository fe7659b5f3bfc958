"""A rollout's rows and its values, what is told of it, and its end."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, select

from chimera.adapters.storage.changes.contents import forget_revisions
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.removing import delete_keys
from chimera.adapters.storage.schema.rollouts import rollout as table
from chimera.adapters.storage.schema.rollouts import rollout_member
from chimera.delivery.rollout.model import Member, Policy, Rollout, Summary
from chimera.delivery.rollout.sequential import Evidence, Objective
from chimera.events.catalogue import RolloutTold
from chimera.events.model import Fact
from chimera.immune.audit.model import AuditRecord
from chimera.kernel.ids import new_id

PEOPLES = ("wanted", "asked_by", "asked")
"""Columns that people write, and the leader doesn't."""
_APART = ("policy",)
_ROLLOUT = tuple(name for name in Rollout.__struct_fields__ if name not in _APART)
_MEMBER = tuple(name for name in Member.__struct_fields__ if name not in ("objective", "evidence", "doubted"))
_NAMED = 100
_SHORT = 500
_POLICY = msgspec.json.Decoder(Policy)
_EVIDENCE = msgspec.json.Decoder(Evidence)
_OBJECTIVE = msgspec.json.Decoder(Objective)
_COUNTS = msgspec.json.Decoder(dict[str, int])


def rollout_row(summary: Summary) -> dict[str, Any]:
    """The row of a rollout."""
    one = summary.rollout
    return {
        **{name: getattr(one, name) for name in _ROLLOUT},
        "policy": msgspec.json.encode(one.policy),
        "phases": msgspec.json.encode(summary.phases),
        "strengths": msgspec.json.encode(summary.strengths),
    }


def read_summary(row: Any) -> Summary:
    """A rollout with its counts, of its row."""
    fields = {name: getattr(row, name) for name in _ROLLOUT}
    return Summary(
        rollout=Rollout(policy=_POLICY.decode(row.policy), **fields),
        phases=_COUNTS.decode(row.phases),
        strengths=_COUNTS.decode(row.strengths),
    )


def member_row(rollout: Rollout, place: int, member: Member) -> dict[str, Any]:
    """The row of a member."""
    return {
        "tenant": rollout.tenant,
        "rollout": rollout.id,
        "place": place,
        **{name: getattr(member, name) for name in _MEMBER},
        "doubted": int(member.doubted),
        "objective": msgspec.json.encode(member.objective),
        "evidence": msgspec.json.encode(member.evidence),
    }


def read_member(row: Any) -> Member:
    """A member of its row."""
    return Member(
        **{name: getattr(row, name) for name in _MEMBER},
        doubted=bool(row.doubted),
        objective=_OBJECTIVE.decode(row.objective),
        evidence=_EVIDENCE.decode(row.evidence),
    )


def tell(
    connection: Connection, summary: Summary, event: str, *, by: str, at: float, lost: Sequence[Member] = ()
) -> None:
    """The fact of what became of a rollout, and its entry of the audit log."""
    one = summary.rollout
    resource = f"rollouts/{one.id}"
    named = tuple(member.agent for member in lost[:_NAMED])
    reason = (lost[0].reason if lost else one.reason)[:_SHORT]
    data = RolloutTold(
        rollout=one.id,
        state=one.state,
        agents=one.agents,
        moved=summary.moved,
        wave=one.wave + 1,
        waves=one.waves,
        by=by,
        change=one.change,
        reason=reason,
        taken_back=named,
    )
    book = journal(connection)
    book.fact(Fact(id=new_id("evt"), type=f"rollout.{event}", tenant=one.tenant, subject=resource, at=at, data=data))
    detail: dict[str, Any] = {"state": one.state, "agents": one.agents, "moved": summary.moved, "reason": reason}
    if one.change is not None:
        detail["change"] = one.change
    if named:
        detail["taken_back"] = list(named)
    book.audit(
        AuditRecord(
            at=at,
            tenant=one.tenant,
            actor=by,
            action=f"rollout.{event}",
            resource=resource,
            outcome="ok",
            detail=detail,
        )
    )


def of_open_rollouts() -> Select[Any]:
    """Tenants and revisions that rollouts which aren't over name."""
    both = (table.c.tenant == rollout_member.c.tenant) & (table.c.id == rollout_member.c.rollout)
    query = select(rollout_member.c.tenant, rollout_member.c.revision).select_from(rollout_member.join(table, both))
    return query.where(table.c.ended.is_(None) & rollout_member.c.revision.is_not(None))


def expire_rollouts(connection: Connection, before: float, limit: int) -> int:
    """Remove rollouts that ended by `before` with their members, `limit` at most; how many."""
    query = select(table.c.tenant, table.c.id).where(table.c.ended <= before).order_by(table.c.ended).limit(limit)
    found = [tuple(row) for row in connection.execute(query.with_for_update(skip_locked=True)).all()]
    m = rollout_member.c
    for tenant, id_ in found:
        its = (m.tenant == tenant) & (m.rollout == id_) & m.revision.is_not(None)
        digests = connection.execute(select(m.revision).where(its)).scalars().all()
        delete_keys(connection, (table.c.tenant, table.c.id), [(tenant, id_)])
        forget_revisions(connection, tenant, [str(digest) for digest in digests])
    return len(found)
