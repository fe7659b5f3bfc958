"""Reading server-sent events, as the HTML standard defines them, from bytes that come in any pieces."""

from msgspec import Struct

from chimera_host.errors import ToolFailed


class Event(Struct, frozen=True):
    """One event: its data, and the stream's last id and retry delay (seconds) as far as they were told."""

    data: str
    id: str | None = None
    retry: float | None = None


class EventParser:
    """Feed it bytes, get events. A line or an event that grows beyond `limit` bytes is an error."""

    def __init__(self, limit: int) -> None:
        """Keep at most `limit` bytes."""
        self._limit = limit
        self._rest = b""
        self._data: list[str] = []
        self._size = 0
        self.last_id: str | None = None
        self.retry: float | None = None

    def feed(self, piece: bytes) -> list[Event]:
        """The events that end in this piece."""
        buffer = self._rest + piece
        # A \r at the very end may be half of a \r\n.
        held = b"\r" if buffer.endswith(b"\r") else b""
        text = buffer[: len(buffer) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        self._rest = rest + held
        if len(self._rest) + self._size > self._limit:
            raise self._too_long()
        found = []
        for line in lines:
            if (event := self._line(line)) is not None:
                found.append(event)
        return found

    def _line(self, line: bytes) -> Event | None:
        if not line:
            if not self._data:
                return None
            event = Event("\n".join(self._data), self.last_id, self.retry)
            self._data, self._size = [], 0
            return event
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._size += len(line)
                if self._size > self._limit:
                    raise self._too_long()
                self._data.append(value)
            case "id" if "\0" not in value:
                self.last_id = value
            case "retry" if value.isascii() and value.isdigit() and len(value) < 10:
                self.retry = int(value) / 1000
            case _:
                pass
        return None

    def _too_long(self) -> ToolFailed:
        return ToolFailed(f"an event of the server is longer than {self._limit} bytes", next_step="ask it for less")
