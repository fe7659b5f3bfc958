"""Properties of quotas: no budget is overspent, whatever gateways do, and what is left can be spent."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chimera.gateway.errors import BudgetExceeded, QuotaUnavailable, RateExceeded
from chimera.gateway.metering import Meter, day_of
from chimera.gateway.quota import rules
from chimera.gateway.quota.model import Amount, Budget
from chimera.gateway.quota.service import Quota
from chimera.gateway.settings import QuotaSettings
from chimera.platform.model import Route
from chimera.testing.clock import ManualClock
from chimera.testing.quota import MemoryQuota

LIMIT = 1_000
COSTS = st.integers(1, 200)


def route(**fields: Any) -> Route:
    values = {"max_tokens_per_day": LIMIT, **fields}
    return Route(tenant="t", agent="anna", revision="sha256:0", cell="c", framework="function", sequence=1, **values)


class Running:
    """A model call under way, entered by hand so that calls of several gateways can overlap."""

    def __init__(self, quota: Quota, amount: int) -> None:
        self.context = quota.reserved(route(), Amount(tokens=amount))
        self.amount = amount

    async def begin(self) -> None:
        self.reservation = await self.context.__aenter__()

    async def end(self) -> None:
        await self.context.__aexit__(None, None, None)


class QuotaMachine(RuleBasedStateMachine):
    """Gateways come, spend, tell, and go or die."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.store = MemoryQuota(self.clock)
        self.gateways: dict[str, tuple[Quota, Meter]] = {}
        self.calls: dict[str, list[Running]] = {}
        self.spent = 0
        self.born = 0

    def teardown(self) -> None:
        self.loop.close()

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    @initialize()
    def first(self) -> None:
        self.join()

    @precondition(lambda self: len(self.gateways) < 4)
    @rule()
    def join(self) -> None:
        self.born += 1
        name, meter = f"gw{self.born}", Meter(self.clock)
        quota = Quota(self.store, meter, self.clock, gateway=name, settings=QuotaSettings())
        self.gateways[name], self.calls[name] = (quota, meter), []

    @precondition(lambda self: self.gateways)
    @rule(data=st.data(), amount=COSTS)
    def begin(self, data: Any, amount: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.gateways)))
        call = Running(self.gateways[name][0], amount)
        try:
            self.run(call.begin())
        except BudgetExceeded:
            return
        self.calls[name].append(call)

    @precondition(lambda self: any(self.calls.values()))
    @rule(data=st.data(), part=st.floats(0, 1))
    def end(self, data: Any, part: float) -> None:
        name = data.draw(st.sampled_from(sorted(name for name, calls in self.calls.items() if calls)))
        call = self.calls[name].pop(0)
        used = int(call.amount * part)
        call.reservation.spend(Amount(tokens=used))
        self.gateways[name][1].add("t", "anna", "m", used, 0, None)
        self.spent += used
        self.run(call.end())

    @precondition(lambda self: self.gateways)
    @rule(data=st.data(), idle=st.booleans())
    def tell(self, data: Any, idle: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.gateways)))
        self.run(self.gateways[name][0].settle(give_back_idle=idle))

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.gateways)
    @rule(data=st.data())
    def die(self, data: Any) -> None:
        name = data.draw(st.sampled_from(sorted(self.gateways)))
        del self.gateways[name]
        for call in self.calls.pop(name):
            self.spent += call.amount  # what a provider may still do for a gateway that died

    @precondition(lambda self: any(not calls for calls in self.calls.values()))
    @rule(data=st.data())
    def drain(self, data: Any) -> None:
        name = data.draw(st.sampled_from(sorted(name for name, calls in self.calls.items() if not calls)))
        self.run(self.gateways[name][0].leave())
        del self.gateways[name], self.calls[name]

    @invariant()
    def never_more_than_the_budget(self) -> None:
        held = sum(call.amount for calls in self.calls.values() for call in calls)
        assert self.spent + held <= LIMIT

    @invariant()
    def nothing_is_negative(self) -> None:
        assert all(amount.tokens >= 0 for amount in self.store.granted.values())


