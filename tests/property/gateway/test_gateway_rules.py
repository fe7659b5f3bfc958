"""Properties of the gateway's rules: safety first, then that things go on."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chimera.adapters.substrates.node_client import InFlightAverages
from chimera.gateway import breaker, retry, tokens
from chimera.gateway.admission import Admission
from chimera.gateway.errors import AgentBusy, GatewayOverloaded, Unauthenticated
from chimera.gateway.hosts import split_event
from chimera.gateway.metering import Meter, Price
from chimera.gateway.quota.service import Quota
from chimera.gateway.settings import QuotaSettings
from chimera.testing.quota import MemoryQuota

NAMES = st.text("abcdefgh-0123", min_size=1, max_size=12)


class AdmissionMachine(RuleBasedStateMachine):
    """Calls come and go in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(total=5, held=2)
        self.running: list[tuple[str, str]] = []
        self.held = 0

    @rule(agent=st.sampled_from("abc"), limit=st.integers(1, 4))
    def enter(self, agent: str, limit: int) -> None:
        key = ("t", agent)
        mine = self.running.count(key)
        try:
            self.admission.enter(key, limit)
        except AgentBusy:
            assert mine >= limit
        except GatewayOverloaded:
            assert len(self.running) == 5
        else:
            assert mine < limit
            self.running.append(key)

    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        if self.running:
            key = data.draw(st.sampled_from(self.running))
            self.running.remove(key)
            self.admission.leave(key)

    @rule()
    def hold(self) -> None:
        try:
            self.admission.hold()
        except GatewayOverloaded:
            assert self.held == 2
        else:
            self.held += 1

    @rule()
    def unhold(self) -> None:
        if self.held:
            self.held -= 1
            self.admission.unhold()

    @invariant()
    def counts_agree(self) -> None:
        assert self.admission.in_flight == len(self.running) <= 5
        assert self.admission.held == self.held <= 2
        for key in {("t", agent) for agent in "abc"}:
            assert self.admission.running(key) == self.running.count(key)


TestAdmission = AdmissionMachine.TestCase


@given(NAMES, NAMES, st.floats(1, 1e10), st.binary(min_size=16, max_size=40))
def test_a_token_says_what_it_was_minted_for_until_it_expires(
    host: str, cell: str, expires: float, secret: bytes
) -> None:
    token = tokens.mint(secret, host=host, cell=cell, expires=expires)
    claims = tokens.verify(secret, token, now=expires - 0.5)
    assert (claims.host, claims.cell, claims.expires) == (host, cell, expires)
    with pytest.raises(Unauthenticated):
        tokens.verify(secret, token, now=expires)
    assert tokens.verify(secret, token, now=expires + 59.0, leeway=60.0) == claims, "clocks may differ by so much"
    with pytest.raises(Unauthenticated, match="by this gateway's clock"):
        tokens.verify(secret, token, now=expires + 60.0, leeway=60.0)
    with pytest.raises(Unauthenticated):
        tokens.verify(secret + b"x", token, now=expires - 0.5)


@given(st.data())
def test_a_changed_token_is_refused(data: Any) -> None:
    secret = b"s" * 32
    token = tokens.mint(secret, host="h", cell="c", expires=100.0)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters().filter(lambda c: c != token[at]))
    with pytest.raises(Unauthenticated):
        tokens.verify(secret, token[:at] + other + token[at + 1 :], now=1.0)


@given(st.text(max_size=60))
def test_any_text_is_refused_as_a_token_without_another_error(text: str) -> None:
    with pytest.raises(Unauthenticated):
        tokens.verify(b"s" * 32, text, now=0.0)


OUTCOMES: tuple[breaker.Outcome, ...] = ("ok", "failed", "neither")
RULE = breaker.BreakerRule(failures=3, open_for=10.0)


@given(st.lists(st.tuples(st.floats(0, 20), st.sampled_from(OUTCOMES)), max_size=60))
def test_a_breaker_lets_one_call_through_in_each_open_time_and_closes_on_success(
    steps: list[tuple[float, breaker.Outcome]],
) -> None:
    state, now = breaker.BreakerState(), 0.0
    in_a_row = 0
    last_probe = -100.0
    for wait, outcome in steps:
        now += wait
        was_open = state.opened is not None
        admitted = breaker.admit(RULE, state, now)
        assert admitted.allowed or 0 < admitted.retry_after <= RULE.open_for
        assert admitted.allowed or was_open
        state = admitted.state
        if not admitted.allowed:
            continue
        if admitted.probe:
            assert was_open
            assert state.opened is not None
            assert now - state.opened >= RULE.open_for
            again = breaker.admit(RULE, state, now)
            assert not again.allowed, "a second call while the probe is under way"
            last_probe = now
        state = breaker.record(RULE, state, outcome, now, probe=admitted.probe)
        in_a_row = 0 if outcome == "ok" else in_a_row + (outcome == "failed")
        assert (state.opened is None) or in_a_row >= RULE.failures
        if outcome == "ok":
            assert state == breaker.BreakerState()
    assert last_probe <= now


