"""What a machine's own cells show of trouble: the node agent's view as evidence, in the words that both homes have."""

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from chimera.platform import fleet
from chimera.platform.blame import Incident
from chimera.platform.conditions import RECENT, Evidence, Seen, cell_subject
from chimera.platform.errors import HostStartFailed
from chimera.platform.reasons import Reason

TOO_LARGE = re.compile(r"uses \d+ MiB of \d+ MiB|out of memory")
"""How the watchdog, the node agent and the kernel's signal say that a host took too much memory."""


class CellView(Struct, frozen=True, kw_only=True):
    """A cell as the rule sees it. `starting` counts hosts that are on their way, `again_at` is when the next try is."""

    cell: str
    tenant: str
    ready: int
    starting: int
    failures: int
    last_failure: float
    error: HostStartFailed | None = None


def seen(view: CellView, incidents: Iterable[Incident], now: float) -> Seen:
    """What there is to see of a cell; `now` and the times in it are of one clock."""
    evidence = []
    tries = view.starting > 0 or now < view.last_failure + fleet.retry_delay(view.failures)
    if view.error is not None and view.failures and not view.ready and tries:
        evidence.append(
            Evidence(reason=Reason(view.error.reason), message=view.error.detail, next_step=view.error.next_step or "")
        )
    for one in incidents:
        if one.cell == view.cell and now - one.at < RECENT:
            evidence.append(of_incident(one))
    return Seen(
        subject=cell_subject(view.cell), tenant=view.tenant, ready_hosts=view.ready, evidence=_newest_of_each(evidence)
    )


def of_incident(incident: Incident) -> Evidence:
    """A host's end as evidence."""
    reason = Reason.HOST_OUT_OF_MEMORY if TOO_LARGE.search(incident.cause) else Reason.HOST_DIED
    by = f"; agent {incident.culprit}" if incident.culprit else ""
    return Evidence(reason=reason, message=f"host {incident.host}: {incident.cause}{by}")


def _newest_of_each(evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    return tuple({one.reason: one for one in evidence}.values())
