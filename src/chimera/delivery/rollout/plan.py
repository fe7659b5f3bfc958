"""What a rollout does next, as a pure rule: `(rollout, members, how their sides stand, now) -> Step`.

It is level-triggered. A pass reads what is stored and what is so, decides the phase of each member, and says which
sides are not as those phases want them. Whatever was lost between two passes (a crash between two writes, an action
that was never made, or made twice, a leader that came back late) is found and made good by the next. Nothing follows
from an event.

The order of rules is that of safety: what somebody else did to an agent, what was condemned, what people want, and only
then what comes next. A breach takes back what it concerns also while a rollout rests: people who pause it want it to go
no further, not to have its bad side served.

Cost: some microseconds for a member, 0.03 to 0.2 ms where both sides of it had calls.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from msgspec.structs import replace

from chimera.agents.catalogue import ChangedMeanwhile
from chimera.delivery.rollout.judging import Judgement, Subject, judge, strength, why
from chimera.delivery.rollout.model import ENDED, MOVED, OVER, UNDER_WAY, Member, Phase, Rollout
from chimera.delivery.rollout.sequential import Window, counting, observe, patience
from chimera.delivery.sides.model import WHOLE, Green, Seen, Standing
from chimera.delivery.sides.rules import BOUNDS

Event = Literal["wave", "paused", "resumed", "promoting", "rolling-back", "done", "rolled-back", "aborted"]
ALL = "all of the change is taken back"
_FAILED: frozenset[Phase] = frozenset({"rolling-back", "rolled-back"})

NAMED = 3
"""Agents that a sentence names at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Actions:
    """What is to be done to sides, each for many agents at once. Doing it again changes nothing."""

    green: tuple[Green, ...] = ()
    weights: Mapping[str, int] = field(default_factory=dict)
    keep_green: tuple[Green, ...] = ()
    keep_blue: tuple[Green, ...] = ()

    @property
    def any(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.green or self.weights or self.keep_green or self.keep_blue)


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """The rollout and all its members after a pass, those that changed, what is worth telling, and what to do.

    `lost` are the members that are taken back for a reason of their own, since this pass.
    """

    rollout: Rollout
    members: tuple[Member, ...]
    changed: tuple[Member, ...]
    lost: tuple[Member, ...]
    told: tuple[Event, ...]
    actions: Actions


def absorb(members: Sequence[Member], seen: Iterable[Seen], rollout: Rollout) -> tuple[Member, ...]:
    """The members with what was seen of them, window by window. Who isn't moved learns nothing more."""
    windows: dict[str, dict[int, list[Seen]]] = {}
    for one in seen:
        windows.setdefault(one.agent, {}).setdefault(one.window, []).append(one)
    found = []
    for member in members:
        its = windows.get(member.agent)
        if its is None or member.phase not in MOVED:
            found.append(member)
            continue
        evidence, alone = member.evidence, patience(weight_of(rollout, member) / WHOLE)
        for window in sorted(its):
            blue = _window(one for one in its[window] if not one.green)
            green = _window(one for one in its[window] if one.green and one.revision == member.revision)
            evidence = observe(evidence, blue, green, member.objective, rollout.policy.allowed, BOUNDS, alone=alone)
        found.append(replace(member, evidence=evidence))
    return tuple(found)


def plan(rollout: Rollout, members: Sequence[Member], standing: Mapping[str, Standing], now: float) -> Step:
    """What comes next. `standing` says how members with a green side stand; who isn't in it isn't there."""
    if rollout.state in ENDED:
        return Step(rollout=rollout, members=tuple(members), changed=(), lost=(), told=(), actions=Actions())
    before = {one.agent: one for one in members}
    passing = _Pass(rollout, list(members), standing, now)
    passing.settle()
    if rollout.state in ("running", "paused"):
        passing.go_on()
    elif rollout.state == "promoting":
        passing.keep_together()
    passing.end()
    changed = tuple(one for one in passing.members if one != before[one.agent])
    return Step(
        rollout=passing.rollout,
        members=tuple(passing.members),
        changed=changed,
        lost=tuple(one for one in changed if _was_lost(before[one.agent], one)),
        told=tuple(passing.told),
        actions=act(passing.rollout, passing.members, standing),
    )


def check_wanted(decided: Rollout, stored: Rollout) -> None:
    """Raise `ChangedMeanwhile` where a pass would make a rollout live that people want otherwise by now.

    Whoever was told that it is aborted, or paused, must not find it live.
    """
    if decided.state == "promoting" and stored.state != "promoting" and stored.wanted != decided.wanted:
        raise ChangedMeanwhile(
            f"rollout {decided.id} is wanted otherwise by now ({stored.wanted})",
            next_step="nothing: it is planned anew",
        )


