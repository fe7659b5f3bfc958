"""A fact on its way out: what filters ask of it and how it is written, each worked out once for all who get it."""

from chimera.events import cloudevents
from chimera.events.delivery.model import Mode
from chimera.events.model import RecordedFact


class Entry:
    """One fact of the journal, with the forms that it was asked for."""

    __slots__ = ("_attributes", "_event", "_written", "fact")

    def __init__(self, fact: RecordedFact, source: str) -> None:
        """`source` is what stands before the tenant's path in the event's `source`."""
        self.fact = fact
        self._event = cloudevents.event_of(fact, source)
        self._attributes: dict[str, str] | None = None
        self._written: dict[Mode, tuple[dict[str, str], bytes]] = {}

    @property
    def attributes(self) -> dict[str, str]:
        """The event's context attributes."""
        if self._attributes is None:
            self._attributes = cloudevents.attributes(self._event)
        return self._attributes

    @property
    def event(self) -> cloudevents.CloudEvent:
        """The event."""
        return self._event

    def written(self, mode: Mode) -> tuple[dict[str, str], bytes]:
        """Headers and body."""
        found = self._written.get(mode)
        if found is None:
            write = cloudevents.structured if mode == "structured" else cloudevents.binary
            found = self._written[mode] = write(self._event)
        return found
