"""What each agent's model calls cost: sums of the day in memory for budgets, rows for the store once a second.

Budgets are checked against the sums before a call; calls under way aren't reserved for, so an agent can overdraw its
budget by the calls it makes at once. A flush that fails keeps its rows for the next. A gateway that is killed loses at
most the use of one interval, and reads the rest back when it starts.
"""

import logging
import time
from collections.abc import Iterable, Sequence

from chimera.gateway.errors import BudgetExceeded
from chimera.gateway.ports import Usage, UsageStore
from chimera.kernel.clock import Clock
from chimera.platform.model import Route

log = logging.getLogger(__name__)

SECONDS_OF_DAY = 86_400

RowKey = tuple[str, str, str, str]
"""Tenant, agent, model, day."""


class Price:
    """US dollars per million tokens; None where the settings name no price."""

    __slots__ = ("completion", "prompt")

    def __init__(self, prompt: float | None, completion: float | None) -> None:
        """Prices of prompt and completion tokens."""
        self.prompt = prompt
        self.completion = completion

    def of(self, prompt: int, completion: int) -> float | None:
        """What so many tokens cost."""
        if self.prompt is None and self.completion is None:
            return None
        return (prompt * (self.prompt or 0.0) + completion * (self.completion or 0.0)) / 1_000_000


def day_of(now: float) -> str:
    """The UTC day of a time since the epoch, as 2026-01-31."""
    return time.strftime("%Y-%m-%d", time.gmtime(now))


class Meter:
    """Counts use and checks budgets."""

    def __init__(self, clock: Clock) -> None:
        """Start with nothing used."""
        self._clock = clock
        self._day = day_of(clock.wall())
        self._tokens: dict[tuple[str, str], int] = {}
        self._usd: dict[tuple[str, str], float] = {}
        self._pending: dict[RowKey, list[float | int | None]] = {}

    def restore(self, rows: Iterable[Usage]) -> None:
        """Take over what was used today before this gateway started."""
        for row in rows:
            if row.day == self._day:
                self._sum((row.tenant, row.agent), row.prompt_tokens + row.completion_tokens, row.usd)

    def check(self, route: Route) -> None:
        """Raise `BudgetExceeded` where the agent has used its budget of the day."""
        if route.max_tokens_per_day is None and route.max_usd_per_day is None:
            return
        now = self._today()
        key = (route.tenant, route.agent)
        tokens, usd = self._tokens.get(key, 0), self._usd.get(key, 0.0)
        if route.max_tokens_per_day is not None and tokens >= route.max_tokens_per_day:
            used = f"{tokens} of {route.max_tokens_per_day} tokens"
        elif route.max_usd_per_day is not None and usd >= route.max_usd_per_day:
            used = f"{usd:.4f} of {route.max_usd_per_day:g} US dollars"
        else:
            return
        raise BudgetExceeded(
            f"agent {route.agent} has used {used} today",
            next_step="wait for the next day (UTC), or raise `budget` of its definition",
            retry_after=float(SECONDS_OF_DAY - int(now) % SECONDS_OF_DAY),
            agent=route.agent,
        )

    def add(self, tenant: str, agent: str, model: str, prompt: int, completion: int, usd: float | None) -> None:
        """One model call was made."""
        self._today()
        self._sum((tenant, agent), prompt + completion, usd)
        row = self._pending.setdefault((tenant, agent, model, self._day), [0, 0, 0, None])
        row[0] = (row[0] or 0) + 1
        row[1] = (row[1] or 0) + prompt
        row[2] = (row[2] or 0) + completion
        if usd is not None:
            row[3] = (row[3] or 0.0) + usd

    def used(self, tenant: str, agent: str) -> tuple[int, float]:
        """Tokens and US dollars of an agent today."""
        self._today()
        return self._tokens.get((tenant, agent), 0), self._usd.get((tenant, agent), 0.0)

    def take(self) -> list[Usage]:
        """Everything that isn't written down yet, as rows to add; `give_back` what could not be."""
        rows = [
            Usage(
                tenant=tenant,
                agent=agent,
                model=model,
                day=day,
                calls=int(calls or 0),
                prompt_tokens=int(prompt or 0),
                completion_tokens=int(completion or 0),
                usd=usd,
            )
            for (tenant, agent, model, day), (calls, prompt, completion, usd) in self._pending.items()
        ]
        self._pending.clear()
        return rows

    def give_back(self, rows: Sequence[Usage]) -> None:
        """`rows` could not be written down: keep them for the next time."""
        for row in rows:
            kept = self._pending.setdefault((row.tenant, row.agent, row.model, row.day), [0, 0, 0, None])
            kept[0] = (kept[0] or 0) + row.calls
            kept[1] = (kept[1] or 0) + row.prompt_tokens
            kept[2] = (kept[2] or 0) + row.completion_tokens
            if row.usd is not None:
                kept[3] = (kept[3] or 0.0) + row.usd

    def _sum(self, key: tuple[str, str], tokens: int, usd: float | None) -> None:
        self._tokens[key] = self._tokens.get(key, 0) + tokens
        if usd is not None:
            self._usd[key] = self._usd.get(key, 0.0) + usd

    def _today(self) -> float:
        now = self._clock.wall()
        today = day_of(now)
        if today != self._day:
            self._day = today
            self._tokens.clear()
            self._usd.clear()
        return now


async def flush(meter: Meter, store: UsageStore) -> None:
    """Write down what was used since the last time; raises what the store raises, having lost nothing."""
    rows = meter.take()
    if not rows:
        return
    try:
        await store.add_usage(rows)
    except BaseException:
        meter.give_back(rows)
        raise
