"""Keys, grants, policies and tenants in the database (the port of `chimera.gateway.identity.ports`).

Each change takes the next number of the counter `identity` first. On PostgreSQL that is a row lock until the commit, so
changes of identity happen one after another and their numbers are in the order of their commits: who has read up to a
number has missed nothing. Each leaves a fact and an entry of the audit log in its own transaction.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec.structs import asdict, replace
from sqlalchemy import ColumnElement, Connection, Table, bindparam, delete, func, select, update

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.schema.catalogue import counter
from chimera.adapters.storage.schema.identity import api_key, policy, role_grant, tenant
from chimera.events.model import Fact
from chimera.gateway.identity.errors import KeyNotFound, TenantExists, TenantNotFound
from chimera.gateway.identity.model import Grant, StoredKey, StoredPolicy, Tenant, TenantStatus
from chimera.gateway.identity.ports import KeyChange
from chimera.gateway.identity.principal import ALL_TENANTS, Principal
from chimera.gateway.policy.errors import PolicyNotFound, TooManyPolicies
from chimera.immune.audit.model import AuditRecord
from chimera.kernel.clock import Clock, SystemClock
from chimera.kernel.ids import new_id

T = TypeVar("T")
COUNTER = "identity"


class IdentityStorage:
    """The store of identity on one database."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        """Compile the frequent statements for `database`."""
        self._database = database
        self._clock = clock or SystemClock()
        self._counter = database.prepared(select(counter.c.value).where(counter.c.name == COUNTER))
        first = database.insert(counter)
        counted = first.on_conflict_do_update(index_elements=["name"], set_={"value": counter.c.value + 1})
        self._count = database.prepared_insert(counter, counted)
        self._key = database.prepared(select(api_key).where(api_key.c.id == bindparam("the_id")))
        the_grant = (role_grant.c.tenant == bindparam("the_tenant")) & (role_grant.c.principal == bindparam("who"))
        self._grant = database.prepared(select(role_grant).where(the_grant))
        # An older note of another gateway, or of this one before its clock was set back, changes nothing.
        unused = (api_key.c.last_used.is_(None)) | (api_key.c.last_used < bindparam("at"))
        self._note = database.prepared(
            update(api_key).where((api_key.c.id == bindparam("the_id")) & unused).values(last_used=bindparam("at"))
        )

    # -- reading -------------------------------------------------------------------------------------------------------

    async def sequence(self) -> int:
        """See `IdentityStore`."""
        row = await self._database.read(self._counter.one, quick=True)
        return 0 if row is None else int(row[0])

    async def changed_keys(self, after: int, limit: int) -> Sequence[StoredKey]:
        """See `IdentityStore`."""
        return await self._changed(api_key, _stored_key, after, limit)

    async def changed_grants(self, after: int, limit: int) -> Sequence[Grant]:
        """See `IdentityStore`."""
        return await self._changed(role_grant, _grant, after, limit)

    async def changed_policies(self, after: int, limit: int) -> Sequence[StoredPolicy]:
        """See `IdentityStore`."""
        return await self._changed(policy, _policy, after, limit)

    async def changed_tenants(self, after: int, limit: int) -> Sequence[Tenant]:
        """See `IdentityStore`."""
        return await self._changed(tenant, _tenant, after, limit)

    async def key(self, key: str) -> StoredKey | None:
        """See `IdentityStore`."""
        row = await self._database.read(lambda connection: self._key.one(connection, the_id=key), quick=True)
        return None if row is None else _stored_key(dict(zip(api_key.c.keys(), row, strict=True)))

    async def grant(self, tenant: str, principal: str) -> Grant | None:
        """See `IdentityStore`."""
        row = await self._database.read(
            lambda connection: self._grant.one(connection, the_tenant=tenant, who=principal), quick=True
        )
        return None if row is None else _grant(dict(zip(role_grant.c.keys(), row, strict=True)))

    async def keys(self, tenant: str, after: str, limit: int) -> Sequence[StoredKey]:
        """See `IdentityStore`."""
        found = select(api_key).where((api_key.c.tenant == tenant) & (api_key.c.id > after)).order_by(api_key.c.id)
        return await self._rows(found.limit(limit), _stored_key)

    async def grants(self, tenant: str, after: str, limit: int) -> Sequence[Grant]:
        """See `IdentityStore`."""
        where = (role_grant.c.tenant == tenant) & (role_grant.c.principal > after) & (role_grant.c.roles != "")
        return await self._rows(select(role_grant).where(where).order_by(role_grant.c.principal).limit(limit), _grant)

    async def policy(self, tenant: str, name: str) -> StoredPolicy | None:
        """See `IdentityStore`."""
        where = (policy.c.tenant == tenant) & (policy.c.name == name) & (policy.c.text != "")
        return next(iter(await self._rows(select(policy).where(where), _policy)), None)

    async def tenant(self, name: str) -> Tenant | None:
        """See `IdentityStore`."""
        return next(iter(await self._rows(select(tenant).where(tenant.c.name == name), _tenant)), None)

    async def policies(self, tenant: str, after: str, limit: int) -> Sequence[StoredPolicy]:
        """See `IdentityStore`."""
        where = (policy.c.tenant == tenant) & (policy.c.name > after) & (policy.c.text != "")
        return await self._rows(select(policy).where(where).order_by(policy.c.name).limit(limit), _policy)

    async def tenants(self, after: str, limit: int) -> Sequence[Tenant]:
        """See `IdentityStore`."""
        return await self._rows(
            select(tenant).where(tenant.c.name > after).order_by(tenant.c.name).limit(limit), _tenant
        )

    # -- changing ------------------------------------------------------------------------------------------------------

    async def create_key(self, key: StoredKey, by: Principal) -> StoredKey:
        """See `IdentityStore`."""

        def job(connection: Connection) -> StoredKey:
            number = self._next(connection)
            _check_tenant(connection, key.tenant)
            stored = replace(key, sequence=number)
            connection.execute(api_key.insert().values(_key_row(stored)))
            self._tell(connection, "key.created", key.tenant, f"keys/{key.id}", by, _key_data(stored))
            return stored

        return await self._database.write(job)

    async def change_key(
        self, tenant: str, key: str, change: Callable[[StoredKey], StoredKey], *, what: KeyChange, by: Principal
    ) -> StoredKey:
        """See `IdentityStore`."""

        def job(connection: Connection) -> StoredKey:
            number = self._next(connection)
            here = (api_key.c.tenant == tenant) & (api_key.c.id == key)
            row = connection.execute(select(api_key).where(here).with_for_update()).mappings().one_or_none()
            if row is None:
                raise KeyNotFound(f"tenant {tenant} has no key {key[:100]}", next_step="see `chimera keys list`")
            stored = replace(change(_stored_key(row)), sequence=number)
            values = _key_row(stored)
            del values["last_used"]  # noted by others meanwhile
            connection.execute(update(api_key).where(here).values(values))
            self._tell(connection, f"key.{what}", tenant, f"keys/{key}", by, _key_data(stored))
            return stored

        return await self._database.write(job)

    async def put_grant(self, grant: Grant, by: Principal) -> Grant:
        """See `IdentityStore`."""

        def job(connection: Connection) -> Grant:
            number = self._next(connection)
            _check_tenant(connection, grant.tenant)
            stored = replace(grant, sequence=number)
            values = {**asdict(stored), "roles": " ".join(stored.roles)}
            connection.execute(self._database.upsert(role_grant, ("tenant", "principal")).values(values))
            what = "role.granted" if grant.roles else "role.withdrawn"
            data = {"principal": grant.principal, "roles": grant.roles}
            self._tell(connection, what, grant.tenant, f"roles/{grant.principal}", by, data)
            return stored

        return await self._database.write(job)

    async def put_policies(
        self, tenant: str, texts: Mapping[str, str | None], by: Principal, *, at: float, most: int
    ) -> Sequence[StoredPolicy]:
        """See `IdentityStore`."""

        def job(connection: Connection) -> list[StoredPolicy]:
            self._next(connection)  # first, so that two changes at once don't both find room
            _check_tenant(connection, tenant)
            stored = []
            for name, text in texts.items():
                here = (policy.c.tenant == tenant) & (policy.c.name == name)
                row = connection.execute(select(policy).where(here)).mappings().one_or_none()
                if text is None and (row is None or not row["text"]):
                    raise PolicyNotFound(
                        f"tenant {tenant} has no policy {name}", next_step="see `chimera policies list`"
                    )
                if row is not None and row["text"] == text:
                    stored.append(_policy(row))
                    continue
                made = StoredPolicy(
                    tenant=tenant,
                    name=name,
                    text=text or "",
                    version=1 if row is None else row["version"] + 1,
                    updated=at,
                    by=by.actor,
                    sequence=self._next(connection),
                )
                connection.execute(self._database.upsert(policy, ("tenant", "name")).values(asdict(made)))
                what = "policy.changed" if text else "policy.deleted"
                self._tell(connection, what, tenant, f"policies/{name}", by, {"name": name, "version": made.version})
                stored.append(made)
            live = select(func.count()).select_from(policy).where((policy.c.tenant == tenant) & (policy.c.text != ""))
            if connection.execute(live).scalar_one() > most:
                raise TooManyPolicies(f"a tenant may have {most} policies", next_step="delete some, or join them")
            return stored

        return await self._database.write(job)

    async def create_tenant(self, name: str, by: Principal, *, at: float) -> Tenant:
        """See `IdentityStore`."""

        def job(connection: Connection) -> Tenant:
            number = self._next(connection)
            made = Tenant(name=name, status="active", created=at, updated=at, by=by.actor, sequence=number)
            insert = self._database.insert(tenant).values(asdict(made)).on_conflict_do_nothing()
            if connection.execute(insert).rowcount != 1:
                raise TenantExists(f"there is a tenant {name}", next_step="see `chimera tenants list`")
            self._tell(connection, "tenant.created", name, "tenant", by, {"name": name})
            return made

        return await self._database.write(job)

    async def set_tenant(self, name: str, status: TenantStatus, by: Principal, *, at: float) -> Tenant:
        """See `IdentityStore`."""

        def job(connection: Connection) -> Tenant:
            number = self._next(connection)
            here = tenant.c.name == name
            row = connection.execute(select(tenant).where(here)).mappings().one_or_none()
            if row is None:
                raise _no_tenant(name)
            stored = replace(_tenant(row), status=status, updated=at, by=by.actor, sequence=number)
            connection.execute(update(tenant).where(here).values(asdict(stored)))
            what = "tenant.suspended" if status == "suspended" else "tenant.resumed"
            self._tell(connection, what, name, "tenant", by, {"name": name})
            return stored

        return await self._database.write(job)

    async def used(self, keys: Mapping[str, float]) -> None:
        """See `IdentityStore`."""
        rows = [{"the_id": key, "at": at} for key, at in sorted(keys.items())]
        await self._database.write(lambda connection: self._note.run_many(connection, rows))

    # -- helpers -------------------------------------------------------------------------------------------------------

    async def _changed(self, table: Table, made: Callable[[Any], T], after: int, limit: int) -> list[T]:
        query = select(table).where(table.c.sequence > after).order_by(table.c.sequence).limit(limit)
        return await self._rows(query, made)

    async def _rows(self, query: Any, made: Callable[[Any], T]) -> list[T]:
        def run(connection: Connection) -> list[T]:
            return [made(row) for row in connection.execute(query).mappings()]

        return await self._database.read(run)

    def _next(self, connection: Connection) -> int:
        """The number of this change. Its row is locked until the commit."""
        self._count.run(connection, name=COUNTER, value=1)
        found = self._counter.one(connection)
        assert found is not None
        return int(found[0])

    def _tell(
        self, connection: Connection, what: str, tenant: str, subject: str, by: Principal, data: dict[str, Any]
    ) -> None:
        """The fact, and the entry of the audit log."""
        at = self._clock.wall()
        record = journal(connection)
        record.fact(
            Fact(id=new_id("evt"), type=what, tenant=tenant, subject=subject, at=at, data={**data, "by": by.actor})
        )
        record.audit(
            AuditRecord(
                at=at,
                tenant="" if tenant == ALL_TENANTS else tenant,
                actor=by.actor,
                action=what,
                resource=subject,
                outcome="done",
                detail=data,
            )
        )


def expire(connection: Connection, now: float, limit: int) -> int:
    """Remove keys that ended before `now` (seconds since the epoch), `limit` at most; how many that were."""
    old = select(api_key.c.id).where(ended_before(now)).order_by(api_key.c.id).limit(limit)
    ids = connection.execute(old).scalars().all()
    if ids:
        connection.execute(delete(api_key).where(api_key.c.id.in_(ids)))
    return len(ids)


def ended_before(now: float) -> ColumnElement[bool]:
    """Whether a key was revoked, or expired, before `now`."""
    revoked = api_key.c.revoked.is_not(None) & (api_key.c.revoked < now)
    return revoked | (api_key.c.expires.is_not(None) & (api_key.c.expires < now))


def _check_tenant(connection: Connection, name: str) -> None:
    if name == ALL_TENANTS:
        return
    if connection.execute(select(tenant.c.name).where(tenant.c.name == name)).one_or_none() is None:
        raise _no_tenant(name)


def _no_tenant(name: str) -> TenantNotFound:
    return TenantNotFound(f"there is no tenant {name[:100]}", next_step="make it with `chimera tenants create`")


def _key_row(key: StoredKey) -> dict[str, Any]:
    return {
        **asdict(key),
        "roles": " ".join(key.roles),
        "scopes": None if key.scopes is None else " ".join(key.scopes),
        "agents": None if key.agents is None else " ".join(key.agents),
    }


def _key_data(key: StoredKey) -> dict[str, Any]:
    return {
        "key": key.id,
        "name": key.name,
        "roles": key.roles,
        "scopes": key.scopes,
        "agents": key.agents,
        "expires": key.expires,
    }


def _stored_key(row: Any) -> StoredKey:
    values = dict(row)
    for name in ("roles", "scopes", "agents"):
        values[name] = None if values[name] is None else tuple(values[name].split())
    return StoredKey(**values)


def _grant(row: Any) -> Grant:
    return Grant(**{**row, "roles": tuple(row["roles"].split())})


def _policy(row: Any) -> StoredPolicy:
    return StoredPolicy(**row)


def _tenant(row: Any) -> Tenant:
    return Tenant(**row)
