"""What a rollout asks of whoever routes calls.

Everything here is for many agents at once, in one transaction, and says a state rather than a step: asked a second time
for the same, it changes nothing and refuses nothing. Whoever works under a lease shows it, and it is checked in the
transaction that writes, so that a leader who comes back late moves no call.

Somebody may change an agent directly while it is rolled out, or take it back: that ends its green side, in the same
transaction. The rollout sees it in `look`; `set_green` and `finish` refuse the agent.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from chimera.delivery.sides.model import Green, Observations, Standing
from chimera.kernel.leases import Lease


class Sides(Protocol):
    """The sides of agents."""

    async def look(self, tenant: str, agents: Sequence[str]) -> Mapping[str, Standing]:
        """How these agents stand; one that is neither live nor has a green side isn't in it."""

    async def set_green(self, tenant: str, greens: Sequence[Green], *, rollout: str, held: Lease) -> Mapping[str, str]:
        """Give agents their green sides with weight 0, and have them loaded; the refused ones with the reason.

        Refused are agents whose live revision isn't `before` (and isn't the wanted one either), those that have a green
        side of another rollout, those that another owner changes alone, revisions that aren't stored or can't be run
        here, and those that were taken back from this very rollout. From then on what is seen of the others is kept,
        blue's too.
        """

    async def set_weights(self, tenant: str, weights: Mapping[str, int], *, rollout: str, held: Lease) -> None:
        """Give the rollout's green sides these weights in basis points; agents without one are passed over."""

    async def finish(
        self,
        tenant: str,
        *,
        green: Sequence[Green] = (),
        blue: Sequence[Green] = (),
        rollout: str,
        change: str | None = None,
        keep: float,
        by: str,
        held: Lease,
        now: bool = False,
        tolerate: int | None = None,
    ) -> Mapping[str, str]:
        """End with green live (what `green` names), or with blue live and green withdrawn (`blue`).

        Where green won, blue is kept warm for `keep` seconds. Where blue is wanted, it may be live still, or green may
        be live already: then blue comes back. With `now` calls that run on what is withdrawn are cancelled. `change` is
        written into the history of the agents, and so is `by`, who did it. Agents that stand as is asked are passed
        over; refused, with the reason, are those that somebody else changed meanwhile, and of `green` those that have
        no green side any more. Where more of `green` are refused than `tolerate` (None: as many as there are), none of
        it becomes live. One transaction: who reads the catalogue sees all of it or nothing.
        """

    async def observations(self, tenant: str, rollout: str, after: int, limit: int = 100) -> Observations:
        """What was seen after place `after` of agents that had a green side of this rollout then, in whole windows.

        `limit` is how many windows are looked at; where `through` is `after`, there is nothing newer.
        """

    async def observed(self) -> int:
        """The newest place."""