def act(rollout: Rollout, members: Iterable[Member], standing: Mapping[str, Standing]) -> Actions:
    """What differs between how sides stand and how the members' phases want them."""
    green, keep_green, keep_blue = [], [], []
    weights: dict[str, int] = {}
    for one in members:
        how = standing.get(one.agent)
        item = Green(agent=one.agent, revision=one.revision, before=one.before, owner=one.owner)
        if one.phase == "loading":
            if how is None or (how.green != one.revision and how.blue != one.revision):
                green.append(item)
        elif one.phase in ("shifting", "baking", "waiting"):
            wanted = weight_of(rollout, one)
            if how is not None and how.green == one.revision and one.revision is not None and how.weight != wanted:
                weights[one.agent] = wanted
        elif one.phase == "promoting" and not _is_live(one, how):
            keep_green.append(item)
        elif one.phase == "rolling-back" and not _is_back(one, how):
            keep_blue.append(item)
    return Actions(green=tuple(green), weights=weights, keep_green=tuple(keep_green), keep_blue=tuple(keep_blue))


def weight_of(rollout: Rollout, member: Member) -> int:
    """The weight of a member's step, in basis points. A new agent has no blue side that could have the rest."""
    if member.before is None:
        return WHOLE
    steps = rollout.policy.steps
    return round(steps[min(max(member.step, 0), len(steps) - 1)] * WHOLE / 100)


def lose(member: Member, reason: str, now: float) -> Member:
    """A member that can't go on, taken back."""
    return replace(member, phase="rolling-back", since=now, doubted=False, reason=reason)


def refuse(members: Sequence[Member], refused: Mapping[str, str], now: float) -> tuple[Member, ...]:
    """The members whose sides could not be set or ended, taken back with the reason."""
    return tuple(lose(one, refused[one.agent], now) for one in members if one.agent in refused and one.phase in MOVED)


def spare(rollout: Rollout, members: Iterable[Member]) -> int:
    """How many more members may go back alone."""
    return max(0, rollout.policy.tolerate - sum(one.phase in _FAILED for one in members))


def _was_lost(before: Member, after: Member) -> bool:
    return after.phase == "rolling-back" and before.phase != "rolling-back" and after.reason != ALL


