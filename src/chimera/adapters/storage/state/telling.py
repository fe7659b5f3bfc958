"""How a change of state is told: its fact and, for what a person does, its entry of the audit log, in one transaction.

Neither holds anything of what was said or stored.
"""

from typing import Any

from sqlalchemy import Connection

from chimera.adapters.storage.journal import journal
from chimera.events.model import Causes, Fact
from chimera.immune.audit.model import AuditRecord
from chimera.kernel.ids import new_id


def tell(
    connection: Connection, what: str, tenant: str, subject: str, at: float, data: dict[str, Any], *, hops: int = 0
) -> None:
    """Record the fact `what` about `subject`; `hops` is how many agents events have started down to it."""
    causes = Causes(hops=hops) if hops else None
    fact = Fact(id=new_id("evt"), type=what, tenant=tenant, subject=subject, at=at, data=data, causes=causes)
    journal(connection).fact(fact)


def note(connection: Connection, what: str, tenant: str, resource: str, at: float, by: str, **detail: Any) -> None:
    """Record an entry of the audit log: `by` has done `what` to `resource`."""
    entry = AuditRecord(at=at, tenant=tenant, actor=by, action=what, resource=resource, outcome="done", detail=detail)
    journal(connection).audit(entry)


def session_subject(agent: str, session: str) -> str:
    """How facts name a session."""
    return f"agents/{agent}/sessions/{session}"
