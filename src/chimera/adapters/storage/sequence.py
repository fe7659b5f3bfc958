"""The catalogue's sequence: a number that grows with every change, which whoever follows the catalogue asks behind."""

from sqlalchemy import Connection, select, update

from chimera.adapters.storage.schema.catalogue import counter


def read_sequence(connection: Connection) -> int:
    """The number of the newest change."""
    return int(connection.execute(select(counter.c.value).where(counter.c.name == "sequence")).scalar() or 0)


def hold_sequence(connection: Connection) -> int:
    """The number of the newest change, which nobody else changes before this transaction ends.

    Read before anything that the change depends on: with PostgreSQL another control plane may be committing, and what
    it commits is seen by the statements that follow the wait for its row.
    """
    held = update(counter).where(counter.c.name == "sequence").values(value=counter.c.value).returning(counter.c.value)
    return int(connection.execute(held).scalar_one())


def next_sequence(connection: Connection, held: int) -> None:
    """Tell of a change that is of no agent: of cells."""
    write_sequence(connection, held + 1)


def write_sequence(connection: Connection, sequence: int) -> None:
    """The newest change has this number."""
    connection.execute(update(counter).where(counter.c.name == "sequence").values(value=sequence))
