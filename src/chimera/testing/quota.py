"""The store of quotas in memory: the shipped fake that passes the same conformance suite as the database."""

from collections.abc import Sequence

from msgspec.structs import replace

from chimera.gateway.ports import Usage
from chimera.gateway.quota import rules
from chimera.gateway.quota.model import NANO, NOTHING, AgentKey, Amount, Ask, Settlement
from chimera.kernel.clock import Clock


class MemoryQuota:
    """A `QuotaStore`, with the sums of metered use by tenant, agent, model and day in `usage`."""

    def __init__(self, clock: Clock) -> None:
        """Start with nothing granted and nothing used."""
        self._clock = clock
        self.usage: dict[tuple[str, str, str, str], Usage] = {}
        self.granted: dict[tuple[AgentKey, str, str], Amount] = {}
        self.used: dict[tuple[AgentKey, str, str], Amount] = {}
        self.alive: dict[str, float] = {}
        self.away: Exception | None = None
        """What every method raises while it is set."""

    async def grant(self, gateway: str, asks: Sequence[Ask]) -> Sequence[Amount | None]:
        """See `QuotaStore`."""
        self._check()
        answers = []
        for ask in asks:
            key = (ask.tenant, ask.agent)
            amount = rules.grant(ask.budget, self.left(ask), ask.need)
            if amount is not None:
                name = (key, ask.day, gateway)
                self.granted[name] = self.granted.get(name, NOTHING).plus(amount)
            answers.append(amount)
        return answers

    async def settle(self, gateway: str, settlement: Settlement) -> None:
        """See `QuotaStore`."""
        self._check()
        for row in settlement.usage:
            place = (row.tenant, row.agent, row.model, row.day)
            self.usage[place] = _sum(self.usage[place], row) if place in self.usage else row
        for spent in settlement.spent:
            name = ((spent.tenant, spent.agent), spent.day, gateway)
            self.used[name] = self.used.get(name, NOTHING).plus(spent.used)
            self.granted[name] = self.granted.get(name, NOTHING).minus(spent.returned)

    async def beat(self, gateway: str, expiry: float) -> int:
        """See `QuotaStore`."""
        self._check()
        now = self._clock.wall()
        self.alive[gateway] = now + expiry
        self.alive = {name: until for name, until in self.alive.items() if until > now}
        return len(self.alive)

    async def leave(self, gateway: str) -> None:
        """See `QuotaStore`."""
        self._check()
        self.alive.pop(gateway, None)

    async def usage_of_day(self, day: str) -> Sequence[Usage]:
        """All sums of a day (UTC)."""
        return [row for row in self.usage.values() if row.day == day]

    def left(self, ask: Ask) -> Amount:
        """What of a budget is neither used nor held by a gateway."""
        tokens, nano_usd = ask.budget.tokens or 0, ask.budget.nano_usd or 0
        for row in self.usage.values():
            if (row.tenant, row.agent, row.day) == (ask.tenant, ask.agent, ask.day):
                tokens -= row.prompt_tokens + row.completion_tokens
                nano_usd -= round((row.usd or 0.0) * NANO)
        for (key, day, gateway), granted in self.granted.items():
            if (key, day) == ((ask.tenant, ask.agent), ask.day):
                held = granted.minus(self.used.get((key, day, gateway), NOTHING))
                tokens -= max(0, held.tokens)
                nano_usd -= max(0, held.nano_usd)
        return Amount(tokens=tokens, nano_usd=nano_usd)

    def _check(self) -> None:
        if self.away is not None:
            raise self.away


def _sum(one: Usage, other: Usage) -> Usage:
    known = [value for value in (one.usd, other.usd) if value is not None]
    return replace(
        one,
        calls=one.calls + other.calls,
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        completion_tokens=one.completion_tokens + other.completion_tokens,
        usd=sum(known) if known else None,
    )
