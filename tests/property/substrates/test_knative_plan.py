"""The plan over Knative Services: what it never does, and that it gets where it should whatever fails on the way."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.adapters.substrates.knative import plan as rules
from chimera.adapters.substrates.knative.errors import (
    ClusterAway,
    ClusterConflict,
    ClusterDenied,
    ClusterError,
    ClusterRefused,
    ClusterThrottled,
    QuotaExceeded,
)
from chimera.adapters.substrates.knative.plan import Apply, Delete, Memory, Observed, Phase, Wanted, plan
from chimera.delivery.trials.environment import name_of

names = st.sampled_from([f"c-{letter}" for letter in "abcdef"])
digests = st.sampled_from(["one", "two"])
GRACE = 100.0
ERRORS: tuple[type[ClusterError], ...] = (
    ClusterAway,
    ClusterConflict,
    ClusterDenied,
    ClusterRefused,
    ClusterThrottled,
    QuotaExceeded,
)


@st.composite
def services(draw: st.DrawFn) -> Observed:
    return Observed(
        uid=draw(st.sampled_from(["u1", "u2"])),
        generation=draw(st.integers(1, 5)),
        digest=draw(digests),
        cell="cell",
        ready=draw(st.booleans()),
        deleting=draw(st.booleans()),
    )


@st.composite
def cells(draw: st.DrawFn) -> Wanted:
    fault = draw(st.sampled_from([None, None, ("it can't run", "change it")]))
    return Wanted(cell="cell", digest="" if fault else draw(digests), fault=fault)


@st.composite
def memories(draw: st.DrawFn) -> Memory:
    failures = draw(st.integers(0, 30))
    return Memory(
        applied=draw(st.none() | st.integers(1, 5)),
        failures=failures,
        not_before=draw(st.floats(0, 200)) if failures else 0.0,
        failed_digest=draw(digests) if failures else "",
        failure=("it failed", "mend it") if failures else None,
        unused_since=draw(st.none() | st.floats(0, 200)),
    )


everything = (
    st.dictionaries(names, cells()),
    st.dictionaries(names, services()),
    st.dictionaries(names, memories()),
    st.floats(0, 400),
    st.integers(1, 8),
)


@given(*everything)
def test_safety(
    wanted: dict[str, Wanted], observed: dict[str, Observed], memory: dict[str, Memory], now: float, most: int
) -> None:
    decided = plan(wanted, observed, memory, now, most=most, grace=GRACE)
    made = [action for action in decided.actions if isinstance(action, Apply) and action.name not in observed]
    assert len({action.name for action in decided.actions}) == len(decided.actions), "one action for each Service"
    assert not made or len(observed) + len(made) <= most, "no more Services than are allowed"
    for action in decided.actions:
        known = memory.get(action.name, Memory())
        if isinstance(action, Delete):
            assert action.name not in wanted and observed[action.name].uid == action.uid
            assert known.unused_since is not None and now >= known.unused_since + GRACE
            assert not observed[action.name].deleting
        else:
            assert wanted[action.name].fault is None
            assert now >= known.not_before or known.failed_digest != wanted[action.name].digest
            found = observed.get(action.name)
            assert found is None or (
                not found.deleting and (found.digest != wanted[action.name].digest or found.generation != known.applied)
            )
    assert {state.service for state in decided.states} >= wanted.keys(), "a state is told of every wanted cell"
    assert decided.look_again is None or decided.look_again > now


@given(*everything)
def test_what_is_as_wanted_and_unchanged_is_left_alone(
    wanted: dict[str, Wanted], observed: dict[str, Observed], memory: dict[str, Memory], now: float, most: int
) -> None:
    for name, want in wanted.items():
        if want.fault is None:
            observed[name] = Observed(uid="u", generation=3, digest=want.digest, cell="cell", ready=True)
            memory[name] = Memory(applied=3)
    decided = plan(wanted, observed, memory, now, most=most, grace=GRACE)
    assert not [action for action in decided.actions if action.name in wanted]
    assert {state.phase for state in decided.states if state.service in wanted} <= {Phase.READY, Phase.FAILED}


def test_a_cell_of_an_environment_goes_a_minute_after_it_and_others_after_their_grace() -> None:
    gone = {
        name: Observed(uid=name, generation=1, digest="one", cell=f"{tenant}-function-standard-0123456789abcdef")
        for name, tenant in (("c-test", name_of("default", "staging", "chg")), ("c-live", "default"))
    }
    first = plan({}, gone, {}, 0.0, most=8, grace=GRACE)
    assert first.actions == () and first.look_again == 60.0
    later = plan({}, gone, first.memory, 60.0, most=8, grace=GRACE)
    assert [(one.name, type(one)) for one in later.actions] == [("c-test", Delete)] and later.look_again == GRACE


@dataclass
class Cluster:
    """A cluster that obeys, but for the failures that a test draws."""

    services: dict[str, Observed] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)
    writes: int = 0

    def step(self, wanted: dict[str, Wanted], now: float, most: int, failures: list[type[ClusterError]]) -> None:
        decided = plan(wanted, self.services, self.memory, now, most=most, grace=GRACE)
        self.memory = dict(decided.memory)
        for action in decided.actions:
            self.writes += 1
            known = self.memory.get(action.name, Memory())
            if failures:
                digest = wanted[action.name].digest if action.name in wanted else ""
                self.memory[action.name] = rules.failed(known, failures.pop()("no"), digest, now)
            elif isinstance(action, Delete):
                del self.services[action.name]
                self.memory.pop(action.name, None)
            else:
                before = self.services.get(action.name)
                generation = 1 if before is None else before.generation + 1
                self.services[action.name] = Observed(
                    uid="u", generation=generation, digest=wanted[action.name].digest, cell="cell", ready=True
                )
                self.memory[action.name] = rules.applied(known, generation)


@given(
    st.dictionaries(names, cells()),
    st.dictionaries(names, services().map(lambda found: replace(found, deleting=False))),
    st.lists(st.sampled_from(ERRORS), max_size=12),
)
def test_liveness_what_is_wanted_comes_about_whatever_failed_before(
    wanted: dict[str, Wanted], observed: dict[str, Observed], failures: list[type[ClusterError]]
) -> None:
    cluster = Cluster(services=observed)
    for number in range(60):
        cluster.step(wanted, number * 60.0, 100, failures)
    runnable = {name: want.digest for name, want in wanted.items() if want.fault is None}
    kept = {name: found.digest for name, found in cluster.services.items() if name in runnable}
    assert kept == runnable
    assert cluster.services.keys() <= wanted.keys(), "what nobody wants is gone"
    before = cluster.writes
    cluster.step(wanted, 10_000.0, 100, [])
    assert cluster.writes == before, "and then nothing is written"


@pytest.mark.parametrize("kind", ERRORS)
def test_failures_wait_longer_each_time_up_to_a_bound(kind: type[ClusterError]) -> None:
    known, waits = Memory(), []
    for _ in range(15):
        known = rules.failed(known, kind("no"), "one", 0.0)
        waits.append(known.not_before)
    assert waits == sorted(waits) and waits[0] == rules.FIRST_DELAY
    assert waits[-1] == (rules.LONGEST_REFUSED if issubclass(kind, rules.PATIENT) else rules.LONGEST_DELAY)


def test_a_server_that_names_a_time_is_not_asked_sooner() -> None:
    assert rules.failed(Memory(), ClusterThrottled("no", retry_after=17), "one", 5.0).not_before == 22.0


def test_what_was_refused_is_tried_at_once_when_it_is_another() -> None:
    known = rules.failed(Memory(), ClusterRefused("no"), "one", 0.0)
    same = plan({"c": Wanted(cell="c", digest="one")}, {}, {"c": known}, 0.5, most=9, grace=GRACE)
    other = plan({"c": Wanted(cell="c", digest="two")}, {}, {"c": known}, 0.5, most=9, grace=GRACE)
    assert not same.actions and same.look_again == 1.0
    assert same.states[0].phase is Phase.FAILED and "refused" in same.states[0].cause
    assert [action.name for action in other.actions] == ["c"]


def test_what_somebody_else_changed_is_put_right() -> None:
    want, known = {"c": Wanted(cell="c", digest="one")}, {"c": Memory(applied=2)}
    theirs = Observed(uid="u", generation=3, digest="one", cell="c", ready=True)
    assert plan(want, {"c": theirs}, known, 0, most=9, grace=GRACE).actions == (
        Apply(name="c", reason="somebody else changed it"),
    )
    stale = replace(theirs, generation=1, digest="zero")
    assert not plan(want, {"c": stale}, known, 0, most=9, grace=GRACE).actions, "the watch is behind, not the cluster"


def test_cells_above_the_limit_are_held_with_the_reason_and_those_that_exist_stay() -> None:
    wanted = {f"c-{letter}": Wanted(cell=letter, digest="one") for letter in "abcd"}
    there = {"c-d": Observed(uid="u", generation=1, digest="one", cell="d", ready=True)}
    decided = plan(wanted, there, {}, 0, most=2, grace=GRACE)
    assert [action.name for action in decided.actions] == ["c-a"]
    phases = {state.cell: state.phase for state in decided.states}
    assert phases == {"a": Phase.DEPLOYING, "b": Phase.HELD, "c": Phase.HELD, "d": Phase.READY}
    held = next(state for state in decided.states if state.phase is Phase.HELD)
    assert "2 cells" in held.cause and "most_cells" in held.next_step


@pytest.mark.parametrize(
    ("reason", "message", "step"),
    [
        ("RevisionMissing", 'Unable to fetch image "x": manifest unknown', "knative.image"),
        ("ExceededQuota", "pods is forbidden: exceeded quota: compute", "ResourceQuota"),
        ("ContainerMissing", "Initial scale was never achieved", "logs and events"),
        ("Denied", "admission webhook says no", "webhook"),
        ("Strange", "", "describe"),
    ],
)
def test_why_a_service_is_not_ready_has_a_next_step(reason: str, message: str, step: str) -> None:
    found = rules.troubles(iter([("RoutesReady", "True", "", ""), ("Ready", "False", reason, message)]))
    assert found is not None and reason in found[0] and step in found[1]
    assert rules.troubles(iter([("Ready", "Unknown", reason, message)])) is None
