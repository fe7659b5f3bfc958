"""From wanted cells and observed Knative Services to what to do now, as a pure rule over all of them.

Level-triggered: the plan is made from what is there, whatever happened before. Nothing is written for a cell whose
Service already says the same (its digest annotation) and that nobody else has changed since (its generation). What
fails waits: each failure of a cell doubles its delay up to the bound of its kind: minutes for a cell that is refused as
it is, a minute for all else. A Service that no cell wants any more goes after a grace (one of an environment, which
comes with a test and goes with it, after a minute), and never more Services than
`most` are made, those that exist first. Who of a Service's revisions gets calls is `rollout`'s to say; of all cells no
more than `rollouts` change over at once, since each has its pods twice meanwhile.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from chimera.adapters.substrates.knative.errors import (
    ClusterConflict,
    ClusterError,
    ClusterRefused,
    ObjectGone,
    QuotaExceeded,
)
from chimera.adapters.substrates.knative.rollout import (
    ALL_TO_LATEST,
    Decision,
    Pace,
    Progress,
    Revision,
    Serving,
    Share,
    Stage,
    Target,
    decide,
)
from chimera.kernel.ids import is_environment
from chimera.platform.reasons import Reason

FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0
LONGEST_REFUSED = 600.0
"""Between two tries of a cell that is refused as it is, which a person must mend; a change of it is tried at once."""
ENVIRONMENT_GRACE = 60.0
AS_USUAL = Pace()
SOON = 0.01
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
    """A Knative Service as the plan sees it; `trouble` is why it isn't ready, with the next step, where it says so.

    `foreign` says that somebody else than Chimera has set a field of its spec. `initial` to `failed` are of `Serving`.
    """

    uid: str
    generation: int
    digest: str
    cell: str
    ready: bool = False
    deleting: bool = False
    foreign: bool = False
    trouble: tuple[str, str] | None = None
    initial: int = 1
    attempt: int = 1
    asked: tuple[Share, ...] = ALL_TO_LATEST
    carried: tuple[Share, ...] = ()
    failed: str = ""
    revisions: tuple[Revision, ...] = ()

    @property
    def serving(self) -> Serving:
        """As `rollout` sees it."""
        return Serving(
            digest=self.digest,
            initial=self.initial,
            attempt=self.attempt,
            asked=self.asked,
            carried=self.carried,
            failed=self.failed,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A cell as it should be: the digest of its manifest and its scale, or why it can't be rendered.

    `kept` pods are kept warm of the `asked` that the settings and its agents ask for (`chimera.platform.warm`).
    """

    cell: str
    digest: str = ""
    least: int = 0
    kept: int = 0
    asked: int = 0
    most: int = 1_000
    initial: int = 1
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
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True, kw_only=True, slots=True)
class Apply:
    """Apply the manifest of a Service, with who gets its calls and what a new revision of it begins with."""

    name: str
    reason: str
    traffic: tuple[Share, ...] = ALL_TO_LATEST
    initial: int = 1
    attempt: int = 1
    failed: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Keep:
    """Set the fewest pods of a Service's revision, if it is still this one."""

    name: str
    revision: str
    uid: str
    least: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Delete:
    """Delete a Service, if it is still this one."""

    name: str
    uid: str
    reason: str


Action = Apply | Keep | Delete


