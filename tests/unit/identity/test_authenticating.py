"""From a header to a principal, and what a gateway knows of identity while things change around it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from chimera.adapters.identity.cedar import Cedar
from chimera.gateway.errors import Unauthenticated
from chimera.gateway.identity import keys
from chimera.gateway.identity.authenticate import Authenticator
from chimera.gateway.identity.directory import PAGE, Directory
from chimera.gateway.identity.errors import IdentityUnavailable, IssuerUnavailable, TooManyFailures
from chimera.gateway.identity.failures import Failures
from chimera.gateway.identity.model import Grant, StoredKey
from chimera.gateway.identity.principal import BOOTSTRAP_ADMIN, Principal
from chimera.gateway.policy.decide import Policies
from chimera.testing.clock import ManualClock
from chimera.testing.identity import FakeIdentityStore

HOME = "home-key-of-32-characters-at-least"
ANNA = Principal(kind="user", subject="https://i|anna", tenant="default", roles=frozenset({"viewer"}))


class Tokens:
    """Verifies `a.b.c` as Anna until `fault`."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.verified = 0
        self.fault: Exception | None = None

    async def verify(self, token: str) -> Principal:
        self.verified += 1
        if self.fault is not None:
            raise self.fault
        if token != "a.b.c":
            raise Unauthenticated("no")
        return replace(ANNA, expires=self.clock.wall() + 60)

    def issuers(self) -> list[str]:
        return ["https://i"]


class Setup:
    def __init__(self, burst: float = 3.0) -> None:
        self.clock = ManualClock()
        self.store = FakeIdentityStore()
        self.policies = Policies(Cedar())
        self.directory = Directory(self.store, self.policies)
        self.tokens = Tokens(self.clock)
        self.authenticator = Authenticator(
            home_key=HOME.encode(),
            directory=self.directory,
            failures=Failures(burst=burst, per_second=0.01),
            clock=self.clock,
            tokens=self.tokens,
            patience=0.02,
        )

    async def key(self, **fields: Any) -> str:
        key, secret = keys.new_key_id(), keys.new_secret()
        made = StoredKey(
            id=key,
            tenant="default",
            name="n",
            digest=keys.digest(key, secret),
            roles=("viewer",),
            created=0.0,
            created_by="key:x",
        )
        await self.store.create_key(replace(made, **fields), BOOTSTRAP_ADMIN)
        await self.directory.refresh()
        return keys.token(key, secret)

    async def who(self, shown: str | None, address: str = "a") -> Principal:
        return await self.authenticator.authenticate(shown, address)


async def test_the_home_key_and_its_spellings() -> None:
    setup = Setup()
    assert await setup.who(f"Bearer {HOME}") == BOOTSTRAP_ADMIN
    assert await setup.who(f"bearer  {HOME} ") == BOOTSTRAP_ADMIN


@pytest.mark.parametrize(
    "shown", [None, "", "Bearer", "Bearer ", "Bearer x", f"Basic {HOME}", HOME, "Bearer k\udcff", "Bearer x.y.z"]
)
async def test_anything_else_is_nobody(shown: str | None) -> None:
    with pytest.raises(Unauthenticated):
        await Setup().who(shown)


async def test_a_key_ends_at_its_time() -> None:
    setup = Setup()
    shown = f"Bearer {await setup.key(expires=setup.clock.wall() + 10)}"
    assert (await setup.who(shown)).kind == "key"
    setup.clock.advance(10.0)
    with pytest.raises(Unauthenticated, match="expired"):
        await setup.who(shown)


async def test_a_token_is_verified_once_and_ends_at_its_time() -> None:
    setup = Setup()
    for _ in range(3):
        assert (await setup.who("Bearer a.b.c")).actor == "user:https://i|anna"
    assert setup.tokens.verified == 1
    setup.clock.advance(61.0)
    with pytest.raises(Unauthenticated, match="expired"):
        await setup.who("Bearer a.b.c")


async def test_granted_roles_join_those_of_the_token_and_go_at_once() -> None:
    setup = Setup()
    assert (await setup.who("Bearer a.b.c")).roles == {"viewer"}
    grant = Grant(tenant="default", principal=ANNA.actor, roles=("operator",), updated=1.0, by="key:x")
    await setup.store.put_grant(grant, BOOTSTRAP_ADMIN)
    await setup.directory.refresh()
    assert (await setup.who("Bearer a.b.c")).roles == {"viewer", "operator"}
    await setup.store.put_grant(replace(grant, roles=()), BOOTSTRAP_ADMIN)
    await setup.directory.refresh()
    assert (await setup.who("Bearer a.b.c")).roles == {"viewer"}


