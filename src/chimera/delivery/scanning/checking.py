"""The scanners as checks of the build stage: each its own, so that each has its verdict.

A check that could not judge something says `skipped`, which stops the change as `failed` does. A scanner that looks
into source folders gets few of them at a time, and each once.
"""

import datetime
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import msgspec

from chimera.delivery.model import Change, Outcome, Verdict
from chimera.delivery.ports import Check, Revision
from chimera.delivery.scanning.model import SCANNERS, Finding, Report, Result, Scanner, Severity, Unjudged
from chimera.delivery.scanning.model import report as reported
from chimera.delivery.scanning.packed import Ask, Asked, Scans
from chimera.delivery.scanning.waivers import Waiver, apply
from chimera.kernel.clock import Clock

READ_CODE = frozenset(["secrets", "dependencies", "models"])
BATCH_BYTES = 16 * 1024**2
"""Bytes of packed source folders that one request holds, unless one alone has more."""
MOST_TOLD = 20
MOST_SENTENCES = 3


class Bundles(Protocol):
    """Where source folders are kept."""

    async def bundle(self, tenant: str, digest: str) -> bytes | None:
        """A packed source folder; None where it isn't there."""


class Waives(Protocol):
    """Who knows what is accepted."""

    async def waivers(self, today: datetime.date) -> tuple[Waiver, ...]:
        """What is accepted."""


async def asks(bundles: Bundles, tenant: str, revisions: Sequence[Revision], scanner: Scanner) -> AsyncIterator[Ask]:
    """The agents of a change; with their source folders few at a time, since all of them may not fit into memory."""
    coded: dict[str, list[Asked]] = {}
    agents: list[Asked] = []
    for revision in revisions:
        if revision.compiled is None:
            continue
        value, file = revision.compiled.value, revision.item.file or ""
        if scanner in READ_CODE and value.agent.source is not None:
            digest = value.agent.source.bundle
            coded.setdefault(digest, []).append(Asked(agent=value.agent.name, value=value, file=file, bundle=digest))
        else:
            agents.append(Asked(agent=value.agent.name, value=value, file=file))
    packed: dict[str, bytes] = {}
    size = 0
    for digest, owners in coded.items():
        if (data := await bundles.bundle(tenant, digest)) is not None:
            packed[digest] = data
            size += len(data)
        agents += owners
        if size > BATCH_BYTES:
            yield Ask(scanner=scanner, agents=agents, bundles=packed)
            agents, packed, size = [], {}, 0
    if agents or not coded:
        yield Ask(scanner=scanner, agents=agents, bundles=packed)


class ScannerCheck:
    """One scanner as a `Check`."""

    def __init__(
        self, scanner: Scanner, bundles: Bundles, scans: Scans, waives: Waives, fails_at: Severity, clock: Clock
    ) -> None:
        """Of this scanner."""
        self._scanner = scanner
        self._bundles = bundles
        self._scans = scans
        self._waives = waives
        self._fails_at = fails_at
        self._clock = clock

    @property
    def name(self) -> str:
        """See `Check`."""
        return f"scan-{self._scanner}"

    async def run(self, change: Change, revisions: Sequence[Revision]) -> list[Verdict]:
        """See `Check`."""
        now = self._clock.wall()
        today = datetime.datetime.fromtimestamp(now, tz=datetime.UTC).date()
        results: list[Result] = []
        looked = 0
        async for ask in asks(self._bundles, change.tenant, revisions, self._scanner):
            part = await self._scans.scan(ask)
            results += [*part.findings, *part.unjudged]
            looked += len(ask.agents)
        found = reported(results, {self._scanner: looked})
        report = apply(found, await self._waives.waivers(today), today=today)
        return verdicts(self.name, report, self._fails_at, now)


def checks(
    bundles: Bundles,
    scans: Scans,
    waives: Waives,
    clock: Clock,
    *,
    fails_at: Severity,
    only: Sequence[Scanner] = SCANNERS,
) -> list[Check]:
    """A check for each scanner."""
    return [ScannerCheck(scanner, bundles, scans, waives, fails_at, clock) for scanner in SCANNERS if scanner in only]


def verdicts(name: str, report: Report, fails_at: Severity, now: float) -> list[Verdict]:
    """One verdict for the change, and one for each agent that something fails at."""
    failing = report.failing(fails_at)
    looked = sum(report.looked.values())
    said = f"{len(failing)} findings that fail, {len(report.findings) - len(failing)} others, "
    said += f"{len(report.accepted)} waived, {len(report.unjudged)} not judged, of {looked} agents"
    whole = _verdict(name, None, failing, report.unjudged, now)
    evidence = {**whole.evidence, "other": len(report.findings) - len(failing), "waived": len(report.accepted)}
    detail = f"{whole.detail} ({said})" if whole.detail else said
    made = [msgspec.structs.replace(whole, detail=detail, evidence=evidence)]
    by_agent: dict[str, tuple[list[Finding], list[Unjudged]]] = {}
    for finding in failing:
        if finding.agent is not None:
            by_agent.setdefault(finding.agent, ([], []))[0].append(finding)
    for one in report.unjudged:
        if one.agent is not None:
            by_agent.setdefault(one.agent, ([], []))[1].append(one)
    made += [_verdict(name, agent, found, unjudged, now) for agent, (found, unjudged) in by_agent.items()]
    return made


def _verdict(
    name: str, agent: str | None, failing: Sequence[Finding], unjudged: Sequence[Unjudged], now: float
) -> Verdict:
    outcome: Outcome = "skipped" if unjudged else "failed" if failing else "passed"
    told = [*(_sentence(one) for one in unjudged), *(_sentence(one) for one in failing)]
    steps = [*(one.next_step for one in unjudged), *(one.next_step for one in failing)]
    rows: list[dict[str, Any]] = [
        {"rule": one.rule, "severity": one.severity, "place": str(one.place), "fingerprint": one.fingerprint}
        for one in failing[:MOST_TOLD]
    ]
    return Verdict(
        stage="build",
        check=name,
        agent=agent,
        outcome=outcome,
        detail="; ".join(told[:MOST_SENTENCES])
        + (f"; and {len(told) - MOST_SENTENCES} more" if len(told) > MOST_SENTENCES else ""),
        next_step=steps[0] if steps else "",
        evidence={"failing": len(failing), "not_judged": len(unjudged), **({"findings": rows} if rows else {})},
        at=now,
    )


def _sentence(one: Finding | Unjudged) -> str:
    who = f"{one.agent}: " if one.agent else ""
    place = f" ({one.place})" if str(one.place) else ""
    return f"{who}{one.message}{place}"[:400]
