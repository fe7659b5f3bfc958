"""Blue-green of one cell, as a pure rule: who gets how much of its calls now, and what the new revision must be first.

A changed cell is a new revision of its Knative Service. It begins with no calls and as many pods as those that serve
have (`initial`), reachable by a tag, so that Knative keeps it. Once it is ready at that scale, calls move to it by
weight, step by step. Until they all have, and for a while after, what served before keeps its place: a revision that
doesn't come in time, or fails on the way, loses its calls in the same write that says why, and is let go.

Where nothing ever served, whatever comes up first gets all calls. A first revision that Knative has given up is never
tried again by Knative, so another like it is made after a while (`_first`).

Level-triggered: everything that decides is read from the Service and its revisions, so whoever begins again goes on
from where another ended. Only times are remembered (`Progress`); losing them makes a pause longer, never a step wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

NEXT, PREVIOUS = "next", "previous"
PATIENCE = 30.0
"""Knative has its own deadline of a revision's start; this one, later by so much, is for what it doesn't see."""
LONGEST_RETRY = 6 * 3_600.0
LONGEST_START_RETRY = 3_600.0
"""Where nothing serves, callers wait for the next try."""
UNPLACED = "Unschedulable"
"""How a revision's trouble begins whose pods wait for room: a node that comes brings them up."""
MEND = "mend what it says, or change it back (`knative.image`, say); it is tried again after `knative.rollout_retry`"


@dataclass(frozen=True, kw_only=True, slots=True)
class Revision:
    """A revision as observed. `least` is its minimum of pods now; `number` grows with each of a Service.

    `digest` and `attempt` are those of the template that it was made from. `desired` is how many pods Knative wants of
    it, where it says so.
    """

    name: str
    uid: str = ""
    number: int = 0
    digest: str = ""
    attempt: int = 1
    ready: bool = False
    replicas: int = 0
    desired: int | None = None
    least: int = 0
    trouble: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A revision's part of the calls in percent; without a name it is whichever became ready last."""

    revision: str = ""
    percent: int = 0
    tag: str = ""