async def test_an_issuer_that_is_away_is_no_failure_of_the_caller() -> None:
    setup = Setup(burst=1.0)
    setup.tokens.fault = IssuerUnavailable("away")
    for _ in range(3):
        with pytest.raises(IssuerUnavailable):
            await setup.who("Bearer a.b.c")


async def test_over_the_limit_no_signature_is_checked() -> None:
    setup = Setup(burst=2.0)
    assert (await setup.who("Bearer a.b.c")).kind == "user"
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            await setup.who("Bearer x.y.z")
    verified = setup.tokens.verified
    with pytest.raises(TooManyFailures):
        await setup.who("Bearer x.y.z")
    assert setup.tokens.verified == verified
    assert (await setup.who("Bearer a.b.c")).kind == "user"  # known
    with pytest.raises(Unauthenticated):
        await setup.who("Bearer x.y.z", address="b")


async def test_a_database_that_hangs_lets_nobody_new_in() -> None:
    setup = Setup(burst=1.0)
    known, new = await setup.key(), await setup.key()
    assert (await setup.who(f"Bearer {known}")).kind == "key"

    async def hang(_: str) -> None:
        await asyncio.Event().wait()

    setup.store.key = hang  # type: ignore[assignment,method-assign]
    for _ in range(2):  # and it is no failure of the caller's
        with pytest.raises(IdentityUnavailable):
            await setup.who(f"Bearer {new}")
    assert (await setup.who(f"Bearer {known}")).kind == "key"


# -- the directory ---------------------------------------------------------------------------------------------------


async def test_a_key_read_while_it_changes_is_not_kept_as_it_was() -> None:
    setup = Setup()
    token = await setup.key()
    key = token.split("_")[1]
    real = setup.store.key

    async def slow(one: str) -> StoredKey | None:
        found = await real(one)
        await setup.store.change_key(
            "default", key, lambda held: replace(held, revoked=1.0), what="revoked", by=BOOTSTRAP_ADMIN
        )
        await setup.directory.refresh()  # takes the change over while the look-up is on its way back
        return found

    setup.store.key = slow  # type: ignore[method-assign]
    await setup.directory.key(key)
    setup.store.key = real  # type: ignore[method-assign]
    found = await setup.directory.key(key)
    assert found is not None
    assert found.revoked == 1.0


async def test_many_changes_are_taken_over_in_pages() -> None:
    setup = Setup()
    await setup.directory.refresh()
    texts: dict[str, str | None] = {
        f"policy-{number}": "permit (principal, action, resource);" for number in range(PAGE + 7)
    }
    await setup.store.put_policies("default", texts, BOOTSTRAP_ADMIN, at=1.0, most=10_000)
    await setup.directory.refresh()
    assert len(setup.policies.documents("default")) == PAGE + 7


async def test_use_that_could_not_be_noted_is_noted_the_next_time() -> None:
    setup = Setup()
    token = await setup.key()
    await setup.who(f"Bearer {token}")
    setup.store.fail = OSError("away")
    with pytest.raises(OSError, match="away"):
        await setup.directory.note_use()
    setup.store.fail = None
    await setup.directory.note_use()
    found = await setup.store.key(token.split("_")[1])
    assert found is not None
    assert found.last_used == setup.clock.wall()


async def test_a_store_that_fails_leaves_what_is_known_and_is_asked_again() -> None:
    setup = Setup()
    token = await setup.key()
    assert (await setup.who(f"Bearer {token}")).kind == "key"
    setup.store.fail = OSError("away")
    following = asyncio.create_task(setup.directory.follow(0.001))
    reads = setup.store.reads
    await _until(lambda: setup.store.reads >= reads + 3)
    assert (await setup.who(f"Bearer {token}")).kind == "key"
    setup.store.fail = None
    await setup.store.change_key(
        "default", token.split("_")[1], lambda held: replace(held, revoked=1.0), what="revoked", by=BOOTSTRAP_ADMIN
    )
    last = await setup.store.sequence()
    await _until(lambda: setup.directory.sequence == last)
    with pytest.raises(Unauthenticated, match="revoked"):
        await setup.who(f"Bearer {token}")
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - the loop under test has no event to wait for
            await asyncio.sleep(0)
