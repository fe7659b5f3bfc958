"""How the gateway writes the audit log: decisions before the answer, outcomes in batches, one transaction at a time.

While one batch is being committed the next one gathers, so the log costs one flush of the disk for all entries of that
time, however many calls there are; and a call that waits for its decision to be durable waits while its agent works
anyway.

    decided   of a call that goes on; the answer waits for `durable`
    refused   the answer waits
    outcome   nobody waits: written with the next batch, at the latest `flush` seconds later

A decision without an outcome means that the gateway ended in between: what came of it is unknown.

When the log can't be written (a full disk, a database that is away), refusals are answered all the same, and nobody
waits for it any more once that is known. Calls go on too, unless the setting `audit.strict` says that nothing may
happen unrecorded. Entries wait in memory, up to a bound, and are written when it can be done; what was beyond the
bound is counted, and an entry says how many are missing.
"""

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import Any

from chimera.gateway.identity.errors import Refused
from chimera.gateway.identity.principal import ALL_TENANTS, Principal
from chimera.gateway.metrics import GatewayMetrics
from chimera.gateway.policy.model import Resource
from chimera.gateway.ports import Audit
from chimera.immune.audit.errors import AuditUnavailable
from chimera.immune.audit.model import AuditRecord, Decision
from chimera.immune.audit.settings import AuditSettings
from chimera.kernel.clock import Clock
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

MOST_WAITING = 100_000
"""Entries that wait in memory while the log can't be written: about 50 MB."""
BATCH = 5_000
MOST_REASONS = 8
RETRY = 1.0
PATIENCE = 2.0
"""Seconds that an answer waits for the log before it goes on without, or is refused."""


_PLURALS = {
    "Session": "sessions",
    "Space": "spaces",
    "Task": "tasks",
    "Subscription": "subscriptions",
    "Key": "keys",
    "Grant": "roles",
    "Policy": "policies",
}


def subject_of(resource: Resource) -> str:
    """What a decision was about, named as facts and changes name it: `agents/anna/sessions/s1`."""
    if resource.kind in ("Platform", "Tenant"):
        return resource.kind.lower() if not resource.name else f"{resource.kind.lower()}s/{resource.name}"
    parts = [] if resource.agent is None else [f"agents/{resource.agent}"]
    if resource.name:
        parts.append(f"{_PLURALS.get(resource.kind, resource.kind.lower())}/{resource.name}")
    return "/".join(parts)


def decision_record(
    principal: Principal,
    action: str,
    resource: Resource,
    *,
    at: float,
    decision: Decision,
    outcome: str,
    request: str = "",
    detail: dict[str, Any] | None = None,
) -> AuditRecord:
    """The entry of a decision about `principal`, and what came of it."""
    return AuditRecord(
        at=at,
        tenant="" if resource.tenant == ALL_TENANTS else resource.tenant,
        actor=principal.actor,
        action=action,
        resource=subject_of(resource),
        decision=decision,
        outcome=outcome,
        request=request,
        detail=detail or {},
    )


def denial(error: ProblemError, *, at: float, request: str = "") -> AuditRecord | None:
    """The entry of a refusal by policy; None for an error that is no such thing."""
    denied = error.denied if isinstance(error, Refused) else None
    if denied is None:
        return None
    return decision_record(
        denied.principal,
        denied.action,
        denied.resource,
        at=at,
        decision="deny",
        outcome=error.code,
        request=request,
        detail={"reasons": denied.reasons[:MOST_REASONS]},
    )


def unauthenticated(*, at: float, request: str, outcome: str, address: str) -> AuditRecord:
    """The entry of a credential that isn't valid. How many an address may show is limited before this."""
    return AuditRecord(
        at=at,
        tenant="",
        actor="unauthenticated",
        action="api:authenticate",
        resource="platform",
        decision="deny",
        outcome=outcome,
        request=request,
        detail={"address": address},
    )


