"""How much of a limit one gateway holds: pure rules.

A budget is spent for good, so it is leased in slices: a gateway may spend what the store has granted it, and nothing
else. Whatever happens to the gateway, no more than its slice is lost, and nobody spends it twice.

Calls at once and calls a minute come back by themselves, so they are divided by the number of gateways that are alive:
each holds an equal share, without a row or a question for each agent.
"""

from chimera.gateway.quota.model import Amount, Budget

PARTS_OF_LIMIT = 20
"""A slice is at most this part of the budget, where one call doesn't need more: what a crash costs at the most."""

PARTS_OF_REST = 4
"""And at most this part of what is left, so that the last of a budget isn't held by one gateway alone."""


def slice_of(*, limit: int | None, left: int, need: int) -> int | None:
    """How much of a budget to grant for a need; None where what is `left` doesn't cover it.

    All three in one unit; `limit` None is no limit, and the need itself is granted.
    """
    if limit is None:
        return max(0, need)
    if need > left:
        return None
    return max(need, min(limit // PARTS_OF_LIMIT, left // PARTS_OF_REST), 0)


def grant(budget: Budget, left: Amount, need: Amount) -> Amount | None:
    """What to grant of a budget of which `left` is neither used nor granted; None where it doesn't cover the need."""
    tokens = slice_of(limit=budget.tokens, left=left.tokens, need=need.tokens)
    nano_usd = slice_of(limit=budget.nano_usd, left=left.nano_usd, need=need.nano_usd)
    if tokens is None or nano_usd is None:
        return None
    return Amount(tokens=tokens, nano_usd=nano_usd)


def share(limit: int, gateways: int) -> int:
    """How many of an agent's `limit` calls at once one of several gateways lets in: an equal part, at least one."""
    return max(1, limit // max(1, gateways))


def tokens_after(held: float, *, elapsed: float, per_minute: float, burst: float) -> float:
    """What a token bucket (RFC 2697, the committed one) holds after `elapsed` seconds: never more than `burst`."""
    return min(burst, held + max(0.0, elapsed) * per_minute / 60.0)
