"""Events that callers send: whom they start is started at once, and what is accepted is committed.

The platform's own types can't be sent: an agent that `chimera.task.failed` starts may rely on a task that failed.
"""

from chimera.events.cloudevents import TYPE_PREFIX
from chimera.gateway.eventing.dispatch import Dispatcher
from chimera.gateway.eventing.errors import InvalidEvent
from chimera.gateway.eventing.happening import Happening


class Publisher:
    """Takes events from callers."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        """Start agents by `dispatcher`."""
        self._dispatcher = dispatcher

    async def publish(self, event: Happening) -> int:
        """Start whom the event starts; how many that are. Sent again with its `source` and `id`, it starts nobody."""
        if event.type.startswith(TYPE_PREFIX):
            raise InvalidEvent(
                f"types that begin with {TYPE_PREFIX} are the platform's own",
                next_step="name the event after a domain of yours, such as com.example.order.created",
            )
        await self._dispatcher.refresh()
        return await self._dispatcher.dispatch(event)
