"""API keys as rules, and the bound on failures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chimera.gateway.identity import keys
from chimera.gateway.identity.errors import TooManyFailures
from chimera.gateway.identity.failures import MOST_ADDRESSES, Failures
from chimera.gateway.identity.model import StoredKey
from chimera.gateway.identity.principal import (
    BOOTSTRAP_ADMIN,
    MAX_ACTOR,
    Principal,
    decode_header,
    encode_header,
    named_user,
)
from chimera.gateway.policy.resources import resource_of


def stored(secret: str, **fields: object) -> StoredKey:
    made = StoredKey(
        id="k", tenant="t", name="n", digest=keys.digest("k", secret), roles=(), created=0.0, created_by="key:x"
    )
    return replace(made, **fields)


def test_a_key_is_made_shown_and_read() -> None:
    key, secret = keys.new_key_id(), keys.new_secret()
    assert keys.parse(keys.token(key, secret)) == (key, secret)
    assert keys.new_secret() != secret
    for wrong in (
        "",
        "chk_",
        f"chk_{key}",
        f"chk_{key}_{secret}x",
        f"chk_{key}_{secret[:-1]}I",
        f" chk_{key}_{secret}",
    ):
        assert keys.parse(wrong) is None


def test_only_the_secret_opens_it() -> None:
    assert keys.judge(stored("a"), "k", "a", 1.0) == "good"
    assert keys.judge(stored("a"), "k", "b", 1.0) == "wrong"
    assert keys.judge(None, "k", "a", 1.0) == "wrong"
    assert keys.judge(stored("a", digest=keys.digest("other", "a")), "k", "a", 1.0) == "wrong"


def test_an_all_zero_digest_opens_nothing() -> None:
    assert keys.judge(stored("a", digest=bytes(32)), "k", "b", 1.0) == "wrong"


@given(overlap=st.floats(0, 1e6), at=st.floats(0, 2e6), expires=st.none() | st.floats(0, 2e6))
def test_through_a_rotation_both_secrets_hold_exactly_until_the_overlap_ends(
    overlap: float, at: float, expires: float | None
) -> None:
    now = 100.0
    rotated = keys.rotated(stored("old", expires=expires), keys.digest("k", "new"), now=now, overlap=overlap)
    alive = expires is None or at < expires
    assert (keys.judge(rotated, "k", "new", at) == "good") == alive
    assert (keys.judge(rotated, "k", "old", at) == "good") == (alive and at < now + overlap)
    revoked = replace(rotated, revoked=now)
    assert {keys.judge(revoked, "k", secret, at) for secret in ("old", "new")} == {"revoked"}


def test_a_second_rotation_ends_the_first_secret() -> None:
    once = keys.rotated(stored("one"), keys.digest("k", "two"), now=1.0, overlap=100.0)
    twice = keys.rotated(once, keys.digest("k", "three"), now=2.0, overlap=100.0)
    assert [keys.judge(twice, "k", secret, 3.0) for secret in ("one", "two", "three")] == ["wrong", "good", "good"]


def test_failures_are_counted_by_address_and_forgiven_with_time() -> None:
    failures = Failures(burst=2, per_second=0.5)
    for _ in range(2):
        failures.check("a", 0.0)
        failures.failed("a", 0.0)
    with pytest.raises(TooManyFailures) as raised:
        failures.check("a", 0.0)
    assert raised.value.retry_after == pytest.approx(2.0)
    failures.check("b", 0.0)
    failures.check("a", 2.0)
    failures.failed("a", 2.0)
    with pytest.raises(TooManyFailures):
        failures.check("a", 1.0)  # a clock that went back gives nothing


def test_addresses_are_bounded() -> None:
    failures = Failures(burst=1, per_second=1)
    for number in range(MOST_ADDRESSES + 10):
        failures.failed(str(number), 0.0)
    assert len(failures) == MOST_ADDRESSES


@given(st.text(max_size=300), st.sampled_from(["key", "user", "agent", "owner", "host", "system"]))
def test_a_principal_travels_in_a_header_and_has_a_short_name(subject: str, kind: str) -> None:
    principal = Principal(
        kind=kind,  # type: ignore[arg-type]
        subject=subject.encode("utf-8", "ignore").decode(),
        tenant="acme",
        roles=frozenset({"viewer"}),
        scopes=frozenset({"agent:invoke"}),
    )
    header = encode_header(principal)
    assert header.isascii() and header.isprintable()
    assert decode_header(header) == principal
    assert len(principal.actor) <= MAX_ACTOR


def test_long_names_that_begin_alike_stay_apart() -> None:
    assert named_user("x" * 200 + "1", "t").actor != named_user("x" * 200 + "2", "t").actor
    assert BOOTSTRAP_ADMIN.actor == "key:bootstrap"


@pytest.mark.parametrize("wrong", ["", "key", "e30=", "!!", "eyJraW5kIjoieCJ9"])
def test_no_principal_is_made_of_anything_else(wrong: str) -> None:
    with pytest.raises(ValueError):
        decode_header(wrong)


@pytest.mark.parametrize(
    ("action", "values", "expected"),
    [
        ("agent:invoke", {"tenant": "t", "agent": "a"}, "Agent:t/a"),
        ("catalogue:read", {"tenant": "t"}, "Tenant:t"),
        ("catalogue:read", {"agent": "a"}, "Agent:default/a"),
        ("session:read", {"tenant": "t", "agent": "a", "session": "s/1%"}, "Session:t/a/s%2F1%25"),
        ("session:read", {"tenant": "t", "agent": "a"}, "Agent:t/a"),
        ("task:read", {"tenant": "t", "task": "x"}, "Task:t/x"),
        ("key:write", {"tenant": "*"}, "Tenant:*"),
        ("key:write", {"tenant": "t", "key": "k"}, "Key:t/k"),
        ("platform:read", {}, "Platform:*"),
        ("tenant:write", {"tenant": "t"}, "Platform:*"),
        ("tenant:read", {"tenant": "t"}, "Tenant:t"),
    ],
)
def test_what_an_operation_is_about(action: str, values: dict[str, str], expected: str) -> None:
    assert str(resource_of(action, values, lambda *_: None)) == expected