class Ticket:
    """A batch of entries that are written in one transaction, and who waits for them.

    Each that waits has a future of its own: awaited together, one would be cancelled with the first call that is.
    """

    __slots__ = ("durable", "records", "timer", "waiting")

    def __init__(self) -> None:
        """An empty batch."""
        self.records: list[AuditRecord] = []
        self.waiting: list[asyncio.Future[bool]] = []
        self.timer: asyncio.TimerHandle | None = None
        self.durable: bool | None = None

    def tell(self, durable: bool) -> None:
        """Tell who waits that it is durable, or that it could not be made so in time."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(durable)


class AuditTrail:
    """Gathers entries and writes them in batches. Made inside the event loop; `run` is its loop."""

    def __init__(self, port: Audit, settings: AuditSettings, clock: Clock, metrics: GatewayMetrics) -> None:
        """Write to `port`."""
        self._port = port
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._batches = deque([Ticket()])
        self._waiting = 0
        self._lost = 0
        self._failing = False
        self._wanted = asyncio.Event()
        self._writing = asyncio.Lock()
        self._written = self._loop.time()

    @property
    def records_calls(self) -> bool:
        """Whether calls that are allowed are recorded."""
        return self._settings.calls

    @property
    def records_reads(self) -> bool:
        """Whether operations that only look are recorded."""
        return self._settings.reads

    @property
    def waiting(self) -> int:
        """Entries that are not written yet."""
        return self._waiting

    def now(self) -> float:
        """The time for an entry's `at`."""
        return self._clock.wall()

    def decided(self, record: AuditRecord) -> Ticket:
        """Add a decision, to be written at once; give the ticket to `durable` before the answer."""
        ticket = self._add(record)
        self._wanted.set()
        return ticket

    async def durable(self, ticket: Ticket) -> None:
        """Wait until a decision is durable. Raises `AuditUnavailable` where it can't be made so and must be."""
        if not await self._settled(ticket) and self._settings.strict:
            raise AuditUnavailable(
                "the audit log can't be written, and nothing may happen unrecorded",
                next_step="see `chimera doctor`; the setting audit.strict decides",
                retry_after=RETRY,
            )

    async def refused(self, record: AuditRecord) -> None:
        """Add a refusal, and wait until it is durable or can't be made so: it is a refusal either way."""
        await self._settled(self.decided(record))

    def outcome(self, record: AuditRecord) -> None:
        """Add what came of something; it is written soon."""
        self._add(record)

    async def run(self) -> None:
        """Write batches until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._written + self._settings.flush):
                    await self._wanted.wait()
            self._written = self._loop.time()
            # A write that was begun is committed even if this is cancelled; `flush` waits for it.
            if not await asyncio.shield(self._write()):
                await asyncio.sleep(RETRY)

    async def flush(self) -> None:
        """Write what waits, at the end, when `run` is cancelled."""
        while await self._write() and self._waiting:
            pass
        if self._waiting:
            log.error("entries of the audit log were not written", extra={"entries": self._waiting})

    def _add(self, record: AuditRecord) -> Ticket:
        last = self._batches[-1]
        if len(last.records) >= BATCH:
            last = Ticket()
            self._batches.append(last)
        if self._waiting >= MOST_WAITING:
            self._lost += 1
            self._metrics.audit_lost.inc()
            return last
        last.records.append(record)
        self._waiting += 1
        return last

    async def _settled(self, ticket: Ticket) -> bool:
        if ticket.durable is not None:
            return ticket.durable
        if self._failing:
            # What waits is tried again every `RETRY` seconds; that may take long, and no call shall.
            return False
        if ticket.timer is None:
            ticket.timer = self._loop.call_later(PATIENCE, ticket.tell, False)
        told: asyncio.Future[bool] = self._loop.create_future()
        ticket.waiting.append(told)
        return await told

    async def _write(self) -> bool:
        """Write the oldest batch; whether that went well."""
        async with self._writing:
            return await self._write_oldest()

    async def _write_oldest(self) -> bool:
        batch = self._batches.popleft()
        if not self._batches:
            self._batches.append(Ticket())
            self._wanted.clear()
        if not batch.records:
            return True
        lost = self._lost
        try:
            await self._port.record([*batch.records, self._gap(lost)] if lost else batch.records)
        except Exception as error:
            # It is first again. Whoever waits for it is told that it isn't durable yet.
            self._batches.appendleft(batch)
            self._wanted.set()
            batch.durable = False
            self._report(error)
            for waiting in self._batches:
                waiting.tell(False)
            return False
        self._waiting -= len(batch.records)
        self._lost -= lost
        self._metrics.audit_entries.inc(len(batch.records))
        batch.durable = True
        batch.tell(True)
        if self._failing:
            self._failing = False
            log.warning("the audit log is written again", extra={"lost": lost})
        return True

    def _report(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            detail = error.detail if isinstance(error, ProblemError) else str(error)
            log.error("the audit log can't be written; entries wait", extra={"problem": detail})

    def _gap(self, lost: int) -> AuditRecord:
        return AuditRecord(
            at=self.now(),
            tenant="",
            actor="system:gateway",
            action="audit:lose",
            resource="audit",
            outcome="lost",
            detail={"entries": lost},
        )


class CallEntries:
    """The two entries of one call: that it goes on, and what came of it.

    A call that is not admitted (its agent is busy, or not there) has one entry, which says both.
    """

    __slots__ = ("_actor", "_agent", "_call", "_request", "_tenant", "_ticket", "_traceparent", "_trail")

    def __init__(
        self, trail: AuditTrail, *, tenant: str, agent: str, actor: str, request: str | None, traceparent: str
    ) -> None:
        """A call of `agent` by `actor`, which authorisation has allowed."""
        self._trail = trail
        self._tenant = tenant
        self._agent = agent
        self._actor = actor
        self._request = request or ""
        self._traceparent = traceparent
        self._call = ""
        self._ticket: Ticket | None = None

    def admitted(self, call: str, detail: dict[str, Any]) -> None:
        """It goes on as `call`."""
        self._call = call
        if self._trail.records_calls:
            self._ticket = self._trail.decided(self._record("allow", "", detail))

    async def durable(self) -> None:
        """Wait until that is durable; before anything of the answer is given. Raises `AuditUnavailable`."""
        if self._ticket is not None:
            ticket, self._ticket = self._ticket, None
            await self._trail.durable(ticket)

    def ended(self, outcome: str, detail: dict[str, Any]) -> None:
        """What came of it: `ok`, `cancelled` or an error's code."""
        if self._trail.records_calls:
            self._trail.outcome(self._record("none" if self._call else "allow", outcome, detail))

    def _record(self, decision: Decision, outcome: str, detail: dict[str, Any]) -> AuditRecord:
        return AuditRecord(
            at=self._trail.now(),
            tenant=self._tenant,
            actor=self._actor,
            action="agent:invoke",
            resource=f"agents/{self._agent}",
            decision=decision,
            outcome=outcome,
            request=self._request,
            call=self._call,
            traceparent=self._traceparent if decision == "allow" else "",
            detail=detail,
        )
