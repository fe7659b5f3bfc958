"""What a commit makes of a source's agents, and when to look again: pure rules."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from chimera.delivery.git.ports import Row
from chimera.delivery.git.sources import SourceSpec, SourceState

FEW = 5
"""So many removals at once are always taken for meant, whatever share they are."""
_MOST_DOUBLINGS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """`gone` are agents that no file of the commit defines any more; `twice` say in words which agents stand twice."""

    rows: tuple[Row, ...]
    gone: tuple[str, ...]
    twice: tuple[str, ...]


def plan(source: str, before: Sequence[Row], after: Sequence[Row], holders: Mapping[str, tuple[str, str]]) -> Plan:
    """What becomes of the agents of the files that a commit touches.

    `before` are the rows of these files, `after` what they hold now. `holders` are the sources and files that have
    agents of `after` by what is kept: rows of these files are on their way out and don't count.
    """
    touched = {row.file for row in before} | {row.file for row in after}
    places: dict[str, Row] = {}
    twice: list[str] = []
    for row in after:
        if (other := places.setdefault(row.agent, row)) is not row:
            twice.append(f"{row.file}: the agent {row.agent} is also defined in {other.file}")
            continue
        holder = holders.get(row.agent)
        if holder is None:
            continue
        if holder[0] != source:
            twice.append(f"{row.file}: the agent {row.agent} belongs to the source {holder[0]} ({holder[1]})")
        elif holder[1] not in touched:
            twice.append(f"{row.file}: the agent {row.agent} is also defined in {holder[1]}")
    gone = sorted({row.agent for row in before} - places.keys())
    return Plan(rows=tuple(after), gone=tuple(gone), twice=tuple(twice))


def removal_problem(spec: SourceSpec, gone: int, agents: int) -> str:
    """Why so many removals, of so many agents that the source has, wait for somebody's word; empty where they don't."""
    if gone > spec.prune_count:
        return f"it takes {gone:,} agents out of service, more than {spec.prune_count:,} at once"
    if gone > FEW and gone > spec.prune_share * agents:
        return f"it takes {gone:,} of {agents:,} agents out of service, more than {spec.prune_share:.0%}"
    return ""


def next_look(spec: SourceSpec, failures: int, now: float, longest: float) -> float:
    """When to look again after so many failures in a row."""
    wait = spec.interval * 2.0 ** min(failures, _MOST_DOUBLINGS)
    return now + min(wait, max(longest, spec.interval))


def wanted_digest(spec: SourceSpec) -> str:
    """Names what decides which files are a source's: another one has all of them read again."""
    return hashlib.sha256(msgspec.json.encode([spec.url, spec.branch, spec.path])).hexdigest()[:16]


def must_read_all(state: SourceState, compiler: str, wanted: str) -> bool:
    """Whether the files that a commit leaves as they were must be read too: another compiler, another wish."""
    return state.commit is None or state.compiler != compiler or state.wanted != wanted


def trial(commit: str, compiler: str, wanted: str) -> str:
    """Names a commit as it was looked at: by which compiler, and for which wish."""
    return f"{commit} {compiler} {wanted}"


def named(files: Iterable[str]) -> tuple[str, ...]:
    """Files once each, in order."""
    return tuple(sorted(set(files)))
