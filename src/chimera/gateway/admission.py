"""Who may come in: a limit for each agent, one for all, and one for those who wait for a host.

Refusing at once with a time to come back beats a queue that grows until everybody in it has given up. The only calls
that wait are those that need a host which is starting or full, and their number is bounded over all cells.
Counters only, no clock and no I/O: the same calls in the same order give the same answers.
"""

from chimera.gateway.errors import AgentBusy, GatewayOverloaded

AgentKey = tuple[str, str]
"""Tenant and agent."""


class Admission:
    """Counts calls. Every `enter` that returns is followed by one `leave`, every `hold` by one `unhold`."""

    def __init__(self, *, total: int, held: int) -> None:
        """Allow `total` calls at once, of which `held` may wait for a host."""
        self._total = total
        self._held_limit = held
        self._by_agent: dict[AgentKey, int] = {}
        self.in_flight = 0
        self.held = 0

    def enter(self, agent: AgentKey, limit: int) -> None:
        """Count a call of `agent`, or raise `AgentBusy` or `GatewayOverloaded`."""
        running = self._by_agent.get(agent, 0)
        if running >= limit:
            raise AgentBusy(
                f"agent {agent[1]} has {running} calls at once, as many as it takes",
                next_step="try again later, or raise `scaling.concurrency_target` or `scaling.max_instances`",
                retry_after=1,
                agent=agent[1],
            )
        if self.in_flight >= self._total:
            raise GatewayOverloaded(
                f"{self.in_flight} calls run, as many as the gateway takes",
                next_step="try again later, or raise the setting admission.total",
                retry_after=1,
            )
        self._by_agent[agent] = running + 1
        self.in_flight += 1

    def leave(self, agent: AgentKey) -> None:
        """A call of `agent` ended."""
        left = self._by_agent[agent] - 1
        if left:
            self._by_agent[agent] = left
        else:
            del self._by_agent[agent]
        self.in_flight -= 1

    def running(self, agent: AgentKey) -> int:
        """Calls of `agent` that were let in and haven't left."""
        return self._by_agent.get(agent, 0)

    def hold(self) -> None:
        """Count a call that waits for a host, or raise `GatewayOverloaded`."""
        if self.held >= self._held_limit:
            raise GatewayOverloaded(
                f"{self.held} calls wait for a host, as many as may",
                next_step="try again later, or raise the setting admission.held",
                retry_after=2,
            )
        self.held += 1

    def unhold(self) -> None:
        """It waits no more."""
        self.held -= 1
