"""Quotas of one gateway: what it may spend, let in at once and let in a minute, without a question for each call.

A model call of an agent with a budget first holds what it may use at the most of the agent's purse, and settles at what
it used. Where the purse doesn't hold enough, all that want more at that moment go to the store in one transaction. One
pass for all purses, every `beat` seconds, writes down what was used, gives idle slices back, and counts the gateways
that are alive. So the cost grows with the agents that spend, by one row a pass each, and not with those that exist.

Where the store is away, calls go on within what is held; then those of agents with a budget are refused (money fails
closed), and the shares of calls stay as they were last known.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chimera.gateway.errors import BudgetExceeded, QuotaUnavailable, RateExceeded
from chimera.gateway.metering import Meter, day_of
from chimera.gateway.quota import rules
from chimera.gateway.quota.model import NANO, NOTHING, AgentKey, Amount, Ask, Budget, Settlement, Spent
from chimera.gateway.quota.ports import QuotaStore
from chimera.gateway.quota.purse import Purse
from chimera.gateway.settings import QuotaSettings
from chimera.kernel.clock import Clock
from chimera.platform.model import Route
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

SECONDS_OF_DAY = 86_400
ASKED_AGAIN = 1.0
"""Seconds for which the store's answer that nothing is left is taken as true."""

_Wanted = tuple[AgentKey, Amount, asyncio.Future[bool]]


class Reservation:
    """What one model call holds; `spend` says what it used in the end."""

    __slots__ = ("amount", "used")

    def __init__(self, amount: Amount) -> None:
        """Hold `amount`; without a word in the end all of it is taken as used."""
        self.amount = amount
        self.used = amount

    def spend(self, used: Amount) -> None:
        """The call used so much."""
        self.used = used