@dataclass(frozen=True, kw_only=True, slots=True)
class RevisionState:
    """What a person is told of a revision: its share of the calls, its pods, whether it is ready, else why not."""

    revision: str
    percent: int
    replicas: int
    ready: bool
    cause: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellState:
    """What a person is told of a cell: its phase, the cause and the next step, the pods kept warm, and its revisions.

    `reason` is given where the home refused it, `tries` where it never came up and is tried anew.
    """

    cell: str
    service: str
    phase: Phase
    cause: str = ""
    next_step: str = ""
    reason: Reason | None = None
    tries: str = ""
    kept: int = 0
    revisions: tuple[RevisionState, ...] = ()


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
    pace: Pace = AS_USUAL,
    rollouts: int = 8,
) -> Plan:
    """What to do so that the Services are as wanted; all mappings are by the Service's name."""
    actions: list[Action] = []
    states: list[CellState] = []
    kept: dict[str, Memory] = {}
    again: list[float] = []
    room = most - len(observed)
    changing = sum(_changes_over(found) for name, found in observed.items() if name in wanted)
    for name in sorted(wanted):
        want, found, known = wanted[name], observed.get(name), memory.get(name, Memory())
        known = replace(known, unused_since=None)
        if known.failure is not None and known.failed_digest != want.digest:
            known = Memory(applied=known.applied, progress=known.progress)
        decided = _decide(want, found, known, pace, now)
        action = _action(name, want, found, known, decided)
        begins = action is not None and _begins(want, found)
        if begins and found is not None and changing >= rollouts:
            states.append(_waits(name, want, found, rollouts))
        elif action is not None and found is None and room <= 0:
            states.append(_too_many(name, want, most))
        else:
            known, state = _settled(name, want, found, known, decided, action)
            states.append(state)
            room -= action is not None and found is None
            changing += begins
            if action is not None and now >= known.not_before:
                actions.append(action)
            again += _due(known, action, decided, now)
        if known != Memory():
            kept[name] = known
    for name in sorted(observed.keys() - wanted.keys()):
        for_it = min(grace, ENVIRONMENT_GRACE) if is_environment(observed[name].cell) else grace
        kept[name], state, due = _unused(name, observed[name], memory.get(name, Memory()), now, for_it)
        states.append(state)
        if now < due:
            again.append(due)
            actions += _let_go(name, observed[name], memory.get(name, Memory()), now)
        elif not observed[name].deleting:
            reason = f"no agent has belonged to it for {for_it:.0f} s"
            actions.append(Delete(name=name, uid=observed[name].uid, reason=reason))
    return Plan(
        actions=tuple(actions),
        memory=kept,
        states=tuple(states),
        look_again=min(again) if again else None,
    )


def _settled(
    name: str, want: Wanted, found: Observed | None, known: Memory, decided: Decision, action: Action | None
) -> tuple[Memory, CellState]:
    """What to remember and to tell of a wanted cell. Where there is nothing to do, what failed before is forgotten."""
    if action is None and known.failure is not None:
        known = Memory(applied=known.applied, progress=known.progress)
    return replace(known, progress=decided.progress), _state(name, want, found, known, decided)


def _due(known: Memory, action: Action | None, decided: Decision, now: float) -> list[float]:
    """When to look at a wanted cell again though nothing happened."""
    found = [known.not_before] if action is not None and now < known.not_before else []
    return found + ([max(decided.again, now + SOON)] if decided.again is not None else [])


def _unused(name: str, found: Observed, known: Memory, now: float, grace: float) -> tuple[Memory, CellState, float]:
    """What to remember and to tell of a Service that no cell wants, and when it goes."""
    since = now if known.unused_since is None else known.unused_since
    cause, step = known.failure or (f"no live agent belongs to it; it goes after {grace:.0f} s", "")
    state = CellState(
        cell=found.cell,
        service=name,
        phase=Phase.UNUSED,
        cause=cause,
        next_step=step,
        revisions=_revisions(found),
    )
    return replace(known, unused_since=since), state, max(since + grace, known.not_before)


def _let_go(name: str, found: Observed, known: Memory, now: float) -> list[Action]:
    """What keeps pods of a Service that no cell wants, one at a time."""
    kept = [one for one in found.revisions if one.least][:1]
    if found.deleting or now < known.not_before:
        return []
    return [Keep(name=name, revision=one.name, uid=one.uid, least=0) for one in kept]


def applied(known: Memory, generation: int) -> Memory:
    """What to remember after an apply that the cluster took."""
    return Memory(applied=generation, progress=known.progress)


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
    return not isinstance(error, (ClusterConflict, ClusterRefused, ObjectGone, QuotaExceeded))


def _decide(want: Wanted, found: Observed | None, known: Memory, pace: Pace, now: float) -> Decision:
    target = Target(digest=want.digest, least=want.least, kept=want.kept, most=want.most, initial=want.initial)
    revisions = () if found is None else found.revisions
    return decide(target, None if found is None else found.serving, revisions, known.progress, pace, now)


def _changes_over(found: Observed) -> bool:
    """Whether more than one of its revisions has pods or calls for it now."""
    return len({one.revision for one in found.asked if not found.failed}) > 1


def _begins(want: Wanted, found: Observed | None) -> bool:
    """Whether a new revision would begin to take over from those that serve."""
    return found is not None and bool(found.carried) and found.digest != want.digest and not _changes_over(found)


