"""From wanted cells and observed Knative Services to what to do now, as a pure rule over all of them.

Level-triggered: the plan is made from what is there, whatever happened before. Nothing is written for a cell whose
Service already says the same (its digest annotation) and that nobody else has changed since (its generation). What
fails waits: each failure of a cell doubles its delay up to the bound of its kind: minutes for a cell that is refused as
it is, a minute for all else. A Service that no cell wants any more goes after a grace, and never more
Services than `most` are made, those that exist first.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from chimera.adapters.substrates.knative.errors import (
    ClusterConflict,
    ClusterError,
    ClusterRefused,
    QuotaExceeded,
)
from chimera.platform.reasons import Reason

FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0
LONGEST_REFUSED = 600.0
"""Between two tries of a cell that is refused as it is, which a person must mend; a change of it is tried at once."""
PATIENT = (ClusterRefused,)


class Phase(Enum):
    """Where a cell is on its way to be what is wanted."""

    READY = "ready"
    DEPLOYING = "deploying"
    FAILED = "failed"
    HELD = "held"
    UNUSED = "unused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """A Knative Service as the plan sees it; `trouble` is why it isn't ready, with the next step, where it says so."""

    uid: str
    generation: int
    digest: str
    cell: str
    ready: bool = False
    deleting: bool = False
    trouble: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A cell as it should be: the digest of its manifest, or why it can't be rendered, with the next step."""

    cell: str
    digest: str = ""
    fault: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """What is remembered of a Service between two passes; losing it costs a delay or a grace, nothing else."""

    applied: int | None = None
    failures: int = 0
    not_before: float = 0.0
    failed_digest: str = ""
    failure: tuple[str, str] | None = None
    reason: Reason | None = None
    unused_since: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Apply:
    """Apply the manifest of a Service."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Delete:
    """Delete a Service, if it is still this one."""

    name: str
    uid: str
    reason: str


Action = Apply | Delete


@dataclass(frozen=True, kw_only=True, slots=True)
class CellState:
    """What a person is told of a cell: its phase, the cause and the next step; `reason` where the home refused it."""

    cell: str
    service: str
    phase: Phase
    cause: str = ""
    next_step: str = ""
    reason: Reason | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to do, what to remember, what to tell, and when to look again though nothing happened (None: never)."""

    actions: tuple[Action, ...] = ()
    memory: Mapping[str, Memory] = field(default_factory=dict)
    states: tuple[CellState, ...] = ()
    look_again: float | None = None


def plan(
    wanted: Mapping[str, Wanted],
    observed: Mapping[str, Observed],
    memory: Mapping[str, Memory],
    now: float,
    *,
    most: int,
    grace: float,
) -> Plan:
    """What to do so that the Services are as wanted; all mappings are by the Service's name."""
    actions: list[Action] = []
    states: list[CellState] = []
    kept: dict[str, Memory] = {}
    again: list[float] = []
    room = most - len(observed)
    for name in sorted(wanted):
        want, found, known = wanted[name], observed.get(name), memory.get(name, Memory())
        known = replace(known, unused_since=None)
        if known.failure is not None and known.failed_digest != want.digest:
            known = Memory(applied=known.applied)
        reason = _why_apply(want, found, known)
        if reason is not None and found is None and room <= 0:
            states.append(_too_many(name, want, most))
        elif reason is None:
            if known.failure is not None:
                known = Memory(applied=known.applied)
            states.append(_state(name, want, found, known))
        elif now < known.not_before:
            again.append(known.not_before)
            states.append(_state(name, want, found, known))
        else:
            room -= found is None
            actions.append(Apply(name=name, reason=reason))
            states.append(_state(name, want, found, known))
        if known != Memory():
            kept[name] = known
    for name in sorted(observed.keys() - wanted.keys()):
        found, known = observed[name], memory.get(name, Memory())
        since = now if known.unused_since is None else known.unused_since
        kept[name] = replace(known, unused_since=since)
        due = max(since + grace, known.not_before)
        if found.deleting:
            continue
        if now >= due:
            actions.append(Delete(name=name, uid=found.uid, reason=f"no agent has belonged to it for {grace:.0f} s"))
        else:
            again.append(due)
        cause, step = known.failure or (f"no live agent belongs to it; it goes after {grace:.0f} s", "")
        states.append(CellState(cell=found.cell, service=name, phase=Phase.UNUSED, cause=cause, next_step=step))
    return Plan(
        actions=tuple(actions),
        memory=kept,
        states=tuple(states),
        look_again=min(again) if again else None,
    )


