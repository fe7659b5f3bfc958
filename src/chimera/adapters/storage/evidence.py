"""Evidence of revisions in the database (the port `EvidenceStore`)."""

import zlib
from collections.abc import Sequence

from sqlalchemy import Connection, exists, select

from chimera.adapters.storage.changes.contents import read_revisions
from chimera.adapters.storage.changes.rows import read_change
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import check_lease
from chimera.adapters.storage.removing import is_one_of
from chimera.adapters.storage.schema.delivery import change, change_item
from chimera.adapters.storage.schema.evidence import evidence
from chimera.delivery.evidence.ports import PROVENANCE, Due, Kept, Kind
from chimera.delivery.model import Change
from chimera.delivery.ports import Revision
from chimera.kernel.leases import Lease

BUILT = ("awaiting-approval", "staging", "rolling-out", "paused", "done", "rolled-back")
"""States of a change that has passed its build stage."""
_KEY = ("tenant", "revision", "kind", "change")


class EvidenceStorage:
    """Evidence on one database."""

    def __init__(self, database: Database) -> None:
        """Keep it in `database`."""
        self._database = database
        self._put = database.prepared_insert(evidence, database.upsert(evidence, _KEY))

    async def put(self, kept: Sequence[Kept], *, held: Lease | None) -> None:
        """See `EvidenceStore`."""
        rows = [
            {
                **{name: getattr(one, name) for name in (*_KEY, "version", "at")},
                "data": zlib.compress(one.data),
            }
            for one in kept
        ]

        def job(connection: Connection) -> None:
            if held is not None:
                check_lease(connection, held)
            self._put.run_many(connection, rows)

        await self._database.write(job)

    async def newest(self, tenant: str, revision: str, kind: Kind) -> Kept | None:
        """See `EvidenceStore`."""
        return (await self.newest_of(tenant, [revision], kind)).get(revision)

    async def newest_of(self, tenant: str, revisions: Sequence[str], kind: Kind) -> dict[str, Kept]:
        """See `EvidenceStore`."""
        row = evidence.c

        def query(connection: Connection) -> dict[str, Kept]:
            keys = is_one_of(connection, (row.revision, row.tenant), [(digest, tenant) for digest in revisions])
            wanted = select(evidence).where(keys & (row.kind == kind)).order_by(row.at, row.change)
            # The last of each revision stays.
            found = {one["revision"]: one for one in connection.execute(wanted).mappings()}
            return {digest: Kept(**{**one, "data": zlib.decompress(one["data"])}) for digest, one in found.items()}

        return await self._database.read(query) if revisions else {}

    async def due(self, since: float, limit: int) -> list[Due]:
        """See `EvidenceStore`."""
        said = exists().where(
            (evidence.c.tenant == change.c.tenant)
            & (evidence.c.change == change.c.id)
            & (evidence.c.kind == PROVENANCE)
            & (evidence.c.version >= change.c.version)
        )
        brings = exists().where(
            (change_item.c.tenant == change.c.tenant)
            & (change_item.c.change == change.c.id)
            & change_item.c.revision.is_not(None)
        )
        query = (
            select(change.c.tenant, change.c.id, change.c.updated)
            .where(change.c.state.in_(BUILT) & (change.c.updated >= since) & brings & ~said)
            .order_by(change.c.updated, change.c.id)
            .limit(limit)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [Due(tenant=row.tenant, change=row.id, updated=row.updated) for row in rows]

    async def read(self, tenant: str, change_id: str) -> tuple[Change, list[Revision]] | None:
        """See `EvidenceStore`."""

        def query(connection: Connection) -> tuple[Change, list[Revision]] | None:
            found = read_change(connection, tenant, change_id)
            return None if found is None else (found, read_revisions(connection, tenant, found.items))

        return await self._database.read(query)