@given(st.integers(1, 10), st.floats(0, 100))
def test_failures_open_a_breaker_and_time_opens_the_way_again(failures: int, now: float) -> None:
    rule_ = breaker.BreakerRule(failures=failures, open_for=5.0)
    state = breaker.BreakerState()
    for _ in range(failures):
        assert breaker.admit(rule_, state, now).allowed
        state = breaker.record(rule_, state, "failed", now, probe=False)
    assert not breaker.admit(rule_, state, now).allowed
    assert breaker.admit(rule_, state, now + 5.0001).probe


@given(
    st.integers(1, 6),
    st.floats(0, 5),
    st.floats(0, 30),
    st.integers(1, 8),
    st.floats(0, 60),
    st.none() | st.floats(0, 60),
    st.floats(0, 1, exclude_max=True),
)
def test_a_retry_fits_before_the_deadline_and_keeps_what_was_asked(
    attempts: int, backoff: float, cap: float, attempt: int, left: float, asked: float | None, draw: float
) -> None:
    rule_ = retry.RetryRule(attempts=attempts, backoff=backoff, cap=cap)
    wait = retry.next_wait(rule_, attempt=attempt, left=left, retry_after=asked, draw=draw)
    if wait is None:
        return
    assert attempt < attempts
    assert wait < left
    assert wait >= (asked or 0)
    assert wait <= max(asked or 0.0, cap)


class Wall:
    """A clock that a test sets."""

    now = 1_000_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


ROWS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("mn"), st.integers(0, 1000), st.integers(0, 1000), st.booleans()),
    max_size=40,
)


@given(ROWS)
def test_nothing_metered_is_lost_or_counted_twice_when_the_store_fails(
    rows: list[tuple[str, str, int, int, bool]],
) -> None:
    async def run() -> None:
        clock = Wall()
        meter, store = Meter(clock), MemoryQuota(clock)
        quota = Quota(store, meter, clock, gateway="gw", settings=QuotaSettings())
        price = Price(1.0, 2.0)
        for agent, model, prompt, completion, fails in rows:
            meter.add("t", agent, model, prompt, completion, price.of(prompt, completion))
            store.away = OSError("disk") if fails else None
            try:
                await quota.settle()
            except OSError:
                assert fails
        store.away = None
        await quota.settle()
        assert sum(row.calls for row in store.usage.values()) == len(rows)
        for agent in "ab":
            mine = [row for row in rows if row[0] == agent]
            kept = [row for row in store.usage.values() if row.agent == agent]
            assert sum(row.prompt_tokens + row.completion_tokens for row in kept) == sum(r[2] + r[3] for r in mine)
            usd = sum((row[2] + 2.0 * row[3]) / 1e6 for row in mine)
            assert sum(row.usd or 0.0 for row in kept) == pytest.approx(usd)

    asyncio.run(run())


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 1000), st.floats(0, 1000))
def test_a_price_is_never_less_than_it_is_and_half_a_price_is_none(
    prompt: int, completion: int, one: float, other: float
) -> None:
    nano = Price(one, other).nano(prompt, completion)
    assert nano is not None
    assert 0 <= nano - (prompt * one + completion * other) * 1_000 <= 1.001
    assert Price(one, None).of(prompt, completion) is None
    assert Price(None, other).nano(prompt, completion) is None
    assert not Price(None, other).known


@given(st.lists(st.tuples(st.floats(0.001, 3), st.integers(0, 50)), min_size=1, max_size=20), st.floats(0.001, 3))
def test_the_average_in_flight_is_the_area_over_the_time(changes: list[tuple[float, int]], rest: float) -> None:
    averages = InFlightAverages(0.0)
    now = area = 0.0
    level = 0
    for wait, next_level in changes:
        area += level * wait
        now += wait
        level = next_level
        averages.set("c", level, now)
    area += level * rest
    sampled = averages.sample(now + rest)["c"]
    assert sampled == pytest.approx(area / (now + rest), abs=1e-3)


@given(st.sampled_from([b"delta", b"tool", b"done"]), st.text('abc{}" :', max_size=30))
def test_an_event_comes_apart_as_it_was_put_together(name: bytes, text: str) -> None:
    data = text.strip().encode()
    assert split_event(b"event: " + name + b"\ndata: " + data) == (name, data)
    assert split_event(b": comment") == (b"", b"")
