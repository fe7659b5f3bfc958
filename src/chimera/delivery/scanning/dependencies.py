"""Packages against advisories: what is vulnerable, and what nobody can say.

A dependency that can't be judged fails a scan, and so do advisories that are missing or too old: silence about a
package means something only if somebody would have spoken.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from chimera.delivery.scanning.advisories import Advisories, Vulnerability
from chimera.delivery.scanning.model import Place, Result, Scanner, Unjudged, found
from chimera.delivery.scanning.packages import Listed, PackageFault

NAME_ADVISORIES = (
    "name a folder, file or address of advisories in OSV format: `scanning.advisories` of settings.toml, or "
    "`--advisories`"
)
FETCH_THEM = "fetch them anew, or raise `scanning.advisories_days`"


@dataclass(frozen=True, kw_only=True, slots=True)
class Against:
    """What packages are held against: advisories (None: none were named), the time, and how old they may be."""

    advisories: Advisories | None
    now: float
    longest: float


def judge(listed: Iterable[Listed], against: Against, *, scanner: Scanner = "dependencies") -> Iterator[Result]:
    """Each package's vulnerabilities, and what couldn't be judged, each fault of an ecosystem once."""
    refused: set[str] = set()
    for one in listed:
        if isinstance(one, PackageFault):
            yield Unjudged(scanner=scanner, message=one.message, next_step=one.next_step, place=one.place)
            continue
        if one.ecosystem in refused:
            continue
        if (fault := missing(one.ecosystem, against)) is not None:
            refused.add(one.ecosystem)
            yield Unjudged(scanner=scanner, message=fault[0], next_step=fault[1], place=Place(file=one.place.file))
            continue
        assert against.advisories is not None
        judged = against.advisories.judge(one.ecosystem, one.name, one.version)
        for reason in judged.undecided:
            yield Unjudged(
                scanner=scanner,
                message=f"{one.name} {one.version}: {reason}",
                next_step="use a released version, or mend the advisory",
                place=one.place,
            )
        for vulnerability in judged.vulnerabilities:
            yield _finding(scanner, one.name, one.version, vulnerability, one.place)


def missing(ecosystem: str, against: Against) -> tuple[str, str] | None:
    """Why nothing can be said of an ecosystem's packages, and what to do."""
    if against.advisories is None:
        return "no advisories were named, so nobody knows what is vulnerable", NAME_ADVISORIES
    fault = against.advisories.fault(ecosystem, now=against.now, longest=against.longest)
    return None if fault is None else (fault, FETCH_THEM if "days old" in fault else NAME_ADVISORIES)


def _finding(scanner: Scanner, name: str, version: str, vulnerability: Vulnerability, place: Place) -> Result:
    known = ", ".join(vulnerability.ids)
    summary = f": {vulnerability.summary}" if vulnerability.summary else ""
    step = (
        f"use {name} {vulnerability.fixed} or later"
        if vulnerability.fixed
        else f"replace {name}: no version is said to mend it"
    )
    return found(
        scanner,
        "known-vulnerability",
        vulnerability.severity,
        f"{name} {version} is vulnerable ({known}){summary}",
        next_step=step,
        place=place,
        subject=f"{name}@{version} {known}",
    )