TestQuotaMachine = QuotaMachine.TestCase
TestQuotaMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(limit=st.integers(1, 10**6), left=st.integers(-100, 10**6), need=st.integers(0, 10**6))
def test_a_slice_covers_the_need_and_no_more_than_is_left(limit: int, left: int, need: int) -> None:
    granted = rules.slice_of(limit=limit, left=min(left, limit), need=need)
    if granted is None:
        assert need > min(left, limit)
    else:
        assert need <= granted
        assert granted <= max(min(left, limit), 0)
        assert granted <= max(need, limit // rules.PARTS_OF_LIMIT)


@given(limit=st.integers(1, 1_000), gateways=st.integers(1, 50))
def test_shares_overshoot_by_less_than_one_call_a_gateway(limit: int, gateways: int) -> None:
    mine = rules.share(limit, gateways)
    assert mine >= 1
    assert mine * gateways <= max(limit, gateways)
    assert limit - mine * gateways < gateways or gateways > limit


def test_a_budget_limits_only_what_it_names() -> None:
    granted = rules.grant(Budget(tokens=100), Amount(tokens=100), Amount(tokens=10, nano_usd=10**12))
    assert granted == Amount(tokens=10, nano_usd=10**12)


async def test_what_is_left_can_be_spent_to_the_last_token() -> None:
    clock = ManualClock()
    store = MemoryQuota(clock)
    meter = Meter(clock)
    quota = Quota(store, meter, clock, gateway="a", settings=QuotaSettings())
    spent = 0
    for _ in range(LIMIT // 7):
        async with quota.reserved(route(), Amount(tokens=7)):
            meter.add("t", "anna", "m", 7, 0, None)
        spent += 7
    async with quota.reserved(route(), Amount(tokens=LIMIT - spent)):
        pass
    with pytest.raises(BudgetExceeded):
        async with quota.reserved(route(), Amount(tokens=1)):
            pass


async def test_calls_at_once_ask_together_and_the_first_gets_what_fits_for_one_alone() -> None:
    clock = ManualClock()
    store = MemoryQuota(clock)
    quota = Quota(store, Meter(clock), clock, gateway="a", settings=QuotaSettings())
    inside = asyncio.Event()

    async def call() -> bool:
        try:
            async with quota.reserved(route(), Amount(tokens=LIMIT // 3 + 10)):
                await inside.wait()
        except BudgetExceeded:
            return False
        return True

    calls = [asyncio.create_task(call()) for _ in range(5)]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    inside.set()
    assert sorted(await asyncio.gather(*calls)) == [False, False, False, True, True]


async def test_a_gateway_that_died_keeps_its_slice_from_the_others_until_the_day_is_over() -> None:
    clock = ManualClock()
    store = MemoryQuota(clock)
    dead = Quota(store, Meter(clock), clock, gateway="dead", settings=QuotaSettings())
    async with dead.reserved(route(), Amount(tokens=900)):
        pass
    other = Quota(store, Meter(clock), clock, gateway="other", settings=QuotaSettings())
    with pytest.raises(BudgetExceeded) as refused:
        async with other.reserved(route(), Amount(tokens=101)):
            pass
    assert refused.value.retry_after is not None
    clock.advance(refused.value.retry_after + 1)
    async with other.reserved(route(), Amount(tokens=900)):
        pass


async def test_money_fails_closed_where_the_store_is_away_and_what_is_held_is_spent() -> None:
    clock = ManualClock()
    store = MemoryQuota(clock)
    quota = Quota(store, Meter(clock), clock, gateway="a", settings=QuotaSettings())
    async with quota.reserved(route(), Amount(tokens=1)):
        store.away = OSError("no database")
    async with quota.reserved(route(), Amount(tokens=40)):
        pass
    with pytest.raises(QuotaUnavailable):
        async with quota.reserved(route(), Amount(tokens=500)):
            pass
    async with quota.reserved(route(max_tokens_per_day=None), Amount(tokens=10**9)):
        pass
    with pytest.raises(OSError, match="no database"):
        await quota.settle()
    store.away = None
    await quota.settle(give_back_all=True)
    assert store.used[("t", "anna"), quota_day(clock), "a"] == Amount(tokens=41)
    assert store.granted[("t", "anna"), quota_day(clock), "a"] == Amount(tokens=41)


async def test_calls_a_minute_are_shared_by_the_gateways_that_are_alive() -> None:
    clock = ManualClock()
    store = MemoryQuota(clock)
    one = Quota(store, Meter(clock), clock, gateway="a", settings=QuotaSettings())
    other = Quota(store, Meter(clock), clock, gateway="b", settings=QuotaSettings())
    limited = route(max_tokens_per_day=None, calls_per_minute=60)
    await one.beat()
    await other.beat()
    await one.beat()
    assert (one.share(10), other.share(10), one.share(1)) == (5, 5, 1)
    taken = _until_refused(one, limited) + _until_refused(other, limited)
    assert taken == 10  # ten seconds of sixty a minute, in two halves
    clock.advance(60.0)
    await one.beat()
    assert one.share(10) == 10  # the other has been silent for too long
    assert _until_refused(one, limited) == 10


def _until_refused(quota: Quota, limited: Route) -> int:
    for taken in range(1_000):
        try:
            quota.enter(limited)
        except RateExceeded as refused:
            assert refused.retry_after is not None
            assert refused.retry_after > 0
            return taken
    raise AssertionError("never refused")


def quota_day(clock: ManualClock) -> str:
    return day_of(clock.wall())