def _action(name: str, want: Wanted, found: Observed | None, known: Memory, decided: Decision) -> Action | None:
    reason = _why_apply(want, found, known, decided)
    if reason is not None:
        return Apply(
            name=name,
            reason=reason,
            traffic=decided.traffic,
            initial=decided.initial,
            attempt=decided.attempt,
            failed=decided.failed,
        )
    if decided.hold is None or want.fault is not None or found is None or _is_old(found, known):
        return None
    return Keep(name=name, revision=decided.hold.revision, uid=decided.hold.uid, least=decided.hold.least)


def _is_old(found: Observed, known: Memory) -> bool:
    """It goes, or what the watch brought is older than what was applied since."""
    return found.deleting or (known.applied is not None and found.generation < known.applied)


def _why_apply(want: Wanted, found: Observed | None, known: Memory, decided: Decision) -> str | None:
    if want.fault is not None:
        return None
    if found is None:
        return "it is not there"
    if _is_old(found, known):
        return None
    if found.digest != want.digest:
        return "it is not as wanted"
    if known.applied is not None and found.generation > known.applied:
        return "somebody else changed it"
    if known.applied is None and found.foreign:
        return "somebody else changed it while nobody looked"
    if (found.attempt, found.failed) != (decided.attempt, decided.failed) or found.asked != decided.traffic:
        return f"its calls move: {decided.cause or decided.stage.value}"
    return None


def _state(name: str, want: Wanted, found: Observed | None, known: Memory, decided: Decision) -> CellState:
    phase, (cause, step) = _told(want, found, known, decided)
    return CellState(
        cell=want.cell,
        service=name,
        phase=phase,
        cause=cause,
        next_step=step,
        reason=Reason.NOT_RUNNABLE if want.fault is not None else known.reason,
        tries=decided.tries,
        kept=want.kept,
        revisions=() if found is None else _revisions(found),
    )


def _revisions(found: Observed) -> tuple[RevisionState, ...]:
    """The revisions that have calls or pods, and the newest."""
    percent = Counter[str]()
    for one in found.carried:
        percent[one.revision] += one.percent
    newest = max((one.number for one in found.revisions), default=0)
    return tuple(
        RevisionState(
            revision=one.name,
            percent=percent[one.name],
            replicas=one.replicas,
            ready=one.ready,
            cause=one.trouble[0] if one.trouble is not None else "",
        )
        for one in sorted(found.revisions, key=lambda one: one.number)
        if percent[one.name] or one.replicas or one.number == newest
    )


def _told(want: Wanted, found: Observed | None, known: Memory, decided: Decision) -> tuple[Phase, tuple[str, str]]:
    if want.fault is not None:
        return Phase.FAILED, want.fault
    if known.failure is not None:
        return Phase.FAILED, known.failure
    if found is None or found.digest != want.digest:
        return Phase.DEPLOYING, ("its Knative Service is being applied", "")
    if found.deleting:
        return Phase.DEPLOYING, ("its Knative Service is being deleted, and made anew then", "")
    if decided.stage is Stage.FAILED:
        return Phase.FAILED, (decided.cause, decided.next_step)
    if decided.stage in (Stage.WAITING, Stage.MOVING):
        return Phase.DEPLOYING, (decided.cause, "")
    if found.ready:
        return Phase.READY, _warmth(want, found) if not decided.cause else (decided.cause, "")
    if found.trouble is not None:
        return Phase.FAILED, found.trouble
    return Phase.DEPLOYING, ("its newest revision isn't ready yet", "")


def _warmth(want: Wanted, found: Observed) -> tuple[str, str]:
    """How many of the pods that are kept warm are there, where it isn't all."""
    ready = sum(one.replicas for one in found.revisions if one.ready)
    if ready < want.kept:
        return f"{ready} of {want.kept} warm pods are there", "see whether the cluster has room for them"
    if want.kept < want.asked:
        return (
            f"{want.kept} of {want.asked} pods are kept warm: no more than `knative.most_kept` are, of all cells",
            "raise `knative.most_kept`, or lower `knative.warm_pool`",
        )
    return "", ""


def _waits(name: str, want: Wanted, found: Observed, rollouts: int) -> CellState:
    return CellState(
        cell=want.cell,
        service=name,
        phase=Phase.DEPLOYING,
        cause=f"{rollouts} cells change over, the most at once; this one waits for its turn",
        kept=want.kept,
        revisions=_revisions(found),
    )


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
