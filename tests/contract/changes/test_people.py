"""A key counts as whoever made it, however many keys lie between."""

import pytest
from sqlalchemy import delete

from chimera.adapters.storage.changes.people import StoredPeople
from chimera.adapters.storage.identity import IdentityStorage
from chimera.adapters.storage.schema.identity import api_key
from chimera.delivery.errors import ApprovalRefused
from chimera.delivery.service import Asker
from chimera.gateway.identity.model import StoredKey
from chimera.gateway.identity.principal import BOOTSTRAP_ADMIN, Principal

from .conftest import Delivery, plain

ANNA = Principal(kind="user", subject="https://idp.example|anna", tenant="default", roles=frozenset({"admin"}))


async def make(delivery: Delivery, key: str, by: Principal) -> Principal:
    await IdentityStorage(delivery.database).create_key(
        StoredKey(
            id=key,
            tenant="default",
            name=key,
            digest=b"digest",
            roles=("admin",),
            created=0.0,
            created_by=by.actor,
        ),
        by,
    )
    return Principal(kind="key", subject=key, tenant="default", roles=frozenset({"admin"}))


async def test_who_is_behind_a_key(delivery: Delivery) -> None:
    people = StoredPeople(delivery.database)
    first = await make(delivery, "k1", ANNA)
    second = await make(delivery, "k2", first)
    handed_out = await make(delivery, "k3", BOOTSTRAP_ADMIN)
    assert [await people.person_of(one.actor) for one in (ANNA, first, second, handed_out, BOOTSTRAP_ADMIN)] == [
        ANNA.actor,
        ANNA.actor,
        ANNA.actor,
        "key:k3",
        "key:bootstrap",
    ]
    assert await people.person_of("key:never") == "key:never"


@pytest.mark.parametrize("opens_by_key", [True, False])
async def test_nobody_approves_their_own_by_a_key_of_theirs(delivery: Delivery, opens_by_key: bool) -> None:
    key = await make(delivery, "k2", await make(delivery, "k1", ANNA))
    actors = [key.actor, ANNA.actor] if opens_by_key else [ANNA.actor, key.actor]
    opener, approver = (Asker(actor=actor, roles=frozenset({"admin"})) for actor in actors)
    change = await delivery.open(plain("one"), by=opener)
    with pytest.raises(ApprovalRefused, match="nobody approves their own"):
        await delivery.approve(change, approver)


async def test_a_key_that_a_removed_key_made_approves_nothing(delivery: Delivery) -> None:
    """Upkeep removes keys that have ended: who made the one that is left can't be told any more."""
    key = await make(delivery, "k2", await make(delivery, "k1", ANNA))
    change = await delivery.open(plain("one"), by=Asker(actor=ANNA.actor, roles=frozenset({"admin"})))
    gone = delete(api_key).where(api_key.c.id == "k1")
    await delivery.database.write(lambda connection: connection.execute(gone))
    with pytest.raises(ApprovalRefused, match="is nobody's"):
        await delivery.approve(change, Asker(actor=key.actor, roles=frozenset({"admin"})))
