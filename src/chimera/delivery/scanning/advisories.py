"""Advisories in OSV format as an index, and which of them speak of a version.

Matching follows the OSV schema: a version is affected if it stands in `versions`, or lies in a range of `ranges`
(introduced, fixed, last_affected, limit), by its ecosystem's own order. Withdrawn advisories count for nothing.
Advisories that name each other as aliases are one vulnerability. What can't be decided (a range or version that has no
order, an advisory without either) is said, never taken as clean; so are an ecosystem without advisories (each release
of a distribution is one), and advisories so old that nobody can have looked at them lately.

The index is a dictionary by ecosystem and name, so that a package costs one look, however many advisories there are.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import msgspec
from msgspec import Struct

from chimera.delivery.scanning.cvss import severity_of
from chimera.delivery.scanning.model import Severity
from chimera.delivery.scanning.versions import Key, normal_name, scheme

LONGEST_SUMMARY = 200


class OsvEvent(Struct, frozen=True):
    """One event of a range; exactly one of the four is set."""

    introduced: str | None = None
    fixed: str | None = None
    last_affected: str | None = None
    limit: str | None = None


class OsvRange(Struct, frozen=True):
    """A range of versions, or of commits (`GIT`)."""

    type: str
    events: tuple[OsvEvent, ...] = ()


class OsvPackage(Struct, frozen=True):
    """A package of an ecosystem."""

    ecosystem: str = ""
    name: str = ""


class OsvSeverity(Struct, frozen=True):
    """A score, as a vector."""

    type: str = ""
    score: str = ""


class OsvAffected(Struct, frozen=True):
    """What of a package is affected."""

    package: OsvPackage | None = None
    ranges: tuple[OsvRange, ...] = ()
    versions: tuple[str, ...] = ()
    severity: tuple[OsvSeverity, ...] = ()
    ecosystem_specific: msgspec.Raw = msgspec.Raw()
    database_specific: msgspec.Raw = msgspec.Raw()


class OsvRecord(Struct, frozen=True):
    """The parts of a record that matching needs; others are passed over."""

    id: str
    modified: str
    withdrawn: str | None = None
    aliases: tuple[str, ...] | None = None
    summary: str | None = None
    details: str | None = None
    severity: tuple[OsvSeverity, ...] | None = None
    affected: tuple[OsvAffected, ...] | None = None
    database_specific: msgspec.Raw = msgspec.Raw()


class _Specific(Struct, frozen=True):
    severity: str | None = None
    urgency: str | None = None


class Advisory(Struct, frozen=True, kw_only=True):
    """One record as it is told of."""

    id: str
    aliases: tuple[str, ...]
    severity: Severity
    summary: str


class Entry(Struct, frozen=True, kw_only=True):
    """What one record says of one package."""

    advisory: Advisory
    ranges: tuple[OsvRange, ...]
    versions: frozenset[str]


class Vulnerability(Struct, frozen=True, kw_only=True):
    """One vulnerability of a version: all its names, how severe, the first version without it where one is known."""

    ids: tuple[str, ...]
    severity: Severity
    summary: str
    fixed: str | None


class Judgement(Struct, frozen=True, kw_only=True):
    """What the index says of a version; `undecided` are reasons why something couldn't be decided."""

    vulnerabilities: tuple[Vulnerability, ...] = ()
    undecided: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Advisories:
    """The index. `newest`: when an ecosystem, as records name it, last changed (epoch); `faults`: what wasn't read."""

    entries: dict[tuple[str, str], list[Entry]] = field(default_factory=lambda: defaultdict(list))
    newest: dict[str, float] = field(default_factory=dict)
    records: int = 0
    looks: int = 0
    faults: list[str] = field(default_factory=list)
    _judged: dict[tuple[str, str, str], Judgement] = field(default_factory=dict)

    def add(self, record: OsvRecord, modified: float) -> None:
        """Take a record in; `modified` is its time as a number."""
        self.records += 1
        for affected in record.affected or ():
            package = affected.package
            if package is None or not package.ecosystem or not package.name:
                continue
            # Under no name but its own: advisories of one release say nothing of the others.
            self.newest[package.ecosystem] = max(self.newest.get(package.ecosystem, 0.0), modified)
            if record.withdrawn:
                continue
            entry = Entry(
                advisory=_advisory(record, affected),
                ranges=tuple(one for one in affected.ranges if one.type != "GIT"),
                versions=frozenset(affected.versions),
            )
            self.entries[package.ecosystem, normal_name(package.ecosystem, package.name)].append(entry)

    def fault(self, ecosystem: str, *, now: float, longest: float) -> str | None:
        """Why packages of an ecosystem can't be judged by this index; None where they can.

        What counts are records that name it, or what it belongs to, as `judge` matches them.
        """
        newest = next((self.newest[name] for name in _names(ecosystem) if name in self.newest), None)
        if newest is None:
            return f"there are no advisories for {ecosystem}"
        if now - newest > longest:
            return f"the newest advisory for {ecosystem} is {(now - newest) / 86_400:.0f} days old"
        return None

    def judge(self, ecosystem: str, name: str, version: str) -> Judgement:
        """What is known of a version; asked once for each, however often it is used."""
        key = (ecosystem, normal_name(ecosystem, name), version)
        if (known := self._judged.get(key)) is None:
            self.looks += 1
            known = self._judged[key] = self._judge(*key)
        return known

    def _judge(self, ecosystem: str, name: str, version: str) -> Judgement:
        order = scheme(ecosystem)
        if order is None:
            return Judgement(undecided=(f"the order of versions in {ecosystem} isn't known here",))
        value = order(version)
        if value is None:
            return Judgement(undecided=(f"{version[:80]!r} is no version in {ecosystem}",))
        hits: list[tuple[Advisory, str | None]] = []
        undecided: list[str] = []
        for entry in (one for names in _names(ecosystem) for one in self.entries.get((names, name), ())):
            try:
                hit, fixed = _affects(entry, version, value, order)
            except _Undecided as reason:
                undecided.append(f"{entry.advisory.id} can't be held against it: {reason}")
                continue
            if hit:
                hits.append((entry.advisory, fixed))
        return Judgement(vulnerabilities=tuple(_together(hits, order)), undecided=tuple(dict.fromkeys(undecided)))


