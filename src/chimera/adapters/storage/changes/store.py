"""Changes in the database (the port `ChangeStore` of `chimera.delivery.ports`).

Whatever makes or amends a change, or makes one live, takes the catalogue's sequence first, as every change of the
catalogue does. So it is decided in one order with applies and with other changes what is live and what is in the way,
also on PostgreSQL with several control planes.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, select, update

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.changes.contents import (
    batch_contents,
    end_batch,
    forget_revisions,
    live_agents,
    overlapping,
    read_revisions,
)
from chimera.adapters.storage.changes.policies import put_policy, read_policy_row
from chimera.adapters.storage.changes.rows import (
    approval_row,
    change_row,
    item_rows,
    listed,
    read_change,
    tell,
    verdict_rows,
)
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import check_lease
from chimera.adapters.storage.schema.delivery import change as table
from chimera.adapters.storage.schema.delivery import change_approval, change_item, change_verdict, delivery_policy
from chimera.adapters.storage.schema.identity import tenant as tenant_table
from chimera.adapters.storage.sequence import hold_sequence, read_sequence
from chimera.agents.catalogue import ChangedMeanwhile, OwnedByResource, StagedItem
from chimera.delivery import conflicts, transitions
from chimera.delivery.errors import ChangeConflicts, UnknownChange
from chimera.delivery.model import Change, ChangeItem, ChangeRow, Moved, Verdict
from chimera.delivery.policy import DeliveryPolicy
from chimera.delivery.ports import Flight, InFlight, LiveAgent, Revision, StoredDeliveryPolicy
from chimera.kernel.clock import Clock, SystemClock
from chimera.kernel.leases import Lease

_RUN = "in-flight"


class ChangeStorage:
    """Changes on one database."""

    def __init__(self, database: Database, catalogue: Catalogue, clock: Clock | None = None) -> None:
        """Keep them in `database`, which `catalogue` is on."""
        self._database = database
        self._catalogue = catalogue
        self._clock = clock or SystemClock()
        self._put = database.prepared_insert(table)
        self._put_item = database.prepared_insert(change_item)
        self._put_verdict = database.prepared_insert(change_verdict)
        self._put_approval = database.prepared_insert(change_approval)

    # -- reading -------------------------------------------------------------------------------------------------------

    async def batch(self, tenant: str, batch: str) -> list[ChangeItem]:
        """See `ChangeStore`."""
        return await self._database.read(lambda connection: batch_contents(connection, tenant, batch))

    async def live(self, tenant: str, names: Sequence[str]) -> dict[str, LiveAgent]:
        """See `ChangeStore`."""
        return await self._database.read(lambda connection: live_agents(connection, tenant, names))

    async def revisions(self, tenant: str, items: Sequence[ChangeItem]) -> list[Revision]:
        """See `ChangeStore`."""
        return await self._database.read(lambda connection: read_revisions(connection, tenant, items))

    async def change(self, tenant: str, change: str) -> Change | None:
        """See `ChangeStore`."""
        return await self._database.read(lambda connection: read_change(connection, tenant, change))

    async def of_key(self, tenant: str, key: str) -> Change | None:
        """See `ChangeStore`."""
        return await self._database.read(lambda connection: _of_key(connection, tenant, key))

    async def page(
        self, tenant: str, *, state: str | None, agent: str | None, after: str | None, limit: int
    ) -> list[ChangeRow]:
        """See `ChangeStore`."""
        query = select(table).where(table.c.tenant == tenant).order_by(table.c.id.desc()).limit(limit)
        if after:
            query = query.where(table.c.id < after)
        if state is not None:
            query = query.where(table.c.ended.is_(None) if state == _RUN else table.c.state == state)
        if agent is not None:
            touched = select(change_item.c.change).where(
                (change_item.c.tenant == tenant) & (change_item.c.agent == agent)
            )
            query = query.where(table.c.id.in_(touched))
        now = self._clock.wall()
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [listed(row, now) for row in rows]

    async def in_flight_of(self, tenant: str, author: str) -> list[ChangeRow]:
        """See `ChangeStore`."""
        its = (table.c.tenant == tenant) & table.c.ended.is_(None) & (table.c.author == author)
        query = select(table).where(its).order_by(table.c.id.desc())
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [listed(row, self._clock.wall()) for row in rows]

    async def in_flight(self) -> Flight:
        """See `ChangeStore`."""
        c = table.c
        suspended = select(tenant_table.c.name).where(tenant_table.c.status == "suspended")
        query = select(c.tenant, c.id, c.version, c.content).where(c.ended.is_(None) | (c.staged == 1))
        query = query.where(c.tenant.not_in(suspended)).order_by(c.id)
        versions = select(func.coalesce(func.sum(delivery_policy.c.version), 0))

        def look(connection: Connection) -> Flight:
            rows = connection.execute(query).all()
            return Flight(
                changes=tuple(
                    InFlight(tenant=row.tenant, id=row.id, version=row.version, content=row.content) for row in rows
                ),
                sequence=read_sequence(connection),
                policies=int(connection.execute(versions).scalar_one()),
            )

        return await self._database.read(look)

    async def counts(self) -> dict[str, int]:
        """See `ChangeStore`."""
        query = select(table.c.state, func.count()).where(table.c.ended.is_(None)).group_by(table.c.state)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return {row[0]: row[1] for row in rows}

    # -- writing -------------------------------------------------------------------------------------------------------

    async def create(
        self,
        opened: Moved,
        *,
        batch: str | None,
        supersede: bool,
        key: str | None = None,
        held: Lease | None = None,
    ) -> Change:
        """See `ChangeStore`."""
        change = opened.change

        def job(connection: Connection) -> Change:
            hold_sequence(connection)
            if held is not None:
                check_lease(connection, held)
            known = read_change(connection, change.tenant, change.id)
            if known is None and key is not None:
                known = _of_key(connection, change.tenant, key)
            if known is not None:
                return known
            if batch is not None:
                end_batch(connection, change.tenant, batch)
            self._check_items(connection, change)
            self._give_way(connection, change, supersede)
            self._put.run(connection, **change_row(change), key=key)
            self._put_item.run_many(connection, item_rows(change))
            tell(connection, change, opened.told)
            return change

        return await self._database.write(job)

    async def save(
        self, before: Change, after: Moved | Change, *, batch: str | None = None, held: Lease | None = None
    ) -> Change:
        """See `ChangeStore`."""

        def job(connection: Connection) -> Change:
            if isinstance(after, Moved) and after.items:
                hold_sequence(connection)
            if held is not None:
                check_lease(connection, held)
            if batch is not None:
                end_batch(connection, before.tenant, batch)
            return self._save(connection, before, after)

        return await self._database.write(job)

    async def put_verdicts(
        self, change: Change, check: str, verdicts: Sequence[Verdict], *, held: Lease | None
    ) -> None:
        """See `ChangeStore`."""
        its = (table.c.tenant == change.tenant) & (table.c.id == change.id) & (table.c.content == change.content)
        said = (change_verdict.c.tenant == change.tenant) & (change_verdict.c.change == change.id)

        def job(connection: Connection) -> None:
            if held is not None:
                check_lease(connection, held)
            if connection.execute(select(table.c.id).where(its).with_for_update()).one_or_none() is None:
                return
            connection.execute(delete(change_verdict).where(said & (change_verdict.c.check == check)))
            self._put_verdict.run_many(connection, verdict_rows(change, verdicts))

        await self._database.write(job)

    async def produce(self, before: Change, done: Moved, *, held: Lease | None) -> int:
        """See `ChangeStore`."""
        found = await self.revisions(before.tenant, before.items)
        staged = [
            StagedItem(position=number, source=one.item.source, file=one.item.file, compiled=one.compiled)
            for number, one in enumerate(found)
            if one.compiled is not None
        ]

        def check(connection: Connection) -> None:
            self._check_items(connection, before)

        def finish(connection: Connection) -> None:
            self._save(connection, before, done)

        removed = [item.agent for item in before.items if item.revision is None]
        owners = {item.agent: item.owner for item in before.items if item.owner is not None}
        return await self._catalogue.deliver(
            before.tenant,
            staged,
            removed,
            by=before.author,
            change=before.id,
            owners=owners,
            held=held,
            before=check,
            after=finish,
        )

    # -- delivery policies ---------------------------------------------------------------------------------------------

    async def policy(self, tenant: str) -> StoredDeliveryPolicy:
        """See `ChangeStore`."""
        return await self._database.read(lambda connection: read_policy_row(connection, tenant))

    async def put_policy(self, tenant: str, policy: DeliveryPolicy, *, expect: int | None, by: str) -> int:
        """See `ChangeStore`."""
        now = self._clock.wall()
        return await self._database.write(
            lambda connection: put_policy(connection, tenant, policy, expect=expect, by=by, now=now)
        )

    # -- inside --------------------------------------------------------------------------------------------------------

    def _save(self, connection: Connection, before: Change, after: Moved | Change) -> Change:
        made = after.change if isinstance(after, Moved) else after
        its = (table.c.tenant == before.tenant) & (table.c.id == before.id)
        values = {name: value for name, value in change_row(made).items() if name not in ("tenant", "id", "created")}
        done = connection.execute(update(table).where(its & (table.c.version == before.version)).values(values))
        if done.rowcount != 1:
            raise _moved_on(connection, before)
        if isinstance(after, Moved):
            if after.items:
                self._check_items(connection, made)
                self._give_way(connection, made, supersede=False)
                mine = (change_item.c.tenant == before.tenant) & (change_item.c.change == before.id)
                connection.execute(delete(change_item).where(mine))
                self._put_item.run_many(connection, item_rows(made))
                said = (change_verdict.c.tenant == before.tenant) & (change_verdict.c.change == before.id)
                connection.execute(delete(change_verdict).where(said))
                forget_revisions(connection, before.tenant, [item.revision for item in before.items if item.revision])
            if after.approval is not None:
                self._put_approval.run(connection, **approval_row(made, after.approval))
            tell(connection, made, after.told)
        return made

    def _check_items(self, connection: Connection, change: Change) -> None:
        """Refuse a change whose agents aren't as it was made from, or that another owner than the item's has."""
        found = live_agents(connection, change.tenant, change.names)
        brought = {item.agent: item.owner for item in change.items}
        for name, one in found.items():
            if one.owner == brought[name]:
                continue
            if one.owner is None:
                raise OwnedByResource(
                    f"agent {name} was applied through the API, and not by the resource {brought[name]}",
                    next_step="delete the agent, or leave the resource out",
                )
            raise OwnedByResource(
                f"agent {name} comes from the resource {one.owner}",
                next_step="change the resource, or take the agent out of the change",
            )
        live = {name: one.revision for name, one in found.items()}
        if late := conflicts.stale(change.items, live):
            raise ChangeConflicts(
                conflicts.stale_text(late, live), next_step="make the change again from what is live now"
            )

    def _give_way(self, connection: Connection, change: Change, supersede: bool) -> None:
        """See to it that no other change in flight touches these agents: those that may are superseded, or refuse."""
        others = overlapping(connection, change)
        yielding = [one for one in others if supersede and conflicts.gives_way(one, change.author_person)]
        conflicts.refuse([one for one in others if one not in yielding])
        for one in yielding:
            other = read_change(connection, change.tenant, one.id, lock=True)
            assert other is not None, "it was read under the same lock"
            why = f"change {change.id} touches the same agents"
            ended = transitions.ended(other, "superseded", why, self._clock.wall(), by=change.author)
            self._save(connection, other, ended)


def _moved_on(connection: Connection, before: Change) -> ChangedMeanwhile | UnknownChange:
    now = connection.execute(
        select(table.c.state).where((table.c.tenant == before.tenant) & (table.c.id == before.id))
    ).scalar()
    if now is None:
        return UnknownChange(f"there is no change {before.id}", next_step="see `chimera change list`")
    return ChangedMeanwhile(
        f"change {before.id} is {now} by now", next_step=f"look again: `chimera change show {before.id}`"
    )


def _of_key(connection: Connection, tenant: str, key: str) -> Change | None:
    its = (table.c.tenant == tenant) & (table.c.key == key)
    found = connection.execute(select(table.c.id).where(its)).scalar()
    return None if found is None else read_change(connection, tenant, found)