def applied(known: Memory, generation: int) -> Memory:
    """What to remember after an apply that the cluster took."""
    return Memory(applied=generation)


def failed(known: Memory, error: ClusterError, digest: str, now: float, *, jitter: float = 0.0) -> Memory:
    """What to remember after a failure: when to try again, and what to tell.

    `jitter`, from 0 to 1, makes the delay up to half as long again, so that what failed together isn't tried together.
    """
    failures = known.failures + 1
    longest = LONGEST_REFUSED if isinstance(error, PATIENT) else LONGEST_DELAY
    delay = min(longest, FIRST_DELAY * 2.0 ** min(failures - 1, 20)) * (1.0 + jitter / 2)
    return replace(
        known,
        failures=failures,
        not_before=now + max(delay, error.retry_after or 0.0),
        failed_digest=digest,
        failure=(f"{error.title}: {error.detail}", error.next_step or ""),
        reason=Reason(error.reason),
    )


def concerns_all(error: ClusterError) -> bool:
    """Whether it would be of no use to go on with other Services now: the cluster, not the Service, is the trouble."""
    return not isinstance(error, (ClusterConflict, ClusterRefused, QuotaExceeded))


def _why_apply(want: Wanted, found: Observed | None, known: Memory) -> str | None:
    if want.fault is not None:
        return None
    if found is None:
        return "it is not there"
    if found.deleting or (known.applied is not None and found.generation < known.applied):
        return None  # it goes, or what the watch brought is older than what was applied since
    if found.digest != want.digest:
        return "it is not as wanted"
    if known.applied is not None and found.generation > known.applied:
        return "somebody else changed it"
    return None


def _state(name: str, want: Wanted, found: Observed | None, known: Memory) -> CellState:
    phase, (cause, step) = _told(want, found, known)
    reason = Reason.NOT_RUNNABLE if want.fault is not None else known.reason
    return CellState(cell=want.cell, service=name, phase=phase, cause=cause, next_step=step, reason=reason)


def _told(want: Wanted, found: Observed | None, known: Memory) -> tuple[Phase, tuple[str, str]]:
    if want.fault is not None:
        return Phase.FAILED, want.fault
    if known.failure is not None:
        return Phase.FAILED, known.failure
    if found is None or found.digest != want.digest:
        return Phase.DEPLOYING, ("its Knative Service is being applied", "")
    if found.deleting:
        return Phase.DEPLOYING, ("its Knative Service is being deleted, and made anew then", "")
    if found.ready:
        return Phase.READY, ("", "")
    if found.trouble is not None:
        return Phase.FAILED, found.trouble
    return Phase.DEPLOYING, ("its newest revision isn't ready yet", "")


def _too_many(name: str, want: Wanted, most: int) -> CellState:
    return CellState(
        cell=want.cell,
        service=name,
        phase=Phase.HELD,
        cause=f"there are {most} cells already, the most that `knative.most_cells` allows",
        next_step="let owners of code share a team, use `isolation: shared`, or raise `knative.most_cells`",
        reason=Reason.TOO_MANY_CELLS,
    )


def troubles(conditions: Iterator[tuple[str, str, str, str]]) -> tuple[str, str] | None:
    """Why a Knative Service isn't ready, from its conditions (type, status, reason, message), and the next step."""
    for kind, status, reason, message in conditions:
        if kind != "Ready" or status != "False":
            continue
        text = f"{reason}: {message}" if message else reason
        lowered = text.lower()
        if "quota" in lowered:
            return text, "raise the namespace's ResourceQuota, or lower what cells may use"
        if any(word in lowered for word in ("image", "pull", "manifest unknown")):
            return text, "see whether the image is there (`knative.image`) and may be pulled (`knative.pull_secrets`)"
        if "webhook" in lowered or "admission" in lowered or "denied" in lowered:
            return text, "see the policy or webhook that the message names"
        if "container" in lowered or "exit" in lowered or "progress" in lowered:
            return text, "see the pods' logs and events in the namespace of cells"
        return text, "see `kubectl describe ksvc` in the namespace of cells"
    return None
