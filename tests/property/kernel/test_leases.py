"""The rule of leases: whatever happens in whatever order, two never hold one at once by one clock, and tokens grow."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from chimera.kernel.leases import Lease, decide

LIFE = 10.0


@dataclass
class Ask:
    owner: str
    after: float


asks = st.lists(st.builds(Ask, owner=st.sampled_from("abc"), after=st.floats(-30, 30)), max_size=40)


@given(asks)
def test_one_holds_it_and_its_token_grows_with_each_change(steps: list[Ask]) -> None:
    now, held = 1000.0, None
    for step in steps:
        now += step.after
        got = decide(held, name="work", owner=step.owner, now=now, life=LIFE)
        if got is None:
            assert held is not None
            assert held.owner != step.owner
            assert now < held.expires
            continue
        assert (got.owner, got.expires) == (step.owner, now + LIFE)
        if held is not None:
            assert got.token == held.token + (held.owner != step.owner)
        held = got


@given(st.lists(st.floats(0, 30), max_size=30), st.floats(-3600, 0))
def test_a_lease_comes_free_within_twice_its_life(waits: list[float], jump: float) -> None:
    now = 100_000.0
    held: Lease | None = decide(None, name="work", owner="gone", now=now, life=LIFE)
    now += jump
    asked_since = now
    for wait in [*waits, 2 * LIFE]:
        now += wait
        got = decide(held, name="work", owner="heir", now=now, life=LIFE)
        if got is not None:
            return
        assert now - asked_since < 2 * LIFE
