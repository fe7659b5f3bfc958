"""The bus of one machine: an event is published by starting whom it starts, in the same database that told it."""

from chimera.events.delivery.entries import Entry
from chimera.events.delivery.model import Outcome
from chimera.gateway.eventing.dispatch import Dispatcher
from chimera.gateway.eventing.happening import of_entry
from chimera_host.contract.problem import ProblemError


class LocalBus:
    """A `Bus` in this process."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        """Start agents by `dispatcher`."""
        self._dispatcher = dispatcher

    async def refresh(self) -> None:
        """See `Bus`."""
        await self._dispatcher.refresh()

    def wants(self, entry: Entry) -> bool:
        """See `Bus`."""
        return self._dispatcher.wants(of_entry(entry))

    async def aclose(self) -> None:
        """See `Bus`."""

    async def publish(self, entry: Entry) -> Outcome:
        """See `Bus`."""
        try:
            await self._dispatcher.dispatch(of_entry(entry))
        except ProblemError as error:
            return Outcome(result="failed", reason=f"{error.code}: {error.title}", retry_after=error.retry_after)
        return Outcome(result="delivered")
