"""The scanners as checks of the build stage: each its own, so that each has its verdict.

A check that could not judge something says `skipped`, which stops the change as `failed` does. A scanner that looks
into source folders has few of them in memory at a time, and each once.
"""

import asyncio
import datetime
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from chimera.agents.compile import CanonicalDefinition
from chimera.agents.errors import BadArchive
from chimera.delivery.model import Change, Outcome, Verdict
from chimera.delivery.ports import Check, Revision
from chimera.delivery.scanning.model import SCANNERS, Finding, Report, Result, Scanner, Severity, Unjudged
from chimera.delivery.scanning.model import report as reported
from chimera.delivery.scanning.scan import Knowledge, scan
from chimera.delivery.scanning.subject import Code, Subject, unpacked
from chimera.delivery.scanning.waivers import Waiver, apply
from chimera.kernel.clock import Clock

READ_CODE = frozenset(["secrets", "dependencies", "models"])
BATCH_BYTES = 64 * 1024**2
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


class Batch(Struct, frozen=True):
    """Agents that are scanned together, and why the source folder of some can't be read."""

    subjects: list[Subject]
    missing: dict[str, str] = {}


async def batches(
    bundles: Bundles, tenant: str, revisions: Sequence[Revision], *, with_code: bool
) -> AsyncIterator[Batch]:
    """The agents of a change; with their source folders few at a time, since all of them may not fit into memory."""
    coded: dict[str, list[Subject]] = {}
    plain: list[Subject] = []
    for revision in revisions:
        if revision.compiled is None:
            continue
        value = revision.compiled.value
        subject = Subject(agent=value.agent.name, value=value, file=revision.item.file or "")
        if with_code and value.agent.source is not None:
            coded.setdefault(value.agent.source.bundle, []).append(subject)
        else:
            plain.append(subject)
    if plain or not coded:
        yield Batch(plain)
    subjects: list[Subject] = []
    missing: dict[str, str] = {}
    size = 0
    for digest, owners in coded.items():
        code = await _code(bundles, tenant, digest)
        if isinstance(code, str):
            missing.update(dict.fromkeys((owner.agent for owner in owners), code))
            subjects += owners
        else:
            size += sum(map(len, code.files.values()))
            subjects += [replace(owner, code=code) for owner in owners]
        if size > BATCH_BYTES:
            yield Batch(subjects, missing)
            subjects, missing, size = [], {}, 0
    if subjects:
        yield Batch(subjects, missing)


async def _code(bundles: Bundles, tenant: str, digest: str) -> Code | str:
    data = await bundles.bundle(tenant, digest)
    if data is None:
        return "its source folder isn't kept any more"
    try:
        return await asyncio.to_thread(unpacked, digest, data)
    except BadArchive as error:
        return error.detail


class ScannerCheck:
    """One scanner as a `Check`."""

    def __init__(self, scanner: Scanner, bundles: Bundles, knows: Knows, fails_at: Severity, clock: Clock) -> None:
        """Of this scanner."""
        self._scanner = scanner
        self._bundles = bundles
        self._knows = knows
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
        values = [one.compiled.value for one in revisions if one.compiled is not None]
        knowledge = await self._knows.knowledge(self._scanner, values)
        results: list[Result] = []
        with_code = self._scanner in READ_CODE
        async for batch in batches(self._bundles, change.tenant, revisions, with_code=with_code):
            part = await asyncio.to_thread(scan, batch.subjects, knowledge, only=[self._scanner])
            results += [*part.findings, *part.unjudged]
            results += [
                Unjudged(scanner=self._scanner, message=why, next_step="apply the agent again", agent=agent)
                for agent, why in batch.missing.items()
            ]
        found = reported(results, {self._scanner: len(values)})
        report = apply(found, await self._knows.waivers(today), today=today)
        return verdicts(self.name, report, self._fails_at, now)


def checks(
    bundles: Bundles, knows: Knows, clock: Clock, *, fails_at: Severity, only: Sequence[Scanner] = SCANNERS
) -> list[Check]:
    """A check for each scanner."""
    return [ScannerCheck(scanner, bundles, knows, fails_at, clock) for scanner in SCANNERS if scanner in only]


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
