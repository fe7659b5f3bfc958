"""One agent's slice of its budget, in the memory of one gateway.

`granted` is what the store has given for the day, `used` what model calls were settled at, `held` what calls under way
have reserved. All three only ever change here, so what is free is always known without a question.
"""

from dataclasses import dataclass

from chimera.gateway.quota.model import NOTHING, Amount, Budget, Spent


@dataclass(slots=True)
class Purse:
    """A slice. Calls hold of it before they spend, and settle at what they used."""

    day: str
    budget: Budget
    touched: float
    granted: Amount = NOTHING
    used: Amount = NOTHING
    held: Amount = NOTHING
    told: Amount = NOTHING
    """How much of `used` the store knows."""
    away: Amount = NOTHING
    """How much of `granted` was given back."""

    @property
    def free(self) -> Amount:
        """What may still be reserved; negative in what calls used beyond their reserve."""
        return self.granted.minus(self.away).minus(self.used).minus(self.held)

    def hold(self, amount: Amount) -> bool:
        """Reserve `amount`, if it is free."""
        if not self.covers(amount):
            return False
        self.held = self.held.plus(amount)
        return True

    def covers(self, amount: Amount) -> bool:
        """Whether `amount` is free, in what the budget limits."""
        free = self.free
        return (self.budget.tokens is None or free.tokens >= amount.tokens) and (
            self.budget.nano_usd is None or free.nano_usd >= amount.nano_usd
        )

    def settle(self, reserved: Amount, used: Amount) -> None:
        """A call that had `reserved` used so much."""
        self.held = self.held.minus(reserved)
        self.used = self.used.plus(used)

    def lacking(self, amount: Amount) -> Amount:
        """What must be granted before `amount` can be held."""
        free = self.free
        return Amount(tokens=max(0, amount.tokens - free.tokens), nano_usd=max(0, amount.nano_usd - free.nano_usd))

    def report(self, key: tuple[str, str], *, give_back: bool) -> Spent | None:
        """What the store doesn't know yet, with all that is free where it is given back; None where that is nothing."""
        used = self.used.minus(self.told)
        free = self.free
        returned = Amount(tokens=max(0, free.tokens), nano_usd=max(0, free.nano_usd)) if give_back else NOTHING
        if used == NOTHING and returned == NOTHING:
            return None
        self.told = self.used
        self.away = self.away.plus(returned)
        return Spent(tenant=key[0], agent=key[1], day=self.day, used=used, returned=returned)

    def take_back(self, spent: Spent) -> None:
        """The store could not be told."""
        self.told = self.told.minus(spent.used)
        self.away = self.away.minus(spent.returned)
