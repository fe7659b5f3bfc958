"""The store of keys, grants, policies and tenants: one suite for memory and for each database."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from chimera.adapters.identity.cedar import Cedar
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.identity import IdentityStorage, expire
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.schema.journal import audit_entry, event
from chimera.gateway.identity.directory import Directory
from chimera.gateway.identity.errors import KeyNotFound, TenantExists, TenantNotFound
from chimera.gateway.identity.model import Grant, StoredKey
from chimera.gateway.identity.ports import IdentityStore
from chimera.gateway.identity.principal import BOOTSTRAP_ADMIN
from chimera.gateway.policy.decide import Policies
from chimera.gateway.policy.errors import PolicyNotFound, TooManyPolicies
from chimera.testing.identity import FakeIdentityStore

BY = BOOTSTRAP_ADMIN
on_databases = pytest.mark.parametrize("dialect", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def store(dialect: str, request: pytest.FixtureRequest) -> AsyncIterator[IdentityStore]:
    if dialect == "memory":
        yield FakeIdentityStore()
        return
    database = open_database(request.getfixturevalue("database_name"))
    yield IdentityStorage(database)
    await asyncio.to_thread(database.close)


def key(number: int = 1, tenant: str = "default", **fields: object) -> StoredKey:
    made = StoredKey(
        id=f"key{number}",
        tenant=tenant,
        name="a name",
        digest=bytes([number]) * 32,
        roles=("operator", "viewer"),
        created=5.0,
        created_by="key:bootstrap",
    )
    return replace(made, **fields)


async def test_a_key_comes_back_as_it_was_stored(store: IdentityStore) -> None:
    stored = await store.create_key(key(scopes=(), agents=("one", "two"), expires=9.5), BY)
    assert await store.key("key1") == stored
    assert stored.scopes == ()
    assert stored.sequence == await store.sequence()
    assert await store.key("key2") is None
    with pytest.raises(TenantNotFound):
        await store.create_key(key(2, tenant="absent"), BY)


async def test_a_key_is_changed_in_its_tenant_alone(store: IdentityStore) -> None:
    await store.create_tenant("acme", BY, at=1.0)
    created = await store.create_key(key(), BY)
    await store.used({"key1": 7.0, "absent": 8.0})
    changed = await store.change_key("default", "key1", lambda one: replace(one, revoked=6.0), what="revoked", by=BY)
    assert changed.revoked == 6.0
    assert changed.sequence > created.sequence
    found = await store.key("key1")
    assert found is not None
    assert (found.revoked, found.last_used) == (6.0, 7.0)
    with pytest.raises(KeyNotFound):
        await store.change_key("acme", "key1", lambda one: one, what="revoked", by=BY)


async def test_a_change_that_fails_leaves_nothing(store: IdentityStore) -> None:
    await store.create_key(key(), BY)
    before = await store.sequence()

    def fail(_: StoredKey) -> StoredKey:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await store.change_key("default", "key1", fail, what="rotated", by=BY)
    assert await store.sequence() == before


async def test_use_only_moves_forward(store: IdentityStore) -> None:
    await store.create_key(key(), BY)
    await store.used({"key1": 9.0})
    await store.used({"key1": 3.0})
    found = await store.key("key1")
    assert found is not None
    assert found.last_used == 9.0


async def test_lists_come_in_pages_of_one_tenant(store: IdentityStore) -> None:
    await store.create_tenant("acme", BY, at=1.0)
    for number in range(1, 6):
        await store.create_key(key(number, tenant="acme" if number == 3 else "default"), BY)
    assert [one.id for one in await store.keys("default", "", 2)] == ["key1", "key2"]
    assert [one.id for one in await store.keys("default", "key2", 9)] == ["key4", "key5"]
    assert [one.name for one in await store.tenants("", 9)] == ["acme", "default"]
    assert [one.name for one in await store.tenants("acme", 9)] == ["default"]


async def test_a_grant_is_replaced_and_taken(store: IdentityStore) -> None:
    grant = Grant(tenant="default", principal="user:i|s", roles=("viewer",), updated=1.0, by="key:x")
    await store.put_grant(grant, BY)
    await store.put_grant(replace(grant, roles=("admin", "viewer")), BY)
    found = await store.grant("default", "user:i|s")
    assert found is not None
    assert found.roles == ("admin", "viewer")
    assert len(await store.grants("default", "", 9)) == 1
    await store.put_grant(replace(grant, roles=()), BY)
    assert await store.grants("default", "", 9) == []
    assert await store.grant("acme", "user:i|s") is None
    with pytest.raises(TenantNotFound):
        await store.put_grant(replace(grant, tenant="absent"), BY)


async def test_policies_are_stored_all_or_none(store: IdentityStore) -> None:
    texts = {"one": "permit (principal, action, resource);", "two": "forbid (principal, action, resource);"}
    first = await store.put_policies("default", texts, BY, at=1.0, most=3)
    assert [(one.name, one.version) for one in first] == [("one", 1), ("two", 1)]
    again = await store.put_policies("default", {"one": texts["one"], "two": texts["one"]}, BY, at=2.0, most=3)
    assert [(one.name, one.version, one.updated) for one in again] == [("one", 1, 1.0), ("two", 2, 2.0)]
    with pytest.raises(TooManyPolicies):
        await store.put_policies("default", {"three": "x", "four": "y"}, BY, at=3.0, most=3)
    with pytest.raises(PolicyNotFound):
        await store.put_policies("default", {"three": "x", "absent": None}, BY, at=3.0, most=3)
    assert [one.name for one in await store.policies("default", "", 9)] == ["one", "two"]
    await store.put_policies("default", {"one": None}, BY, at=4.0, most=3)
    assert await store.policy("default", "one") is None
    assert [one.name for one in await store.policies("default", "", 9)] == ["two"]
    assert (await store.put_policies("default", {"one": "z"}, BY, at=5.0, most=3))[0].version == 3
    await store.put_policies("*", {"one": "x"}, BY, at=5.0, most=3)
    with pytest.raises(TenantNotFound):
        await store.put_policies("absent", {"one": "x"}, BY, at=5.0, most=3)


async def test_tenants_are_made_once_and_suspended(store: IdentityStore) -> None:
    default = await store.tenant("default")
    assert default is not None
    assert default.status == "active"
    made = await store.create_tenant("acme", BY, at=4.0)
    with pytest.raises(TenantExists):
        await store.create_tenant("acme", BY, at=5.0)
    suspended = await store.set_tenant("acme", "suspended", BY, at=6.0)
    assert (suspended.status, suspended.created, suspended.updated) == ("suspended", 4.0, 6.0)
    assert suspended.sequence > made.sequence
    assert await store.tenant("acme") == suspended
    assert await store.tenant("absent") is None
    with pytest.raises(TenantNotFound):
        await store.set_tenant("absent", "active", BY, at=7.0)


async def test_changes_are_followed_by_number_and_none_is_missed(store: IdentityStore) -> None:
    begun = await store.sequence()
    for number in range(1, 8):
        await store.create_key(key(number), BY)
    await store.put_policies("default", {"one": "x"}, BY, at=1.0, most=9)
    await store.put_policies("default", {"one": None}, BY, at=1.0, most=9)
    grant = Grant(tenant="default", principal="user:i|s", roles=(), updated=1.0, by="key:x")
    await store.put_grant(grant, BY)
    seen: list[str] = []
    after = begun
    while page := await store.changed_keys(after, 3):
        seen += [one.id for one in page]
        after = page[-1].sequence
    assert seen == [f"key{number}" for number in range(1, 8)]
    assert [one.text for one in await store.changed_policies(begun, 9)] == [""]
    assert [one.roles for one in await store.changed_grants(begun, 9)] == [()]
    last = await store.sequence()
    assert await store.changed_keys(last, 9) == []
    assert await store.changed_tenants(begun, 9) == []
    assert await store.changed_grants(last, 9) == []


@on_databases
async def test_each_change_leaves_a_fact_and_an_audit_entry(database: Database) -> None:
    store = IdentityStorage(database)
    await store.create_key(key(), BY)
    await store.change_key("default", "key1", lambda one: replace(one, revoked=6.0), what="revoked", by=BY)
    grant = Grant(tenant="default", principal="user:i|s", roles=("viewer",), updated=1.0, by="key:x")
    await store.put_grant(grant, BY)
    await store.put_grant(replace(grant, roles=()), BY)
    await store.put_policies("default", {"one": "x"}, BY, at=1.0, most=9)
    await store.put_policies("default", {"one": "x"}, BY, at=2.0, most=9)  # changes nothing, tells nothing
    await store.put_policies("default", {"one": None}, BY, at=2.0, most=9)
    await store.create_tenant("acme", BY, at=4.0)
    await store.set_tenant("acme", "suspended", BY, at=4.0)
    await store.set_tenant("acme", "active", BY, at=4.0)
    expected = [
        *("key.created", "key.revoked", "role.granted", "role.withdrawn", "policy.changed", "policy.deleted"),
        *("tenant.created", "tenant.suspended", "tenant.resumed"),
    ]
    told = await database.read(lambda one: one.execute(select(event.c.type, event.c.data).order_by(event.c.seq)).all())
    assert [row.type for row in told] == expected
    entries = await database.read(
        lambda one: one.execute(select(audit_entry.c.action, audit_entry.c.entry).order_by(audit_entry.c.seq)).all()
    )
    assert [row.action for row in entries] == expected
    secret = bytes([1]) * 32
    assert not any(secret in bytes(row[1]) for row in (*told, *entries))


@on_databases
async def test_keys_that_ended_long_ago_are_removed_in_batches(database: Database) -> None:
    store = IdentityStorage(database)
    for number in range(1, 6):
        await store.create_key(key(number, expires=float(number)), BY)
    await store.create_key(key(6), BY)
    assert await database.write(lambda connection: expire(connection, 4.5, 3)) == 3
    assert await database.write(lambda connection: expire(connection, 4.5, 3)) == 1
    assert [one.id for one in await store.keys("default", "", 9)] == ["key5", "key6"]


@on_databases
async def test_two_gateways_change_one_key_and_both_see_what_came_of_it(database_name: str) -> None:
    """Rotations through two gateways at once: none is lost, each has a number of its own, both follow to the same."""
    first, second = open_database(database_name), open_database(database_name)
    stores = (IdentityStorage(first), IdentityStorage(second))
    await stores[0].create_key(key(), BY)

    def count(one: StoredKey) -> StoredKey:
        return replace(one, name=str(int(one.name) + 1) if one.name.isdecimal() else "1")

    changed = await asyncio.gather(
        *(stores[n % 2].change_key("default", "key1", count, what="rotated", by=BY) for n in range(20))
    )
    assert sorted(int(one.name) for one in changed) == list(range(1, 21))
    assert len({one.sequence for one in changed}) == 20
    texts = {f"policy-{n}": "permit (principal, action, resource);" for n in range(6)}
    made = await asyncio.gather(
        *(
            stores[n % 2].put_policies("default", {name: text}, BY, at=1.0, most=4)
            for n, (name, text) in enumerate(texts.items())
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(one, TooManyPolicies) for one in made) == 2
    directories = [Directory(store, Policies(Cedar())) for store in stores]
    for directory in directories:
        await directory.refresh()
    assert directories[0].sequence == directories[1].sequence == await stores[0].sequence()
    assert await directories[1].key("key1") is not None
    await stores[0].change_key("default", "key1", lambda one: replace(one, revoked=9.0), what="revoked", by=BY)
    await directories[1].refresh()
    held = directories[1].known_key("key1")
    assert held is not None
    assert held.revoked == 9.0
    for one in (first, second):
        await asyncio.to_thread(one.close)
