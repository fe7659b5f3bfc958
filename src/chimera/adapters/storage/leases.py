"""Leases in the database (`chimera.kernel.leases`), by its clock; and the check of a token in a transaction."""

from sqlalchemy import Connection, delete, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.errors import StorageError
from chimera.adapters.storage.schema.leases import lease
from chimera.kernel.leases import Lease, decide


class LeaseLost(StorageError):
    """Another process has taken over what this one still worked at; nothing of that was written."""

    code = "lease-lost"
    status = 409
    title = "Another process has taken over"


class StoredLeases:
    """A `Leases` that all processes on one database share."""

    def __init__(self, database: Database) -> None:
        """Keep leases in `database`."""
        self._database = database
        self._put = database.prepared_insert(lease, database.upsert(lease, ("name",)))
        self._first = database.prepared_insert(lease, database.insert(lease).on_conflict_do_nothing())

    async def acquire(self, name: str, owner: str, life: float) -> Lease | None:
        """See `Leases`."""
        return await self._database.write(lambda connection: self._acquire(connection, name, owner, life))

    async def release(self, lease: Lease) -> None:
        """See `Leases`."""
        await self._database.write(lambda connection: self._release(connection, lease))

    def _acquire(self, connection: Connection, name: str, owner: str, life: float) -> Lease | None:
        held = _held(connection, name)
        now = self._database.now(connection)
        got = decide(held, name=name, owner=owner, now=now, life=life)
        if got is None:
            return None
        row = {"name": got.name, "owner": got.owner, "token": got.token, "expires": got.expires}
        if held is None:
            # There was no row to lock: of two who ask at the same moment one inserts it.
            return got if self._first.run(connection, **row) == 1 else None
        self._put.run(connection, **row)
        return got

    def _release(self, connection: Connection, given: Lease) -> None:
        held = _held(connection, given.name)
        if held is not None and (held.owner, held.token) == (given.owner, given.token):
            # The row stays, so that the token goes on growing.
            expired = {"name": held.name, "owner": "", "token": held.token, "expires": 0.0}
            self._put.run(connection, **expired)


def check_lease(connection: Connection, held: Lease) -> None:
    """Refuse a transaction of somebody whose lease another has taken over; raises `LeaseLost`.

    Call it in the job that writes. The lease can't change hands until the job's transaction has ended.
    """
    query = select(lease.c.token).where(lease.c.name == held.name).with_for_update(read=True)
    token = connection.execute(query).scalar()
    if token != held.token:
        raise LeaseLost(
            f"the lease {held.name!r} has the token {token} and not {held.token} any more",
            next_step="nothing: the process that holds it goes on with the work",
        )


def forget_lease(connection: Connection, name: str) -> None:
    """Remove a lease whose name is never used again."""
    connection.execute(delete(lease).where(lease.c.name == name))


def _held(connection: Connection, name: str) -> Lease | None:
    row = connection.execute(select(lease).where(lease.c.name == name).with_for_update()).one_or_none()
    return None if row is None else Lease(name=row.name, owner=row.owner, token=row.token, expires=row.expires)