class Quota:
    """Purses, shares and buckets of one gateway."""

    def __init__(self, store: QuotaStore, meter: Meter, clock: Clock, *, gateway: str, settings: QuotaSettings) -> None:
        """Be `gateway`, an id of this process alone."""
        self._store = store
        self._meter = meter
        self._clock = clock
        self._gateway = gateway
        self._settings = settings
        self._purses: dict[tuple[AgentKey, str], Purse] = {}
        self._empty: dict[AgentKey, float] = {}
        self._buckets: dict[AgentKey, tuple[float, float]] = {}
        self._wanted: list[_Wanted] = []
        self._asking: asyncio.Task[None] | None = None
        self._gateways = 1

    # -- calls --------------------------------------------------------------------------------------------------------

    def share(self, limit: int) -> int:
        """How many of an agent's `limit` calls at once this gateway lets in."""
        return rules.share(limit, self._gateways)

    def enter(self, route: Route) -> None:
        """Count a call against the agent's calls a minute; raises `RateExceeded`.

        Raises `BudgetExceeded` where the store said a moment ago that nothing is left, before a host is woken for it.
        """
        key = (route.tenant, route.agent)
        self._check_empty(route, key)
        if route.calls_per_minute is None:
            return
        now = self._clock.monotonic()
        rate = route.calls_per_minute / self._gateways
        burst = max(1.0, rate * self._settings.burst / 60.0)
        held, at = self._buckets.get(key, (burst, now))
        held = rules.tokens_after(held, elapsed=now - at, per_minute=rate, burst=burst)
        if held < 1.0:
            self._buckets[key] = (held, now)
            raise RateExceeded(
                f"agent {route.agent} takes {route.calls_per_minute} calls a minute",
                next_step="try again later, or raise `scaling.calls_per_minute` of its definition",
                retry_after=round((1.0 - held) * 60.0 / rate, 3),
                agent=route.agent,
            )
        self._buckets[key] = (held - 1.0, now)

    # -- model calls --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def reserved(self, route: Route, amount: Amount) -> AsyncIterator[Reservation]:
        """Hold `amount` of the agent's budget while a model call runs. Raises `BudgetExceeded` where it isn't left."""
        reservation = Reservation(amount)
        budget = budget_of(route)
        if budget is None:
            yield reservation
            return
        key = (route.tenant, route.agent)
        purse = await self._hold(route, key, budget, amount)
        try:
            yield reservation
        finally:
            purse.settle(amount, reservation.used)
            purse.touched = self._clock.monotonic()

    async def _hold(self, route: Route, key: AgentKey, budget: Budget, amount: Amount) -> Purse:
        while True:
            day = day_of(self._clock.wall())
            purse = self._purses.setdefault((key, day), Purse(day=day, budget=budget, touched=self._clock.monotonic()))
            purse.budget = budget
            if purse.hold(amount):
                return purse
            self._check_empty(route, key)
            if not await self._more(key, amount):
                self._empty[key] = self._clock.monotonic() + ASKED_AGAIN
                raise self._used_up(route)

    async def _more(self, key: AgentKey, amount: Amount) -> bool:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._wanted.append((key, amount, answer))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="quota-ask")
        return await answer

    async def _ask(self) -> None:
        """Ask for everybody who wants more, in one transaction after the other, until nobody does."""
        while self._wanted:
            wanted, self._wanted = self._wanted, []
            try:
                granted = await self._granted(wanted)
            except Exception as error:
                log.warning("quotas can't be had", exc_info=error)
                for _, _, answer in wanted:
                    if not answer.done():
                        answer.set_exception(_unavailable(error))
                continue
            for key, _, answer in wanted:
                if not answer.done():
                    answer.set_result(key in granted)

    async def _granted(self, wanted: list[_Wanted]) -> set[AgentKey]:
        """Who was granted something: what all calls of an agent want together, else what the first of them wants."""
        first: dict[AgentKey, Amount] = {}
        whole: dict[AgentKey, Amount] = {}
        for key, amount, answer in wanted:
            if not answer.done():
                first.setdefault(key, amount)
                whole[key] = whole.get(key, NOTHING).plus(amount)
        granted = await self._grant(whole)
        rest = {key: amount for key, amount in first.items() if key not in granted and amount != whole[key]}
        return granted | await self._grant(rest)

    async def _grant(self, needs: dict[AgentKey, Amount]) -> set[AgentKey]:
        day = day_of(self._clock.wall())
        purses = [(key, self._purses.get((key, day)), amount) for key, amount in needs.items()]
        asked = [(purse, self._ask_for(key, purse, amount)) for key, purse, amount in purses if purse is not None]
        if not asked:
            return set()
        granted = await self._store.grant(self._gateway, [ask for _, ask in asked])
        answered: set[AgentKey] = set()
        for (purse, ask), amount in zip(asked, granted, strict=True):
            if amount is not None:
                purse.granted = purse.granted.plus(amount)
                self._purses[(ask.tenant, ask.agent), day] = purse  # a pass may have put it away meanwhile
                answered.add((ask.tenant, ask.agent))
        return answered

    @staticmethod
    def _ask_for(key: AgentKey, purse: Purse, amount: Amount) -> Ask:
        return Ask(tenant=key[0], agent=key[1], day=purse.day, budget=purse.budget, need=purse.lacking(amount))

    # -- the pass -----------------------------------------------------------------------------------------------------

    async def run(self, every: float) -> None:
        """Settle, give back and count gateways every so many seconds, until cancelled."""
        last = float("-inf")
        while True:
            try:
                await self.settle(give_back_idle=True)
                if self._clock.monotonic() - last >= self._settings.beat:
                    await self.beat()
                    last = self._clock.monotonic()
            except Exception as error:
                log.warning("quotas could not be settled; nothing is lost", exc_info=error)
            await asyncio.sleep(every)

    async def beat(self) -> None:
        """Say that this gateway lives, and count those that do."""
        self._gateways = max(1, await self._store.beat(self._gateway, self._settings.expiry))

    async def settle(self, *, give_back_idle: bool = False, give_back_all: bool = False) -> None:
        """Write down what was used, in one transaction with what is given back; on failure everything stays."""
        today, now = day_of(self._clock.wall()), self._clock.monotonic()
        spent: list[Spent] = []
        gone: list[tuple[AgentKey, str]] = []
        for (key, day), purse in self._purses.items():
            idle = purse.held == NOTHING and (
                day != today or (give_back_idle and now - purse.touched >= self._settings.idle)
            )
            if (one := purse.report(key, give_back=idle or give_back_all)) is not None:
                spent.append(one)
            if idle:
                gone.append((key, day))
        usage = self._meter.take()
        if not usage and not spent:
            self._forget(gone)
            return
        try:
            await self._store.settle(self._gateway, Settlement(usage=tuple(usage), spent=tuple(spent)))
        except BaseException:
            self._meter.give_back(usage)
            for one in spent:
                self._purses[(one.tenant, one.agent), one.day].take_back(one)
            raise
        self._forget(gone)

    async def leave(self) -> None:
        """Write down the last of it, give all back, and be counted no more."""
        await self.settle(give_back_all=True)
        await self._store.leave(self._gateway)

    def _forget(self, gone: list[tuple[AgentKey, str]]) -> None:
        for name in gone:
            purse = self._purses.get(name)
            # A call may have begun, or been granted more, while the store was told.
            if purse is not None and purse.held == NOTHING and purse.used == purse.told and purse.free == NOTHING:
                del self._purses[name]
        now = self._clock.monotonic()
        for key in [key for key, until in self._empty.items() if until <= now]:
            del self._empty[key]
        full = self._settings.burst
        for key in [key for key, (_, at) in self._buckets.items() if now - at >= full]:
            del self._buckets[key]

    # -- refusals -----------------------------------------------------------------------------------------------------

    def _check_empty(self, route: Route, key: AgentKey) -> None:
        until = self._empty.get(key)
        if until is not None and self._clock.monotonic() < until:
            raise self._used_up(route)

    def _used_up(self, route: Route) -> BudgetExceeded:
        now = self._clock.wall()
        limits = []
        if route.max_tokens_per_day is not None:
            limits.append(f"{route.max_tokens_per_day} tokens")
        if route.max_usd_per_day is not None:
            limits.append(f"{route.max_usd_per_day:g} US dollars")
        return BudgetExceeded(
            f"agent {route.agent} has too little left of its budget of today ({' and '.join(limits)})",
            next_step="wait for the next day (UTC), or raise `budget` of its definition",
            retry_after=float(SECONDS_OF_DAY - int(now) % SECONDS_OF_DAY),
            agent=route.agent,
        )


def budget_of(route: Route) -> Budget | None:
    """The agent's budget of a day; None where it has none."""
    if route.max_tokens_per_day is None and route.max_usd_per_day is None:
        return None
    usd = route.max_usd_per_day
    return Budget(tokens=route.max_tokens_per_day, nano_usd=None if usd is None else round(usd * NANO))


def _unavailable(error: Exception) -> ProblemError:
    return QuotaUnavailable(
        f"the agent's budget can't be read: {error}",
        next_step="see whether the database runs (`chimera doctor`); agents without a budget go on",
        retry_after=1.0,
    )
