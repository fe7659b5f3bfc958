"""What each agent's model calls cost: rows for the store, summed in memory until they are written down.

They are written with the slices of the budgets they were spent from (`chimera.gateway.quota`), in one transaction. A
gateway that is killed loses the rows of one interval; what it had been granted of budgets stays spent.
"""

import math
import time
from collections.abc import Sequence

from chimera.gateway.ports import Usage
from chimera.kernel.clock import Clock

RowKey = tuple[str, str, str, str]
"""Tenant, agent, model, day."""


class Price:
    """US dollars per million tokens; unknown unless the settings name both prices: a missing one is not 0."""

    __slots__ = ("completion", "prompt")

    def __init__(self, prompt: float | None, completion: float | None) -> None:
        """Prices of prompt and completion tokens."""
        self.prompt = prompt
        self.completion = completion

    @property
    def known(self) -> bool:
        """Whether both prices are named."""
        return self.prompt is not None and self.completion is not None

    def nano(self, prompt: int, completion: int) -> int | None:
        """What so many tokens cost, in nano-dollars (10⁻⁹ US dollars), rounded up; None where that isn't known."""
        if self.prompt is None or self.completion is None:
            return None
        return math.ceil((prompt * self.prompt + completion * self.completion) * 1_000)

    def of(self, prompt: int, completion: int) -> float | None:
        """What so many tokens cost, in US dollars; None where that isn't known."""
        nano = self.nano(prompt, completion)
        return None if nano is None else nano / 1_000_000_000


def day_of(now: float) -> str:
    """The UTC day of a time since the epoch, as 2026-01-31."""
    return time.strftime("%Y-%m-%d", time.gmtime(now))


class Meter:
    """Counts use."""

    def __init__(self, clock: Clock) -> None:
        """Start with nothing used."""
        self._clock = clock
        self._pending: dict[RowKey, list[float | int | None]] = {}

    def add(self, tenant: str, agent: str, model: str, prompt: int, completion: int, usd: float | None) -> None:
        """One model call was made."""
        row = self._pending.setdefault((tenant, agent, model, day_of(self._clock.wall())), [0, 0, 0, None])
        row[0] = (row[0] or 0) + 1
        row[1] = (row[1] or 0) + prompt
        row[2] = (row[2] or 0) + completion
        if usd is not None:
            row[3] = (row[3] or 0.0) + usd

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
