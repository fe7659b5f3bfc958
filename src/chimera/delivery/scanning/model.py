"""What a scan says: findings with their place and what to do, and what it could not judge.

The two are kept apart on purpose. A finding is a fact about what was read; somebody may accept it for a time, with a
reason (`waivers`). What could not be judged (an archive that doesn't open, a version that is none, advisories that
aren't there) says nothing about safety, so it fails a scan whatever else was found, and nobody can waive it.

A finding's fingerprint is over what it is about and not over its line, so that a waiver survives an edit above it. A
secret is never part of a finding: its first characters and its length are, and its hash is in the fingerprint.
"""

import hashlib
from collections.abc import Iterable
from typing import Literal, get_args

import msgspec
from msgspec import Struct

Severity = Literal["low", "medium", "high", "critical"]
Scanner = Literal["secrets", "dependencies", "models", "permissions", "prompts", "containers", "images"]

SEVERITIES: tuple[Severity, ...] = get_args(Severity)
SCANNERS: tuple[Scanner, ...] = get_args(Scanner)


class Place(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where: a file (`a.zip!b` is b inside a.zip), a line of it from 1, a field of a definition or manifest."""

    file: str = ""
    line: int | None = None
    field: str = ""

    def __str__(self) -> str:
        """`file:line: field`, without what isn't known."""
        spot = f"{self.file}:{self.line}" if self.line is not None else self.file
        return ": ".join(part for part in (spot, self.field) if part)


class Finding(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is wrong. `subject` is what it is about: a package, a global, an advisory; never a secret."""

    scanner: Scanner
    rule: str
    severity: Severity
    message: str
    next_step: str
    place: Place = Place()
    agent: str | None = None
    subject: str = ""
    fingerprint: str = ""


class Unjudged(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that a scanner should have judged and couldn't."""

    scanner: Scanner
    message: str
    next_step: str
    place: Place = Place()
    agent: str | None = None


class Accepted(Struct, frozen=True, kw_only=True):
    """A finding that a waiver covers, with the waiver's reason and its last day."""

    finding: Finding
    reason: str
    until: str


class Report(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that a scan found. `looked` counts what each scanner judged; a scanner that isn't in it didn't run."""

    findings: tuple[Finding, ...] = ()
    unjudged: tuple[Unjudged, ...] = ()
    accepted: tuple[Accepted, ...] = ()
    looked: dict[str, int] = {}

    def failing(self, threshold: Severity) -> tuple[Finding, ...]:
        """Findings at or above `threshold`."""
        return tuple(finding for finding in self.findings if at_least(finding.severity, threshold))

    def passed(self, threshold: Severity) -> bool:
        """Whether nothing at or above `threshold` was found, and everything was judged."""
        return not self.unjudged and not self.failing(threshold)


Result = Finding | Unjudged


def at_least(severity: Severity, threshold: Severity) -> bool:
    """Whether `severity` is as bad as `threshold`, or worse."""
    return SEVERITIES.index(severity) >= SEVERITIES.index(threshold)


def fingerprint(*parts: str | None) -> str:
    """What says that two findings are the same: sixteen hex digits over `parts`."""
    return hashlib.sha256("\0".join(part or "" for part in parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def found(
    scanner: Scanner,
    rule: str,
    severity: Severity,
    message: str,
    *,
    next_step: str,
    place: Place | None = None,
    agent: str | None = None,
    subject: str = "",
    secret: str = "",
) -> Finding:
    """A finding with its fingerprint; `secret` goes into that alone."""
    place = place or Place()
    return Finding(
        scanner=scanner,
        rule=f"{scanner}/{rule}",
        severity=severity,
        message=message,
        next_step=next_step,
        place=place,
        agent=agent,
        subject=subject,
        fingerprint=fingerprint(scanner, rule, agent, place.file, place.field, subject, secret),
    )


def for_agent(results: Iterable[Result], agent: str | None) -> list[Result]:
    """`results` said of an agent; the fingerprint of each is then its own."""
    if agent is None:
        return list(results)
    return [
        msgspec.structs.replace(one, agent=agent, fingerprint=fingerprint(agent, one.fingerprint))
        if isinstance(one, Finding)
        else msgspec.structs.replace(one, agent=agent)
        for one in results
    ]


def report(results: Iterable[Result], looked: dict[str, int]) -> Report:
    """Results as a report: the worst first, each once."""
    findings: dict[str, Finding] = {}
    unjudged: dict[Unjudged, None] = {}
    for one in results:
        if isinstance(one, Unjudged):
            unjudged.setdefault(one)
        elif (other := findings.get(one.fingerprint)) is None or _better_placed(one, other):
            findings[one.fingerprint] = one
    ordered = sorted(
        findings.values(),
        key=lambda one: (
            -SEVERITIES.index(one.severity),
            one.scanner,
            one.agent or "",
            one.place.file,
            one.place.line or 0,
            one.rule,
        ),
    )
    return Report(findings=tuple(ordered), unjudged=tuple(unjudged), looked=dict(sorted(looked.items())))


def _better_placed(one: Finding, other: Finding) -> bool:
    return other.place.line is None and one.place.line is not None