class _Undecided(Exception):
    """Why a record doesn't decide."""


def _names(ecosystem: str) -> tuple[str, ...]:
    """An ecosystem and what it belongs to: `Ubuntu:24.04:LTS` is in `Ubuntu:24.04`, and both in `Ubuntu`."""
    parts = ecosystem.split(":")
    return tuple(":".join(parts[:end]) for end in range(len(parts), 0, -1))


def _affects(entry: Entry, version: str, value: Key, order: Callable[[str], Key | None]) -> tuple[bool, str | None]:
    if version in entry.versions:
        return True, _next_fix(entry.ranges, value, order)
    if not entry.ranges and not entry.versions:
        raise _Undecided("it names no versions")
    for one in entry.ranges:
        if _in_range(one, value, order):
            return True, _next_fix((one,), value, order)
    # Other spellings of a version that is listed; one that has no order can't be this one, which has.
    return any(order(listed) == value for listed in entry.versions), None


def _in_range(one: OsvRange, value: Key, order: Callable[[str], Key | None]) -> bool:
    affected, limits = False, []
    for _, rank, bound in sorted(_bounds(one, order), key=lambda event: event[:2]):
        if rank == _INTRODUCED:
            affected = affected or bound is None or value >= bound
        elif (rank == _FIXED and value >= bound) or (rank == _LAST and value > bound):
            affected = False
        elif rank == _LIMIT:
            limits.append(bound)
    return affected and (not limits or any(bound is None or value < bound for bound in limits))


_FIXED, _INTRODUCED, _LAST, _LIMIT = range(4)
"""At one version, what mends comes before what breaks anew."""


def _bounds(one: OsvRange, order: Callable[[str], Key | None]) -> Iterator[tuple[tuple[int, Key], int, Key]]:
    """Events with their keys; `introduced: 0` is before every version, the limit `*` after."""
    for event in one.events:
        for rank, text in (
            (_INTRODUCED, event.introduced),
            (_FIXED, event.fixed),
            (_LAST, event.last_affected),
            (_LIMIT, event.limit),
        ):
            if text is None:
                continue
            if (rank, text) in ((_INTRODUCED, "0"), (_LIMIT, "*")):
                yield (0 if rank == _INTRODUCED else 2, 0), rank, None
                continue
            key = order(text)
            if key is None:
                raise _Undecided(f"its bound {text[:80]!r} is no version")
            yield (1, key), rank, key


def _next_fix(ranges: Iterable[OsvRange], value: Key, order: Callable[[str], Key | None]) -> str | None:
    fixes = [
        (key, event.fixed)
        for one in ranges
        for event in one.events
        if event.fixed and (key := order(event.fixed)) is not None and key > value
    ]
    return min(fixes, key=lambda one: one[0])[1] if fixes else None


def _together(hits: list[tuple[Advisory, str | None]], order: Callable[[str], Key | None]) -> Iterator[Vulnerability]:
    """Records that name each other as one vulnerability."""
    groups: list[tuple[set[str], list[tuple[Advisory, str | None]]]] = []
    for advisory, fixed in hits:
        names = {advisory.id, *advisory.aliases}
        joined = [group for group in groups if group[0] & names]
        groups = [group for group in groups if not group[0] & names]
        merged = set(names).union(*(group[0] for group in joined))
        groups.append((merged, [*(one for group in joined for one in group[1]), (advisory, fixed)]))
    for names, those in groups:
        worst = max(those, key=lambda one: _RANK[one[0].severity])[0]
        fixes = [fixed for _, fixed in those if fixed]
        yield Vulnerability(
            ids=tuple(sorted(names, key=lambda name: (not name.startswith("CVE-"), name))),
            severity=worst.severity,
            summary=worst.summary,
            # One that mends all of them.
            fixed=max(fixes, key=lambda text: order(text) or ()) if fixes and len(fixes) == len(those) else None,
        )


_RANK: dict[Severity, int] = {"low": 0, "medium": 1, "high": 2, "critical": 3}


def _advisory(record: OsvRecord, affected: OsvAffected) -> Advisory:
    words: list[str] = []
    for raw in (affected.database_specific, affected.ecosystem_specific, record.database_specific):
        if bytes(raw):
            try:
                said = msgspec.json.decode(raw, type=_Specific)
            except msgspec.MsgspecError:
                continue
            words += [word for word in (said.severity, said.urgency) if word]
    vectors = [one.score for one in (*affected.severity, *(record.severity or ()))]
    # What was made to do harm is critical, whatever its record says.
    severity = "critical" if record.id.startswith("MAL-") else severity_of(words, vectors)
    summary = record.summary or (record.details or "").strip().partition("\n")[0]
    return Advisory(id=record.id, aliases=record.aliases or (), severity=severity, summary=summary[:LONGEST_SUMMARY])