class _Pass:
    """One pass. Each method is a rule over all members; what it decides is seen by the next."""

    def __init__(self, rollout: Rollout, members: list[Member], standing: Mapping[str, Standing], now: float) -> None:
        self.rollout = rollout
        self.members = members
        self.standing = standing
        self.now = now
        self.told: list[Event] = []

    # -- what has become so ----------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Members whose sides stand as was wanted are over with it; those that somebody else changed are lost."""
        for place, one in enumerate(self.members):
            how = self.standing.get(one.agent)
            if one.phase == "promoting" and _is_live(one, how):
                self._put(place, phase="done")
            elif one.phase == "rolling-back" and _is_back(one, how):
                self._put(place, phase="rolled-back")
            elif one.phase in MOVED and one.phase != "loading" and not _is_ours(one, how):
                self.members[place] = lose(one, "somebody else changed the agent meanwhile", self.now)

    # -- what comes next -------------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """The rules of a rollout that is neither ending nor over."""
        self._rest()
        if self._condemn():
            return
        if self.rollout.wanted == "abort":
            asked = self.rollout.asked
            self._take_back(f"aborted by {self.rollout.asked_by}" + (f": {asked}" if asked else ""))
            return
        if self.rollout.state == "paused":
            return
        self._advance()
        if self._give_up():
            return
        self._next_wave()
        self._begin()
        self._promote()

    def _rest(self) -> None:
        state, wanted = self.rollout.state, self.rollout.wanted
        if state == "running" and wanted == "pause":
            asked = self.rollout.asked
            reason = f"paused by {self.rollout.asked_by}" + (f": {asked}" if asked else "")
            self.rollout = replace(self.rollout, state="paused", reason=reason)
            self.told.append("paused")
        elif state == "paused" and wanted == "run":
            self.rollout = replace(self.rollout, state="running", reason="")
            self.told.append("resumed")

    def _condemn(self) -> bool:
        """Take back who is worse; whether that is all of the rollout."""
        groups: list[tuple[str, int]] = []
        for wave in range(self.rollout.wave + 1):
            found = self._judge(wave)
            groups += [(name, wave) for name in found.groups]
            for place, one in enumerate(self.members):
                if one.wave != wave or one.phase not in MOVED or one.phase == "loading":
                    continue
                if one.agent in found.agents:
                    said = why(one.evidence, counting([one.evidence]))
                    self.members[place] = lose(one, f"it is worse than before: {said}", self.now)
                elif (one.agent in found.doubted) != one.doubted:
                    self.members[place] = replace(one, doubted=one.agent in found.doubted)
        if groups:
            name, wave = groups[0]
            several = [one for one in self.members if (one.group, one.wave) == (name, wave)]
            failures = sum(one.evidence.green.failures for one in several)
            calls = sum(one.evidence.green.calls for one in several)
            self._take_back(
                f"the {len(several)} agents with the same change are worse together than before: "
                f"{failures} of {calls} calls failed"
            )
            return True
        return self._give_up()

    def _judge(self, wave: int) -> Judgement:
        of_wave = [one for one in self.members if one.wave == wave]
        begun = [one for one in of_wave if one.evidence.green.calls]
        policy = self.rollout.policy
        if not begun:
            return Judgement(agents={}, groups={}, doubted=frozenset())
        return judge(
            [
                Subject(
                    agent=one.agent,
                    group=one.group,
                    evidence=one.evidence,
                    doubted=one.doubted,
                    open=one.phase in MOVED,
                )
                for one in begun
            ],
            size=len(of_wave),
            groups=len({one.group for one in of_wave}),
            error=policy.error / self.rollout.waves,
            least_calls=policy.least_to_condemn,
            spare=policy.tolerate + 1,
        )

    def _give_up(self) -> bool:
        """Take all of it back where more members failed than are tolerated; whether that is so."""
        failed = [one for one in self.members if one.phase in _FAILED]
        if len(failed) <= self.rollout.policy.tolerate:
            return False
        named = "; ".join(f"{one.agent}: {one.reason}" for one in failed[:NAMED]) + _more(failed)
        self._take_back(f"{len(failed)} of {self.rollout.agents} agents had to be taken back ({named})")
        return True

    def _take_back(self, reason: str) -> None:
        self.rollout = replace(self.rollout, state="rolling-back", reason=reason)
        self.told.append("rolling-back")
        for place, one in enumerate(self.members):
            if one.phase == "pending":
                self._put(place, phase="skipped")
            elif one.phase in MOVED:
                self._put(place, phase="rolling-back", doubted=False, reason=ALL)

    def _advance(self) -> None:
        """Members that have had their time go on to their next step or phase."""
        policy = self.rollout.policy
        for place, one in enumerate(self.members):
            how, waited = self.standing.get(one.agent), self.now - one.since
            if one.phase == "loading":
                self._load(place, one, how, waited)
            elif one.phase == "shifting" and not one.doubted and waited >= policy.step_seconds:
                self._shift(place, one.step + 1)
            elif one.phase == "baking" and waited >= policy.bake_seconds:
                self._decide(place, one, waited)

    def _load(self, place: int, one: Member, how: Standing | None, waited: float) -> None:
        if one.revision is None:
            if how is None or how.blue == one.before:
                self._put(place, phase="waiting", strength="low", reason="it is taken out of service with the others")
            else:
                self.members[place] = lose(one, "somebody else changed the agent meanwhile", self.now)
        elif how is not None and how.blue == one.revision and how.green is None:
            self._put(place, phase="waiting", strength="low", reason="it was live already")
        elif how is not None and how.green == one.revision and how.loaded:
            self._shift(place, 0 if one.before is not None else len(self.rollout.policy.steps) - 1)
        elif waited >= self.rollout.policy.load_seconds:
            problem = "" if how is None or how.problem is None else f": {how.problem}"
            self.members[place] = lose(
                one, f"it was not loaded within {self.rollout.policy.load_seconds:g} s{problem}", self.now
            )
        elif how is not None and how.problem is not None and how.problem != one.reason:
            self.members[place] = replace(one, reason=how.problem)

    def _shift(self, place: int, step: int) -> None:
        last = step >= len(self.rollout.policy.steps) - 1
        self._put(place, phase="baking" if last else "shifting", step=step, reason="")

    def _decide(self, place: int, one: Member, waited: float) -> None:
        """The end of a member's bake time. Doubt is waited out, up to a bound; it takes nothing back."""
        policy = self.rollout.policy
        if one.doubted and waited < max(policy.longest_bake, policy.bake_seconds):
            return
        known = strength(one.evidence, least_calls=policy.least_calls, tolerance=policy.tolerance, error=policy.error)
        calls = one.evidence.green.calls
        if known == "low" and one.cases == "failed":
            self.members[place] = lose(one, f"its evaluation cases failed, and it had only {calls} calls", self.now)
        elif one.doubted:
            self._put(place, phase="waiting", strength="low", reason=f"in doubt to the end: {why(one.evidence)}")
        elif known == "low":
            cases = "its evaluation cases passed" if one.cases == "passed" else "it has no evaluation cases"
            self._put(place, phase="waiting", strength="low", reason=f"{calls} calls; {cases}")
        else:
            self._put(place, phase="waiting", strength=known, reason="")

    def _next_wave(self) -> None:
        while self.rollout.wave + 1 < self.rollout.waves and all(
            one.phase == "waiting" or one.phase in OVER or one.phase == "rolling-back"
            for one in self.members
            if one.wave <= self.rollout.wave
        ):
            self.rollout = replace(self.rollout, wave=self.rollout.wave + 1)
            self.told.append("wave")

    def _begin(self) -> None:
        policy = self.rollout.policy
        ailing = sum(
            one.phase == "rolling-back" or (one.phase == "loading" and bool(one.reason)) for one in self.members
        )
        if ailing >= policy.max_unavailable:
            return
        free = policy.max_parallel - sum(one.phase in UNDER_WAY for one in self.members)
        for place, one in enumerate(self.members):
            if free <= 0:
                return
            if one.phase == "pending" and one.wave <= self.rollout.wave:
                self._put(place, phase="loading")
                free -= 1

    def _promote(self) -> None:
        """Make all live once every member is decided."""
        if any(one.phase not in OVER and one.phase not in ("waiting", "rolling-back") for one in self.members):
            return
        if any(one.phase == "waiting" for one in self.members):
            self.rollout = replace(self.rollout, state="promoting")
            self.told.append("promoting")
            for place, one in enumerate(self.members):
                if one.phase == "waiting":
                    # What was said of its evidence stays said.
                    self._put(place, phase="promoting")
        else:
            self._keep_none()

    def keep_together(self) -> None:
        """What was decided and isn't live yet is taken back where too much of it was lost meanwhile.

        All become live in one transaction: where one is, the others were, and what people do with them then is theirs.
        """
        if any(one.phase == "done" for one in self.members):
            return
        if not self._give_up() and all(one.phase in OVER for one in self.members):
            self._keep_none()

    def _keep_none(self) -> None:
        self.rollout = replace(self.rollout, state="rolling-back", reason="no agent was kept")
        self.told.append("rolling-back")

    # -- its end ---------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """A rollout whose members are all over is over."""
        if self.rollout.state not in ("promoting", "rolling-back"):
            return
        if not all(one.phase in OVER for one in self.members):
            return
        if self.rollout.state == "promoting":
            self._end("done")
        elif self.rollout.wanted == "abort":
            self._end("aborted")
        else:
            self._end("rolled-back")

    def _end(self, state: Literal["done", "rolled-back", "aborted"]) -> None:
        reason = self.rollout.reason
        if state == "done":
            back = [one.agent for one in self.members if one.phase != "done"]
            reason = f"all but {', '.join(back[:NAMED])}{_more(back)}" if back else ""
        self.rollout = replace(self.rollout, state=state, reason=reason, ended=self.now)
        self.told.append(state)

    def _put(self, place: int, *, phase: Phase, **fields: object) -> None:
        self.members[place] = replace(self.members[place], phase=phase, since=self.now, **fields)


def _is_ours(member: Member, how: Standing | None) -> bool:
    """Whether a member's sides are still what this rollout made them."""
    if member.revision is None:
        return how is None or how.blue == member.before
    return how is not None and (how.green == member.revision or (how.green is None and how.blue == member.revision))


def _is_live(member: Member, how: Standing | None) -> bool:
    if member.revision is None:
        return how is None or how.blue is None
    return how is not None and how.blue == member.revision and how.green is None


def _is_back(member: Member, how: Standing | None) -> bool:
    """Whether nothing of the member's new revision gets calls: also where somebody else has changed the agent since."""
    if member.revision is None:
        return how is not None or member.before is None
    return how is None or (how.green != member.revision and how.blue != member.revision)


def _more(several: Sequence[object]) -> str:
    return f" and {len(several) - NAMED} more" if len(several) > NAMED else ""


def _window(seen: Iterable[Seen]) -> Window:
    calls = failures = 0
    buckets: tuple[int, ...] = ()
    for one in seen:
        calls += one.calls
        failures += one.failures
        buckets = tuple(a + b for a, b in zip(buckets, one.buckets, strict=True)) if buckets else one.buckets
    return Window(calls, failures, buckets)