ALL_TO_LATEST = (Share(percent=100),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """A Service as observed: what its template says, what was asked for, and what Knative carried out.

    `initial` and `attempt` are of the template too, and change only with a new revision. `failed` is the name of a
    revision that was given up, and why.
    """

    digest: str
    initial: int = 1
    attempt: int = 1
    asked: tuple[Share, ...] = ALL_TO_LATEST
    carried: tuple[Share, ...] = ()
    failed: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What is wanted: the digest of the template, and the bounds of its scale.

    `kept` is the minimum of the revision that serves, where it is above the template's: the warm pool.
    """

    digest: str
    least: int = 0
    kept: int = 0
    most: int = 1_000
    initial: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How fast calls move: to which shares, seconds between two, and how long what served before stays at hand.

    What was given up is tried again after `retry` where another serves, after `start_retry` where none does.
    """

    steps: tuple[int, ...] = (100,)
    pause: float = 15.0
    hold: float = 60.0
    start_timeout: float = 300.0
    retry: float = 600.0
    start_retry: float = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Times of the newest revision: since when it is waited for, when its share last grew, when it was given up."""

    revision: str = ""
    since: float | None = None
    moved: float | None = None
    failed: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """Set the minimum of a revision's pods."""

    revision: str
    uid: str
    least: int


class Stage(Enum):
    """Where a cell's newest revision is."""

    STARTING = "starting"
    WAITING = "waiting"
    MOVING = "moving"
    WATCHED = "watched"
    FAILED = "failed"
    STEADY = "steady"


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What the Service should ask for, the minimum to set, what to tell, what to remember, when to look again.

    `tries` says of a cell where nothing ever served that it was given up, and when it is tried again.
    """

    traffic: tuple[Share, ...]
    initial: int
    stage: Stage
    attempt: int = 1
    failed: str = ""
    hold: Hold | None = None
    cause: str = ""
    next_step: str = ""
    tries: str = ""
    progress: Progress = Progress()
    again: float | None = None


def decide(
    want: Target,
    found: Serving | None,
    revisions: Sequence[Revision],
    progress: Progress,
    pace: Pace,
    now: float,
) -> Decision:
    """The next step of a cell's Service towards `want`."""
    if found is None:
        return Decision(traffic=ALL_TO_LATEST, initial=min(want.initial, want.most), stage=Stage.STARTING)
    by_name = {one.name: one for one in revisions}
    serving = _serving(found, by_name)
    if not serving:
        return _first(want, found, revisions, progress, pace, now)
    if found.digest != want.digest:
        serving = _healthy(serving, by_name)
        return Decision(
            traffic=(*_shares(serving, 100), Share(tag=NEXT)),
            initial=_initial(want, serving, by_name),
            stage=Stage.WAITING,
            cause="a new revision of it is applied",
        )
    made = [one for one in revisions if (one.digest, one.attempt) == (want.digest, found.attempt)]
    green = max(made, key=lambda one: one.number, default=None)
    if green is None:
        return Decision(
            traffic=found.asked,
            initial=found.initial,
            attempt=found.attempt,
            stage=Stage.WAITING,
            failed=found.failed,
            cause="Knative makes a new revision of it",
        )
    if progress.revision != green.name:
        progress = Progress(revision=green.name)
    olds = _healthy({name: share for name, share in serving.items() if name != green.name}, by_name)
    rollout = _Rollout(
        want=want,
        found=found,
        green=green,
        olds=olds or _before(found, by_name, green.name),
        by_name=by_name,
        pace=pace,
        now=now,
    )
    if not rollout.olds:
        decided = rollout.steady()
    elif found.failed.partition(" ")[0] == green.name:
        decided = rollout.given_up(progress)
    elif (fault := rollout.fault(progress)) is not None:
        decided = rollout.back(progress, fault)
    elif not olds:
        decided = rollout.watch(progress)
    else:
        decided = rollout.advance(progress)
    if decided.hold is None:
        decided = replace(decided, hold=_let_go(decided.traffic, green, revisions))
    return decided


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rollout:
    """A new revision (`green`) and those that served before it or still do (`olds`, by name, with their shares)."""

    want: Target
    found: Serving
    green: Revision
    olds: Mapping[str, int]
    by_name: Mapping[str, Revision]
    pace: Pace
    now: float

    @property
    def share(self) -> int:
        """What the new revision is given by name."""
        return sum(one.percent for one in self.found.asked if one.revision == self.green.name)

    @property
    def need(self) -> int:
        """How many pods the new revision must have before it gets calls: as many as those that serve."""
        return min(self.want.most, max(self.want.least, 1, _pods(self.olds, self.by_name)))

    @property
    def at_scale(self) -> bool:
        """Whether it has them."""
        return self.green.replicas >= self.need

    @property
    def unplaced(self) -> str:
        """What Knative says of it while it only waits for room on a node; empty otherwise."""
        trouble = "" if self.green.trouble is None else self.green.trouble[0]
        return trouble if trouble.startswith(UNPLACED) else ""

    def steady(self) -> Decision:
        """Nothing served before: the newest revision has all calls."""
        alone = (Share(revision=self.green.name, percent=100),)
        traffic = self.found.asked if self.found.asked in (ALL_TO_LATEST, alone) else alone
        return self._decision(traffic, Stage.STEADY, hold=self._hold(max(self.want.least, self.want.kept)))

    def fault(self, progress: Progress) -> tuple[str, str] | None:
        """Why the new revision must not have calls, and the next step."""
        began = progress.moved if self.share else progress.since
        waited = self.now - began if began is not None else 0.0
        overdue = waited > self.pace.start_timeout + PATIENCE
        if self.green.trouble is not None and (overdue or self.share or not self.unplaced):
            return self.green.trouble
        if not overdue or (self.green.ready and (self.share or self.at_scale)):
            return None
        missing = f"has {self.green.replicas} of {self.need} pods" if self.green.ready else "is not ready"
        return f"{missing} after {waited:.0f} s", "see its pods' events in the namespace of cells"

    def back(self, progress: Progress, fault: tuple[str, str]) -> Decision:
        """All calls to what served before, and why, in one write."""
        cause, step = fault
        return self._given_up(f"{self.green.name} {cause}", step, replace(progress, failed=self.now))

    def given_up(self, progress: Progress) -> Decision:
        """Let the failed revision go, and try another like it much later."""
        since = self.now if progress.failed is None else progress.failed
        if self.now >= since + self.retry:
            return replace(
                self._decision((*_shares(self.olds, 100), Share(tag=NEXT)), Stage.WAITING, cause="it is tried again"),
                attempt=self.found.attempt + 1,
                initial=_initial(self.want, self.olds, self.by_name),
            )
        return self._given_up(self.found.failed, "", replace(progress, failed=since))

    @property
    def retry(self) -> float:
        """Seconds until another revision like the failed one is made: twice as many each time."""
        return float(min(LONGEST_RETRY, self.pace.retry * 2 ** min(self.found.attempt - 1, 20)))

    def advance(self, progress: Progress) -> Decision:
        """More calls to the new revision, where it is ready for them and the last step was carried out."""
        since = self.now if progress.since is None else progress.since
        progress = replace(progress, since=since)
        share, held = self.share, self._hold(max(self.need, self.green.least))
        carried = {one.revision: one.percent for one in self.found.carried if one.percent}
        if share == 0 and (held is not None or not (self.green.ready and self.at_scale)):
            has = f"has {self.green.replicas} of {self.need} pods" + (f" ({self.unplaced})" if self.unplaced else "")
            return self._decision(
                (*_shares(self.olds, 100), Share(tag=NEXT)),
                Stage.WAITING,
                hold=held,
                cause=f"{self.green.name} {has}; calls stay where they are",
                progress=progress,
                again=since + self.pace.start_timeout + PATIENCE + 1.0,
            )
        moved = self.now if progress.moved is None else progress.moved
        done = carried.get(self.green.name, 0) == share
        said = f"{self.green.name} has {share} of 100 calls"
        if share and (not done or not self.green.ready or self.now < moved + self.pace.pause):
            due = moved + self.pace.pause
            again = due if self.now < due else moved + self.pace.start_timeout + PATIENCE + 1.0
            kept = replace(progress, moved=moved)
            return self._decision(self.found.asked, Stage.MOVING, hold=held, cause=said, progress=kept, again=again)
        step = next((one for one in sorted(self.pace.steps) if share < one < 100), 100)
        traffic = (*_shares(self.olds, 100 - step), Share(revision=self.green.name, percent=step))
        if step == 100:
            last = max(self.olds, key=lambda name: (self.olds[name], name))
            traffic = (Share(revision=self.green.name, percent=100), Share(revision=last, tag=PREVIOUS))
        return self._decision(
            traffic,
            Stage.MOVING,
            hold=held,
            cause=f"{self.green.name} is given {step} of 100 calls",
            progress=replace(progress, moved=self.now),
        )

    def watch(self, progress: Progress) -> Decision:
        """All calls are with the new revision; what served before stays at hand for a while."""
        moved = self.now if progress.moved is None else progress.moved
        if self.now < moved + self.pace.hold:
            return self._decision(
                self.found.asked,
                Stage.WATCHED,
                cause=f"{self.green.name} has all calls; what served before is kept for {self.pace.hold:.0f} s",
                progress=replace(progress, moved=moved),
                again=moved + self.pace.hold,
            )
        return self._decision((Share(revision=self.green.name, percent=100),), Stage.STEADY)

    def _given_up(self, failed: str, step: str, progress: Progress) -> Decision:
        return self._decision(
            _shares(self.olds, 100),
            Stage.FAILED,
            failed=failed,
            hold=self._hold(0),
            cause=f"{failed}; what served before has all calls",
            next_step=f"{step}; {MEND}" if step else MEND,
            progress=progress,
            again=(self.now if progress.failed is None else progress.failed) + self.retry,
        )

    def _hold(self, least: int) -> Hold | None:
        least = min(least, self.want.most)
        green = self.green
        return None if green.least == least else Hold(revision=green.name, uid=green.uid, least=least)

    def _decision(
        self,
        traffic: tuple[Share, ...],
        stage: Stage,
        *,
        failed: str = "",
        hold: Hold | None = None,
        cause: str = "",
        next_step: str = "",
        progress: Progress | None = None,
        again: float | None = None,
    ) -> Decision:
        return Decision(
            traffic=traffic,
            initial=self.found.initial,
            attempt=self.found.attempt,
            stage=stage,
            failed=failed,
            hold=hold,
            cause=cause,
            next_step=next_step,
            progress=Progress() if progress is None else progress,
            again=again,
        )


def _first(
    want: Target, found: Serving, revisions: Sequence[Revision], progress: Progress, pace: Pace, now: float
) -> Decision:
    """Nothing was ever ready: whatever comes first serves, and what Knative has given up is made anew.

    Knative scales a revision that isn't at its initial scale in time to nothing, for good. One of which it still wants
    pods may come yet. Where it doesn't say what it wants (it has just begun again, or hasn't found the image), it is
    given the time of a start.
    """
    starting = Decision(traffic=ALL_TO_LATEST, initial=min(want.initial, want.most), stage=Stage.STARTING)
    if found.digest != want.digest:
        return starting
    starting = replace(starting, initial=found.initial, attempt=found.attempt)
    made = [one for one in revisions if (one.digest, one.attempt) == (want.digest, found.attempt)]
    newest = max(made, key=lambda one: one.number, default=None)
    if newest is None or newest.trouble is None or newest.desired:
        return starting
    since = progress.failed if progress.revision == newest.name and progress.failed is not None else now
    retry = float(min(LONGEST_START_RETRY, pace.start_retry * 2 ** min(found.attempt - 1, 20)))
    if newest.desired is None:
        retry = max(retry, pace.start_timeout + PATIENCE)
    if now >= since + retry:
        return replace(
            starting,
            initial=min(want.initial, want.most),
            attempt=found.attempt + 1,
            cause=f"{newest.name} was given up; try {found.attempt + 1} is made",
        )
    cause, step = newest.trouble
    tries = f"try {found.attempt} was given up, another follows after {retry:.0f} s"
    return replace(
        starting,
        stage=Stage.FAILED,
        cause=f"{newest.name} {cause}; {tries}",
        next_step=step,
        tries=tries,
        progress=Progress(revision=newest.name, failed=since),
        again=since + retry,
    )


def _serving(found: Serving, by_name: Mapping[str, Revision]) -> dict[str, int]:
    """The revisions that have calls and are there, with their shares: as carried out, else as asked for."""
    for shares in (found.carried, found.asked):
        serving = {one.revision: one.percent for one in shares if one.percent and one.revision in by_name}
        if serving:
            return serving
    return {}


def _healthy(weights: dict[str, int], by_name: Mapping[str, Revision]) -> dict[str, int]:
    """Those without trouble; all where none is."""
    return {name: share for name, share in weights.items() if by_name[name].trouble is None} or weights


def _before(found: Serving, by_name: Mapping[str, Revision], green: str) -> dict[str, int]:
    """What served before the new revision got all calls, while it is kept at hand."""
    kept = [one.revision for one in found.asked if one.tag == PREVIOUS and one.revision in by_name]
    return {name: 100 for name in kept[:1] if name != green}


def _pods(names: Mapping[str, int], by_name: Mapping[str, Revision]) -> int:
    return sum(by_name[name].replicas for name in names)


def _initial(want: Target, serving: Mapping[str, int], by_name: Mapping[str, Revision]) -> int:
    return min(want.most, max(want.initial, want.least, _pods(serving, by_name)))


def _shares(weights: Mapping[str, int], total: int) -> tuple[Share, ...]:
    """`total` percent over revisions in proportion to their weights, in whole numbers (largest remainder)."""
    whole = sum(weights.values())
    parts = {name: divmod(total * weight, whole) for name, weight in weights.items()}
    left = total - sum(quotient for quotient, _ in parts.values())
    more = sorted(parts, key=lambda name: (-parts[name][1], name))[:left]
    found = {name: quotient + (name in more) for name, (quotient, _) in parts.items()}
    return tuple(Share(revision=name, percent=found[name]) for name in sorted(found) if found[name])


def _let_go(traffic: Sequence[Share], green: Revision, revisions: Sequence[Revision]) -> Hold | None:
    """The first revision that nobody asks for any more and that would keep pods."""
    asked = {one.revision for one in traffic} | {green.name}
    idle = (one for one in revisions if one.least and one.name not in asked)
    return next((Hold(revision=one.name, uid=one.uid, least=0) for one in idle), None)
