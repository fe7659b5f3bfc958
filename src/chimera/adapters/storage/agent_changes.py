"""How a change of an agent is written down: its row of the history, its fact, its entry of the audit log."""

from typing import Any

from sqlalchemy import Connection, select

from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.schema.journal import journal_head
from chimera.agents.catalogue import Applied
from chimera.events.model import Fact
from chimera.immune.audit.model import AuditRecord
from chimera.kernel.ids import new_id

SYSTEM = "system:control-plane"


def history_row(
    tenant: str, name: str, sequence: int, digest: str | None, now: float, by: str | None, change: str | None = None
) -> dict[str, Any]:
    """A row of the history: `digest` is live from then on; None: the agent was taken out of service."""
    row = {"tenant": tenant, "agent": name, "sequence": sequence, "revision": digest, "at": now, "by": by}
    return {**row, "change": change}


def tell_agent(
    connection: Connection,
    what: str,
    tenant: str,
    name: str,
    at: float,
    by: str | None,
    detail: dict[str, Any],
    sequence: int,
) -> None:
    """The fact of a change of an agent, and its entry of the audit log."""
    actor, resource = by or SYSTEM, f"agents/{name}"
    data = {"agent": name, **detail, "sequence": sequence, "by": actor}
    fact = Fact(id=new_id("evt"), type=what, tenant=tenant, subject=resource, at=at, data=data)
    entry = AuditRecord(
        at=at, tenant=tenant, actor=actor, action=what, resource=resource, outcome="done", detail=detail
    )
    record = journal(connection)
    record.fact(fact)
    record.audit(entry)


def tell_batch(connection: Connection, tenant: str, batch_id: str, at: float, by: str | None, done: Applied) -> None:
    """The fact that a batch is live as a whole; it stands behind the facts of its agents."""
    data = {
        "batch": batch_id,
        "created": done.created,
        "updated": done.updated,
        "unchanged": done.unchanged,
        "refused": done.refused,
        "sequence": done.sequence,
        "by": by or SYSTEM,
    }
    subject = f"batches/{batch_id}"
    fact = Fact(id=new_id("evt"), type="batch.committed", tenant=tenant, subject=subject, at=at, data=data)
    journal(connection).fact(fact)


def last_event(connection: Connection) -> int:
    """The journal's last place: what is told of this transaction, and after it, stands behind it."""
    return int(connection.execute(select(journal_head.c.event_seq)).scalar_one())
