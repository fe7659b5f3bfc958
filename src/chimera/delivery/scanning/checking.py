"""The scanners as checks of the build stage: each its own, so that each has its verdict.

A check that could not judge something says `skipped`, which stops the change as `failed` does. Source folders are read
once for all checks of a change, one after the other as the pipeline asks them.
"""

import asyncio
import datetime
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from chimera.agents.compile import CanonicalDefinition
from chimera.agents.errors import BadArchive
from chimera.delivery.model import Change, Outcome, Verdict
from chimera.delivery.ports import Check, Revision
from chimera.delivery.scanning.model import SCANNERS, Finding, Report, Scanner, Severity, Unjudged
from chimera.delivery.scanning.scan import Knowledge, scan
from chimera.delivery.scanning.subject import Code, Subject, unpacked
from chimera.delivery.scanning.waivers import Waiver, apply
from chimera.kernel.clock import Clock

MOST_TOLD = 20
MOST_SENTENCES = 3


class Bundles(Protocol):
    """Where source folders are kept."""

    async def bundle(self, tenant: str, digest: str) -> bytes | None:
        """A packed source folder; None where it isn't there."""


class Knows(Protocol):
    """What knows of the world that a scan is made in."""

    async def knowledge(self, scanner: Scanner, values: Sequence[CanonicalDefinition]) -> Knowledge:
        """What `scanner` needs to judge `values`."""

    async def waivers(self, today: datetime.date) -> tuple[Waiver, ...]:
        """What is accepted."""


class _Reader:
    """Reads the source folders of a change, once."""

    def __init__(self, bundles: Bundles) -> None:
        self._bundles = bundles
        self._content = ""
        self._subjects: list[Subject] = []
        self._missing: dict[str, str] = {}
        self._lock = asyncio.Lock()

    async def read(self, change: Change, revisions: Sequence[Revision]) -> tuple[list[Subject], dict[str, str]]:
        """The agents of a change, and why the source folder of some can't be read."""
        async with self._lock:
            if self._content != change.content or not self._subjects:
                self._subjects, self._missing = [], {}
                codes: dict[str, Code | str] = {}
                for revision in revisions:
                    if revision.compiled is not None:
                        await self._take(change.tenant, revision.item.file or "", revision.compiled.value, codes)
                self._content = change.content
            return self._subjects, self._missing

    async def _take(self, tenant: str, file: str, value: CanonicalDefinition, codes: dict[str, Code | str]) -> None:
        name, source = value.agent.name, value.agent.source
        code: Code | str | None = None
        if source is not None:
            if source.bundle not in codes:
                codes[source.bundle] = await self._code(tenant, source.bundle)
            code = codes[source.bundle]
        if isinstance(code, str):
            self._missing[name] = code
            code = None
        self._subjects.append(Subject(agent=name, value=value, file=file, code=code))

    async def _code(self, tenant: str, digest: str) -> Code | str:
        data = await self._bundles.bundle(tenant, digest)
        if data is None:
            return "its source folder isn't kept any more"
        try:
            return await asyncio.to_thread(unpacked, digest, data)
        except BadArchive as error:
            return error.detail


class ScannerCheck:
    """One scanner as a `Check`."""

    def __init__(self, scanner: Scanner, reader: _Reader, knows: Knows, fails_at: Severity, clock: Clock) -> None:
        """Of this scanner."""
        self._scanner = scanner
        self._reader = reader
        self._knows = knows
        self._fails_at = fails_at
        self._clock = clock

    @property
    def name(self) -> str:
        """See `Check`."""
        return f"scan-{self._scanner}"

    async def run(self, change: Change, revisions: Sequence[Revision]) -> list[Verdict]:
        """See `Check`."""
        subjects, missing = await self._reader.read(change, revisions)
        now = self._clock.wall()
        today = datetime.datetime.fromtimestamp(now, tz=datetime.UTC).date()
        knowledge = await self._knows.knowledge(self._scanner, [subject.value for subject in subjects])
        report = await asyncio.to_thread(scan, subjects, knowledge, only=[self._scanner])
        unread = tuple(
            Unjudged(scanner=self._scanner, message=why, next_step="apply the agent again", agent=agent)
            for agent, why in missing.items()
        )
        report = msgspec.structs.replace(report, unjudged=(*report.unjudged, *unread))
        report = apply(report, await self._knows.waivers(today), today=today)
        return verdicts(self.name, report, self._fails_at, now)


def checks(
    bundles: Bundles, knows: Knows, clock: Clock, *, fails_at: Severity, only: Sequence[Scanner] = SCANNERS
) -> list[Check]:
    """A check for each scanner."""
    reader = _Reader(bundles)
    return [ScannerCheck(scanner, reader, knows, fails_at, clock) for scanner in SCANNERS if scanner in only]


def verdicts(name: str, report: Report, fails_at: Severity, now: float) -> list[Verdict]:
    """One verdict for the change, and one for each agent that something fails at."""
    failing = report.failing(fails_at)
    looked = sum(report.looked.values())
    said = f"{len(failing)} findings that fail, {len(report.findings) - len(failing)} others, "
    said += f"{len(report.accepted)} waived, {len(report.unjudged)} not judged, of {looked} agents"
    whole = _verdict(name, None, failing, report.unjudged, now)
    evidence = {**whole.evidence, "other": len(report.findings) - len(failing), "waived": len(report.accepted)}
    detail = f"{said}: {whole.detail}" if whole.detail else said
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
