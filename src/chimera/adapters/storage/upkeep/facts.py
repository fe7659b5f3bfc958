"""Facts that are too old, removed in their order and never beyond what somebody still needs."""

from sqlalchemy import Connection, delete, select

from chimera.adapters.storage.schema.journal import event


def expire(connection: Connection, before: float, limit: int, floor: int) -> int:
    """Remove the first facts as long as they are older than `before` and no later than place `floor`; how many."""
    last, count = _old(connection, before, limit, floor)
    if not count:
        return 0
    return connection.execute(delete(event).where(event.c.seq <= last)).rowcount


def due(connection: Connection, before: float, most: int, floor: int) -> int:
    """How many that would be, up to `most`."""
    return _old(connection, before, most, floor)[1]


def _old(connection: Connection, before: float, limit: int, floor: int) -> tuple[int, int]:
    """The place of the last fact that may go, and how many those are."""
    first = select(event.c.seq, event.c.at).order_by(event.c.seq).limit(limit)
    last = count = 0
    for seq, at in connection.execute(first):
        if at >= before or seq > floor:
            break
        last, count = seq, count + 1
    return last, count
