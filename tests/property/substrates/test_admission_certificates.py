"""The webhook's certificates over years: what is shown is believed, whoever hears late, whatever crashes in between."""

from dataclasses import dataclass, field, replace
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.adapters.substrates.knative.admission.certificates import (
    LIFE,
    OVERLAP,
    RENEW,
    SETTLE,
    Kept,
    Shown,
    decide,
)

HOUR = 3600.0


@dataclass
class World:
    """One Secret, one configuration, an API server and processes that hear of both late, and a keeper that crashes."""

    api_lag: float
    process_lag: float
    now: float = 0.0
    kept: Kept = field(default_factory=Kept)
    bundle: str = ""
    serial: "count[int]" = field(default_factory=lambda: count(1))
    shown: list[tuple[float, Shown]] = field(default_factory=list)
    told: list[tuple[float, str]] = field(default_factory=list)
    since: float | None = None

    def make(self) -> Shown:
        number = next(self.serial)
        return Shown(certificate=f"c{number};", key="k", authority=f"a{number};", ends=self.now + LIFE)

    def step(self, *, bundle_is_written: bool = True) -> float:
        """One pass of the keeper; the seconds that it would wait."""
        steady = 0.0 if self.since is None or self.bundle != self.kept.bundle else self.now - self.since
        step = decide(self.kept, steady=steady, now=self.now, make=self.make)
        if step.keep is not None:
            self.kept, self.since = step.keep, None
            if step.keep.current is not None and (not self.shown or self.shown[-1][1] != step.keep.current):
                self.shown.append((self.now, step.keep.current))
            return 0.0
        if self.bundle != self.kept.bundle:
            if bundle_is_written:
                self.bundle, self.since = self.kept.bundle, self.now
                self.told.append((self.now, self.bundle))
            return 0.0
        self.since = self.now if self.since is None else self.since
        return step.wait

    def crash(self) -> None:
        """Another keeper goes on, and has seen nothing yet."""
        self.since = None

    def check(self) -> None:
        """All that may still be shown is believed by all that an API server may still go by, once both were there."""
        if not self.told:
            return
        if self.now < self.told[0][0] + self.api_lag:
            return
        shown = current_and_late(self.shown, self.now, self.process_lag)
        bundles = current_and_late(self.told, self.now, self.api_lag)
        for one in shown:
            for bundle in bundles:
                assert one.authority in bundle, (self.now, one.authority, bundle)


def current_and_late(history, now, lag):  # type: ignore[no-untyped-def]
    """What was newest at some time in the last `lag` seconds."""
    late = [value for at, value in history if at <= now - lag][-1:]
    return [*late, *(value for at, value in history if now - lag < at <= now)]


lags = st.tuples(st.floats(0, SETTLE * 0.99), st.floats(0, OVERLAP * 0.99))
acts = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.floats(0, 90)),
        st.tuples(st.just("crash"), st.floats(0, 90)),
        st.tuples(st.just("bundle refused"), st.floats(0, 90)),
        st.tuples(st.just("long"), st.floats(HOUR, 20 * 24 * HOUR)),
    ),
    max_size=120,
)


@settings(max_examples=300)
@given(lags, acts)
def test_what_is_shown_is_believed_at_every_moment(lag: tuple[float, float], all_acts: list[tuple[str, float]]) -> None:
    world = World(*lag)
    for act, seconds in all_acts:
        if act == "crash":
            world.crash()
        if world.kept.current is not None and world.now + seconds >= world.kept.current.ends:
            break  # a keeper that was away for a month: `begin` says that nothing is to be lost
        world.now += seconds
        world.check()
        world.step(bundle_is_written=act != "bundle refused")
        world.check()
        assert len(world.kept.bundle.split(";")) <= 3 + 1


@given(st.floats(0, 10 * 24 * HOUR))
def test_a_certificate_is_replaced_before_it_ends_and_the_former_is_forgotten(late: float) -> None:
    world = World(api_lag=SETTLE / 2, process_lag=OVERLAP / 2)
    seen = set()
    while world.now < 3 * LIFE:
        wait = world.step()
        assert world.kept.current is not None
        seen.add(world.kept.current.certificate)
        world.now += wait + (late if wait > OVERLAP else 0.0)
        world.check()
        assert world.kept.current.ends > world.now
    assert len(seen) >= 4
    for _ in range(50):
        wait = world.step()
        if wait > OVERLAP:
            break
        world.now += wait
    assert world.kept.former == "" and world.kept.next is None
    assert world.bundle == world.kept.current.authority


@given(st.floats(1, LIFE), st.floats(0, LIFE))
def test_nothing_is_done_while_there_is_nothing_to_do(left: float, steady: float) -> None:
    shown = Shown(certificate="c", key="k", authority="a", ends=LIFE + left)
    step = decide(Kept(current=shown), steady=steady, now=LIFE, make=lambda: replace(shown, certificate="d"))
    if left >= RENEW:
        assert step.keep is None and step.wait == max(1.0, LIFE + left - RENEW - LIFE)
    else:
        assert step.name == "stage" and step.keep is not None and step.keep.current == shown


def test_a_staged_certificate_takes_over_when_the_current_one_has_ended() -> None:
    old = Shown(certificate="c", key="k", authority="a", ends=10.0)
    new = Shown(certificate="d", key="k", authority="b", ends=LIFE)
    step = decide(Kept(current=old, next=new), steady=0.0, now=11.0, make=lambda: old)
    assert step.keep == Kept(current=new)
