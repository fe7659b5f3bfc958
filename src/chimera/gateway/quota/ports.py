"""What quotas need from outside: one store that all gateways share."""

from collections.abc import Sequence
from typing import Protocol

from chimera.gateway.quota.model import Amount, Ask, Settlement


class QuotaStore(Protocol):
    """Slices, use, and the gateways that are alive. Each method is one transaction; they come one after the other."""

    async def grant(self, gateway: str, asks: Sequence[Ask]) -> Sequence[Amount | None]:
        """For each of `asks` what `gateway` may spend from now on (`rules.grant`), None where the need isn't left.

        Left is the budget without what was used that day (all metered use of the agent) and without what gateways hold
        of it. A gateway that died holds its slice until the day is over.
        """

    async def settle(self, gateway: str, settlement: Settlement) -> None:
        """Add metered rows to the sums of the day, and count slices as used or given back."""

    async def beat(self, gateway: str, expiry: float) -> int:
        """`gateway` is alive for `expiry` more seconds; how many gateways are."""

    async def leave(self, gateway: str) -> None:
        """`gateway` ends."""
