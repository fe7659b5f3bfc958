"""Blue-green of one cell: what calls never meet, and that it ends, whatever happens on the way and whoever dies."""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.adapters.substrates.knative import rollout
from chimera.adapters.substrates.knative.rollout import (
    ALL_TO_LATEST,
    NEXT,
    PREVIOUS,
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

PACE = Pace(steps=(10, 50, 100), pause=15.0, hold=60.0, start_timeout=100.0, retry=600.0, start_retry=60.0)
NEVER = ("ProgressDeadlineExceeded: Initial scale was never achieved", "see its pods")
NO_ROOM = ("Unschedulable: 0/3 nodes are available: 3 Insufficient cpu.", "add nodes")
BAD = ("the container failed", "see its log")
TICK = 5.0


@dataclass
class World:
    """One Service, its revisions and Knative, which does what it is asked when the test lets it."""

    want: Target
    pace: Pace = PACE
    demand: int = 1
    now: float = 1_000.0
    found: Serving | None = None
    revisions: dict[str, Revision] = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)
    progress: Progress = field(default_factory=Progress)
    stuck: set[str] = field(default_factory=set)
    unplaced: set[str] = field(default_factory=set)
    late: set[str] = field(default_factory=set)
    silent: bool = False
    initialised: set[str] = field(default_factory=set)
    served: list[dict[str, int]] = field(default_factory=list)
    writes: int = 0

    def control(self) -> Decision:
        """One pass of the control plane."""
        decided = decide(self.want, self.found, tuple(self.revisions.values()), self.progress, self.pace, self.now)
        self.check(decided)
        self.progress = decided.progress
        before = self.found
        said = Serving(
            digest=self.want.digest,
            initial=decided.initial,
            attempt=decided.attempt,
            asked=decided.traffic,
            carried=() if before is None else before.carried,
            failed=decided.failed,
        )
        if said != before:
            self.writes += 1
            self.found = said
        elif decided.hold is not None:
            self.writes += 1
            held = self.revisions[decided.hold.revision]
            self.revisions[held.name] = replace(held, least=decided.hold.least)
        return decided

    def check(self, decided: Decision) -> None:
        """Safety, at every step."""
        assert sum(one.percent for one in decided.traffic) == 100
        assert all(one.percent >= 0 for one in decided.traffic)
        names = [one.revision for one in decided.traffic]
        assert len(set(names)) == len(names) and len({one.tag for one in decided.traffic if one.tag}) <= 1
        if self.found is None:
            return
        before = {one.revision: one.percent for one in self.found.asked}
        serving = {one.revision for one in self.found.carried if one.percent}
        troubled = {name for name, one in self.revisions.items() if one.trouble is not None}
        for one in decided.traffic:
            more = one.percent > before.get(one.revision, 0)
            if not one.percent or not one.revision or not more:
                continue
            assert one.revision not in troubled or serving <= troubled, "a failed one gets no more calls"
            if one.revision not in serving and one.revision not in before:
                found = self.revisions[one.revision]
                assert found.ready, "nothing gets calls that isn't ready"
                blue = sum(self.revisions[name].replicas for name in serving)
                assert found.replicas >= min(self.want.most, max(blue, self.want.least)), "nor with less capacity"
        if serving and decided.stage is not Stage.STARTING:
            assert all(one.percent == 0 for one in decided.traffic if not one.revision) or (
                decided.traffic == ALL_TO_LATEST and decided.stage is Stage.STEADY
            ), "calls move by themselves to nothing while something serves"

    def knative(self) -> None:
        """One pass of the controllers."""
        if self.found is None:
            return
        key = (self.found.digest, self.found.initial, self.found.attempt)
        newest = max(self.revisions.values(), key=lambda one: one.number, default=None)
        if newest is None or key != (newest.digest, self.firsts[newest.name], newest.attempt):
            number = 1 if newest is None else newest.number + 1
            name = f"r-{number}"
            self.firsts[name] = self.found.initial
            self.revisions[name] = newest = Revision(
                name=name,
                uid=name,
                number=number,
                digest=self.found.digest,
                attempt=self.found.attempt,
                least=self.want.least,
            )
        shares = {one.revision: one.percent for one in self.found.carried}
        asked = {one.revision for one in self.found.asked}
        for name, one in self.revisions.items():
            self.revisions[name] = self.scaled(one, shares, asked, latest=name == newest.name)
        ready = [one.name for one in sorted(self.revisions.values(), key=lambda one: one.number) if one.ready]
        targets = [one.revision or (ready[-1] if ready else "") for one in self.found.asked]
        if all(targets):
            carried = tuple(
                Share(revision=name, percent=one.percent, tag=one.tag)
                for name, one in zip(targets, self.found.asked, strict=True)
            )
            self.found = replace(self.found, carried=carried)
            self.served.append({one.revision: one.percent for one in carried if one.percent})

    firsts: dict[str, int] = field(default_factory=dict)

    def scaled(self, one: Revision, shares: dict[str, int], asked: set[str], *, latest: bool) -> Revision:
        if one.name in self.late and one.name not in self.initialised:
            # Knative wants none of it any more, for good; one that has begun anew itself doesn't say what it wants.
            return replace(one, ready=False, replicas=0, desired=None if self.silent else 0, trouble=NEVER)
        if one.name in self.bad:
            return replace(one, ready=False, replicas=0, trouble=BAD)
        if one.name in self.unplaced:
            return replace(one, ready=False, replicas=0, trouble=NO_ROOM)
        if one.name in self.stuck:
            return replace(one, ready=False, replicas=0)
        first = max(1, one.least, self.firsts[one.name])
        if one.name not in self.initialised:
            replicas = min(first, one.replicas + 3)  # pods come a few at a time
            if replicas >= first:
                self.initialised.add(one.name)
            return replace(one, replicas=replicas, ready=replicas >= first)
        routed = one.name in asked or one.name in shares or (latest and "" in asked)
        wanted = -(-self.demand * shares.get(one.name, 0) // 100)
        pods = max(one.least, wanted, one.replicas // 2) if routed else 0
        return replace(one, replicas=min(self.want.most, pods), ready=True)

    def run(self, seconds: float, tick: float = TICK) -> Decision:
        until = self.now + seconds
        while True:
            self.knative()
            decided = self.control()
            self.now += tick
            if self.now >= until:
                return decided


def steady(**changes: object) -> World:
    world = World(want=Target(digest="one", **changes))  # type: ignore[arg-type]
    world.run(100.0)
    assert world.served[-1] == {"r-1": 100}
    return world


def test_a_new_revision_comes_up_at_the_scale_of_what_serves_and_takes_over_by_steps() -> None:
    world = steady()
    world.demand = 7
    world.run(60.0)
    world.want = Target(digest="two")
    world.served.clear()
    decided = world.run(400.0)
    assert decided.stage is Stage.STEADY and world.found is not None
    shares = [served.get("r-2", 0) for served in world.served]
    assert sorted(set(shares)) == [0, 10, 50, 100] and shares == sorted(shares)
    assert world.firsts["r-2"] == 7, "its first pods are as many as served"
    assert world.found.asked == (Share(revision="r-2", percent=100),)
    assert world.revisions["r-1"].replicas == 0 and world.revisions["r-2"].least == 0, "and the hold is over"


def test_what_serves_may_grow_meanwhile_and_the_new_revision_grows_with_it() -> None:
    world = steady()
    world.want = Target(digest="two")
    world.control()
    world.knative()  # it is ready with one pod, as many as served
    assert world.revisions["r-2"].ready and world.revisions["r-2"].replicas == 1
    world.revisions["r-1"] = replace(world.revisions["r-1"], replicas=6)
    for _ in range(4):  # however often it is looked at before its pods are there
        decided = world.control()
        assert decided.stage is Stage.WAITING and decided.traffic[0] == Share(revision="r-1", percent=100)
    assert world.revisions["r-2"].least == 6
    world.demand = 6
    world.run(3 * TICK)
    assert world.served[-1]["r-2"] == 10 and world.revisions["r-2"].replicas >= 6


def test_in_the_steady_state_nothing_is_written() -> None:
    world = steady(least=2)
    for digest in ("one", "two"):
        world.want = replace(world.want, digest=digest)
        world.run(600.0)
        before = world.writes
        world.run(2_000.0)
        world.progress = Progress()  # and another control plane begins
        world.run(2_000.0)
        assert world.writes == before


def test_one_that_never_comes_leaves_what_serves_and_is_let_go() -> None:
    world = steady()
    world.demand = 4
    world.run(60.0)
    world.bad.add("r-2")
    world.want = Target(digest="two")
    world.served.clear()
    decided = world.run(60.0)
    assert decided.stage is Stage.FAILED and "the container failed" in decided.cause and decided.next_step
    assert all(served == {"r-1": 100} for served in world.served)
    assert world.found is not None and world.found.asked == (Share(revision="r-1", percent=100),)
    assert world.revisions["r-2"].least == 0 and world.revisions["r-1"].replicas == 4
    before = world.writes
    world.run(PACE.retry - 200.0)
    assert world.writes == before, "nothing is written while it waits"


def test_one_that_takes_too_long_is_given_up() -> None:
    world = steady()
    world.stuck.add("r-2")
    world.want = Target(digest="two")
    decided = world.run(PACE.start_timeout)
    assert decided.stage is Stage.WAITING and "0 of 1 pods" in decided.cause
    decided = world.run(60.0)
    assert decided.stage is Stage.FAILED and "r-2 is not ready after 13" in decided.cause
    assert world.found is not None and world.found.asked == (Share(revision="r-1", percent=100),)


def test_one_whose_pods_wait_for_a_node_has_the_time_of_a_start() -> None:
    world = steady()
    world.unplaced.add("r-2")
    world.want = Target(digest="two")
    decided = world.run(PACE.start_timeout)
    assert decided.stage is Stage.WAITING and "Insufficient cpu" in decided.cause
    before = world.writes
    world.unplaced.clear()
    world.revisions["r-2"] = replace(world.revisions["r-2"], trouble=None)
    assert world.run(200.0).stage is Stage.STEADY and world.served[-1] == {"r-2": 100}
    assert "r-3" not in world.revisions and world.writes > before

    world.unplaced.add("r-3")
    world.want = Target(digest="three")
    decided = world.run(PACE.start_timeout + 60.0)
    assert decided.stage is Stage.FAILED and "Insufficient cpu" in decided.cause
    assert world.served[-1] == {"r-2": 100}


def test_one_that_gets_stuck_with_calls_loses_them() -> None:
    world = steady()
    world.want = Target(digest="two")
    while world.served[-1].get("r-2", 0) < 10:
        world.run(TICK)
    world.stuck.add("r-2")
    world.run(PACE.start_timeout + 60.0)
    assert world.served[-1] == {"r-1": 100}


@pytest.mark.parametrize("share", [10, 50, 100])
def test_one_that_fails_with_calls_loses_them_at_once(share: int) -> None:
    world = steady()
    world.want = Target(digest="two")
    while world.served[-1].get("r-2", 0) < share:
        world.run(TICK)
    world.bad.add("r-2")
    world.run(2 * TICK)
    assert world.served[-1] == {"r-1": 100}
    assert world.found is not None and world.found.failed == "r-2 the container failed"


def test_one_that_failed_is_tried_again_as_another_revision_less_often_each_time() -> None:
    world = steady()
    world.bad |= {f"r-{number}" for number in range(2, 5)}
    world.want = Target(digest="two")
    tried = []
    for _ in range(2_000):
        world.run(TICK)
        if len(world.revisions) > len(tried) + 1:
            tried.append(world.now)
    pauses = [later - sooner for sooner, later in pairwise(tried)]
    assert len(pauses) == 3 and pauses[1] > 1.9 * pauses[0] and pauses[2] > 1.9 * pauses[1]
    assert world.served[-1] == {"r-5": 100}, "and takes over once it works"


@pytest.mark.parametrize("silent", [False, True])
def test_a_first_one_that_knative_gave_up_is_made_anew_less_often_each_time(silent: bool) -> None:
    world = World(want=Target(digest="one"), silent=silent)
    world.late = {f"r-{number}" for number in range(1, 11)}
    tried: list[float] = []
    world.control()
    while len(world.revisions) < 11:
        decided = world.run(TICK)
        if len(world.revisions) > len(tried):
            tried.append(world.now)
        elif decided.stage is Stage.FAILED:
            assert "never achieved" in decided.cause and f"try {len(tried)} was given up" in decided.tries
        else:
            assert f"try {len(tried) + 1} is made" in decided.cause
    pauses = [later - sooner for sooner, later in pairwise(tried)]
    least = PACE.start_timeout + 30.0 if silent else PACE.start_retry
    assert pauses[0] == pytest.approx(least, abs=3 * TICK)
    for before, after in pairwise(pauses):
        assert before <= after <= max(2 * before, least) + 3 * TICK
    assert pauses[-1] == pytest.approx(rollout.LONGEST_START_RETRY, abs=3 * TICK), "the longest there is"
    world.run(10 * TICK)
    assert world.served[-1] == {"r-11": 100}, "and it serves once its cause is gone"


def test_while_a_first_one_that_was_given_up_waits_nothing_is_written_whoever_begins_again() -> None:
    world = World(want=Target(digest="one"), late={"r-1"})
    world.run(2 * TICK)
    before, at = world.writes, world.now
    for _ in range(8):
        world.run(PACE.start_retry / 2)
        world.progress = Progress()  # another control plane, before the time is up
    assert world.writes == before and world.now > at + 3 * PACE.start_retry
    decided = world.control()
    assert decided.again == world.now + PACE.start_retry, "it is looked at again then"


def test_a_first_one_that_may_come_yet_is_left_alone() -> None:
    world = World(want=Target(digest="one"), stuck={"r-1"})
    world.run(2_000.0)
    assert world.writes == 1, "nothing says that it failed"
    world.revisions["r-1"] = replace(world.revisions["r-1"], desired=1, trouble=BAD)
    for _ in range(400):  # Knative wants a pod of it: its node tries on
        assert world.control().stage is Stage.STARTING
        world.now += TICK
    assert world.writes == 1


def test_a_change_of_what_was_given_up_is_tried_at_once_and_as_a_first_try() -> None:
    world = World(want=Target(digest="one"), late={"r-1", "r-2"})
    world.run(100.0)
    assert world.found is not None and world.found.attempt == 2
    world.want = Target(digest="two")
    world.run(3 * TICK)
    assert world.found.attempt == 1 and world.served[-1] == {"r-3": 100}


def test_another_change_on_the_way_begins_from_what_serves() -> None:
    world = steady()
    world.want = Target(digest="two")
    while world.served[-1].get("r-2", 0) < 50:
        world.run(TICK)
    world.want = Target(digest="three")
    world.run(2 * TICK)
    assert world.served[-1] == {"r-1": 50, "r-2": 50}, "nothing jumps"
    world.run(600.0)
    assert world.served[-1] == {"r-3": 100}
    assert {name for name, one in world.revisions.items() if one.replicas} == {"r-3"}


EVENTS = ("run", "run", "run", "control", "knative", "die", "want", "fail", "stick", "late", "mend", "demand", "wait")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 9)), max_size=60), st.integers(0, 5))
def test_whatever_happens_it_is_safe_and_ends_with_what_was_wanted_last(
    events: list[tuple[str, int]], least: int
) -> None:
    world = World(want=Target(digest="one", least=least, most=20))
    for what, number in events:
        match what:
            case "run":
                world.run(TICK * (1 + number))
            case "control":
                world.control()
            case "knative":
                world.knative()
            case "die":
                world.progress = Progress()
            case "want":
                world.want = replace(world.want, digest=f"digest-{number % 4}")
            case "fail" | "stick" if world.revisions:
                harmed = world.bad if what == "fail" else world.stuck
                harmed.add(sorted(world.revisions)[number % len(world.revisions)])
            case "late":  # those that come up from now on don't in time, and never again
                world.late.add(f"r-{len(world.revisions) + number % 3}")
            case "mend":
                world.stuck.clear()
                world.bad.clear()
                world.revisions = {name: replace(one, trouble=None) for name, one in world.revisions.items()}
            case "demand":
                world.demand = number
            case "wait":
                world.now += 20.0 * number
    world.stuck.clear()
    world.bad.clear()
    world.revisions = {name: replace(one, trouble=None) for name, one in world.revisions.items()}
    decided = world.run(25_000.0, tick=100.0)
    (last,) = world.served[-1]
    assert decided.stage is Stage.STEADY and world.served[-1][last] == 100
    assert world.revisions[last].digest == world.want.digest
    before = world.writes
    world.run(1_000.0)
    assert world.writes == before


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 100), min_size=1), st.integers(1, 100))
def test_shares_are_whole_and_nothing_is_lost(weights: dict[str, int], total: int) -> None:
    found = rollout._shares(weights, total)
    assert sum(one.percent for one in found) == total
    for one in found:
        assert abs(one.percent - total * weights[one.revision] / sum(weights.values())) < 1


def test_what_is_asked_for_by_tag_has_no_calls() -> None:
    world = steady()
    world.want = Target(digest="two")
    seen = set()
    for _ in range(60):
        world.run(TICK)
        assert world.found is not None
        seen |= {one.tag for one in world.found.asked if one.tag}
        assert all(one.percent == 0 for one in world.found.asked if one.tag)
    assert seen == {NEXT, PREVIOUS}
