"""A scan whose source folders come packed, as they are kept: what a process is asked that scans beside the others.

A source folder is unpacked, judged and forgotten before the next, so memory holds one of them.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from chimera.agents.compile import CanonicalDefinition
from chimera.agents.errors import BadArchive
from chimera.delivery.scanning.model import Report, Result, Scanner, Unjudged, report
from chimera.delivery.scanning.scan import Knowledge, scan
from chimera.delivery.scanning.subject import Subject, unpacked


class Asked(Struct, frozen=True, kw_only=True):
    """An agent to scan. `bundle` is the digest of its source folder, where the scanner looks into these."""

    agent: str
    value: CanonicalDefinition
    file: str = ""
    bundle: str | None = None


class Ask(Struct, frozen=True, kw_only=True):
    """Agents for one scanner, and their source folders by digest; one that isn't kept any more is not among them."""

    scanner: Scanner
    agents: Sequence[Asked]
    bundles: Mapping[str, bytes] = {}


class Scans(Protocol):
    """Whoever can scan."""

    async def scan(self, ask: Ask) -> Report:
        """What is found; raises `ScanningError` where nothing can be said."""


def scan_packed(ask: Ask, knowledge: Knowledge) -> Report:
    """What a scanner finds."""
    plain: list[Subject] = []
    coded: dict[str, list[Subject]] = {}
    for one in ask.agents:
        subject = Subject(agent=one.agent, value=one.value, file=one.file)
        (plain if one.bundle is None else coded.setdefault(one.bundle, [])).append(subject)
    results: list[Result] = []
    if plain:
        results += _results(scan(plain, knowledge, only=[ask.scanner]))
    for digest, owners in coded.items():
        try:
            code = unpacked(digest, ask.bundles[digest]) if digest in ask.bundles else None
            why = "its source folder isn't kept any more"
        except BadArchive as error:
            code, why = None, error.detail
        if code is None:
            results += [
                Unjudged(scanner=ask.scanner, message=why, next_step="apply the agent again", agent=owner.agent)
                for owner in owners
            ]
        subjects = [Subject(agent=one.agent, value=one.value, file=one.file, code=code) for one in owners]
        results += _results(scan(subjects, knowledge, only=[ask.scanner]))
    return report(results, {ask.scanner: len(ask.agents)})


def _results(found: Report) -> list[Result]:
    return [*found.findings, *found.unjudged]
