"""The words of quotas: amounts, what a gateway asks the store for, and what it tells it.

Money is counted in nano-dollars (10⁻⁹ US dollars), as whole numbers, so that sums over gateways are exact: a price of
0.15 dollars per million tokens is 150 of them a token.
"""

from msgspec import Struct

from chimera.gateway.ports import Usage

NANO = 1_000_000_000

AgentKey = tuple[str, str]
"""Tenant and agent."""


class Amount(Struct, frozen=True, kw_only=True):
    """What a model call uses, or may use: tokens, and nano-dollars."""

    tokens: int = 0
    nano_usd: int = 0

    def plus(self, other: "Amount") -> "Amount":
        """Both together."""
        return Amount(tokens=self.tokens + other.tokens, nano_usd=self.nano_usd + other.nano_usd)

    def minus(self, other: "Amount") -> "Amount":
        """What is left without the other; may be negative."""
        return Amount(tokens=self.tokens - other.tokens, nano_usd=self.nano_usd - other.nano_usd)

    def covers(self, other: "Amount") -> bool:
        """Whether the other fits into this one, in both."""
        return self.tokens >= other.tokens and self.nano_usd >= other.nano_usd


NOTHING = Amount()


class Budget(Struct, frozen=True, kw_only=True):
    """An agent's budget of a day; None is no limit."""

    tokens: int | None = None
    nano_usd: int | None = None


class Ask(Struct, frozen=True, kw_only=True):
    """A gateway wants at least `need` more of an agent's budget of `day` (UTC)."""

    tenant: str
    agent: str
    day: str
    budget: Budget
    need: Amount


class Spent(Struct, frozen=True, kw_only=True):
    """What a gateway used of a slice since it last said so, and what it gives back of it."""

    tenant: str
    agent: str
    day: str
    used: Amount = NOTHING
    returned: Amount = NOTHING


class Settlement(Struct, frozen=True, kw_only=True):
    """What one gateway writes down at once: metered rows, and the slices they were taken from."""

    usage: tuple[Usage, ...] = ()
    spent: tuple[Spent, ...] = ()
