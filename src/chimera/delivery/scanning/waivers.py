"""Waivers: what somebody accepts for a time, and why.

A waiver names a rule and something narrower (a fingerprint, a subject, an agent, a file), a reason and the last day on
which it holds, at most `LONGEST_DAYS` ahead. One that has ended covers nothing: the finding is back, and says so. One
that covers nothing at all is a finding of its own, so that the list doesn't grow old in silence.
"""

import datetime
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from chimera.delivery.scanning.errors import InvalidWaivers
from chimera.delivery.scanning.model import SCANNERS, Accepted, Finding, Place, Report, Scanner, found

LONGEST_DAYS = 366
MOST = 10_000

Glob = Annotated[str, Meta(min_length=1, max_length=500)]


class Waiver(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One waiver; the patterns are of the shell (`*`, `?`)."""

    rule: Annotated[str, Meta(pattern=r"^[a-z]+/[a-z0-9-]+$", max_length=100)]
    reason: Annotated[str, Meta(min_length=10, max_length=2_000)]
    until: Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    fingerprint: Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$")] | None = None
    subject: Glob | None = None
    agent: Glob | None = None
    file: Glob | None = None

    def covers(self, finding: Finding) -> bool:
        """Whether it speaks of `finding`, whatever the day."""
        return (
            finding.rule == self.rule
            and self.fingerprint in (None, finding.fingerprint)
            and _matches(self.subject, finding.subject)
            and _matches(self.agent, finding.agent or "")
            and _matches(self.file, finding.place.file)
        )


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    waivers: Annotated[tuple[Waiver, ...], Meta(max_length=MOST)] = ()


def read_waivers(data: Any, *, file: str, today: datetime.date) -> tuple[Waiver, ...]:
    """The waivers of a file that was parsed already; raises `InvalidWaivers` with the first that is wrong."""
    try:
        waivers = msgspec.convert(data, _File, strict=True).waivers
    except msgspec.ValidationError as error:
        raise _invalid(file, str(error)) from None
    for number, waiver in enumerate(waivers):
        where = f"waivers[{number}]"
        if _last_day(waiver) is None:
            raise _invalid(file, f"{where}: until: {waiver.until} is no date")
        if not any((waiver.fingerprint, waiver.subject, waiver.agent, waiver.file)):
            raise _invalid(file, f"{where}: it covers a whole rule; name a fingerprint, subject, agent or file too")
        if all(re.fullmatch(r"[*?]+", one) for one in (waiver.subject, waiver.agent, waiver.file) if one) and (
            waiver.fingerprint is None
        ):
            raise _invalid(file, f"{where}: its patterns match everything, so it covers a whole rule")
        if (_last_day(waiver) or today) > today + datetime.timedelta(days=LONGEST_DAYS):
            raise _invalid(file, f"{where}: until: {waiver.until} is more than {LONGEST_DAYS} days ahead")
    return waivers


def apply(report: Report, waivers: Iterable[Waiver], *, today: datetime.date, file: str = "") -> Report:
    """`report` with what waivers cover set apart; what was not judged stays as it is."""
    waivers = tuple(waivers)
    used = [False] * len(waivers)
    by_rule: dict[str, list[int]] = {}
    for index, waiver in enumerate(waivers):
        by_rule.setdefault(waiver.rule, []).append(index)
    findings: list[Finding] = []
    accepted = list(report.accepted)
    for finding in report.findings:
        ended: Waiver | None = None
        for index in by_rule.get(finding.rule, ()):
            waiver = waivers[index]
            if not waiver.covers(finding):
                continue
            used[index] = True
            if (_last_day(waiver) or datetime.date.min) >= today:
                accepted.append(Accepted(finding=finding, reason=waiver.reason, until=waiver.until))
                break
            ended = waiver
        else:
            findings.append(finding if ended is None else _back(finding, ended))
    ran = set(report.looked)
    unused = [
        _unused(waiver, file)
        for waiver, seen in zip(waivers, used, strict=True)
        if not seen and waiver.rule.partition("/")[0] in ran
    ]
    return msgspec.structs.replace(report, findings=(*findings, *unused), accepted=tuple(accepted))


def _matches(pattern: str | None, text: str) -> bool:
    return pattern is None or fnmatchcase(text, pattern)


def _last_day(waiver: Waiver) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(waiver.until)
    except ValueError:
        return None


def _back(finding: Finding, waiver: Waiver) -> Finding:
    said = f"{finding.message} (its waiver ended on {waiver.until})"
    return msgspec.structs.replace(finding, message=said)


def _unused(waiver: Waiver, file: str) -> Finding:
    kind = waiver.rule.partition("/")[0]
    scanner: Scanner = next((name for name in SCANNERS if name == kind), "secrets")
    return found(
        scanner,
        "waiver-unused",
        "low",
        f"a waiver of {waiver.rule} covers nothing: {waiver.reason[:80]}",
        next_step="take it out of the file of waivers",
        place=Place(file=file),
        subject=msgspec.json.encode(waiver).decode(),
    )


def _invalid(file: str, reason: str) -> InvalidWaivers:
    return InvalidWaivers(
        f"{file}: {reason}",
        next_step="write each waiver with rule, reason, until (a date) and a fingerprint, subject, agent or file",
    )
