"""The rules of state, over whatever comes: who goes on with a run, merge patches, entity tags, what merges how."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chimera.gateway.state import rules
from chimera.gateway.state.errors import SpaceConflict, SpaceForbidden, SpaceRuleBroken
from chimera.gateway.state.model import RunRequest, StoredRun, StoredSession
from chimera.gateway.state.rules import Begin, Busy, GoOn, Replay, Reused
from chimera.gateway.state.spaces_rules import Declared, Held, apply_write, check_access, rule_of
from chimera_host.contract.call import Message, SessionState
from chimera_host.contract.state import SharedWrite

NOW = 1_000.0
DIGESTS = (b"a", b"b")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
runs = st.builds(
    StoredRun,
    tenant=st.just("t"),
    run=st.just("r"),
    agent=st.just("a"),
    session=st.none(),
    subject=st.none(),
    status=st.sampled_from(["open", "finished"]),
    keyed=st.booleans(),
    digest=st.sampled_from(DIGESTS),
    request=st.just(b"{}"),
    base=st.integers(0, 2),
    attempt=st.integers(1, 5),
    holder=st.sampled_from(["", "gw"]),
    steps=st.integers(0, 3),
    size=st.just(0),
    created=st.just(0.0),
    updated=st.just(0.0),
    expires=st.sampled_from([NOW - 1, NOW, NOW + 1]),
)


@given(st.none() | runs, st.sampled_from(DIGESTS), st.integers(0, 2), st.booleans())
def test_a_run_is_gone_on_with_by_one_and_answered_as_it_was_asked(
    found: StoredRun | None, digest: bytes, base: int, held: bool
) -> None:
    verdict = rules.decide(found, digest=digest, base=base, held=held, now=NOW)
    if found is None or found.expires <= NOW:
        assert isinstance(verdict, Begin)
        return
    if isinstance(verdict, Replay):
        assert found.status == "finished" and found.digest == digest
    if isinstance(verdict, GoOn):
        assert not held and found.status == "open" and found.digest == digest
        assert verdict.attempt > found.attempt
        assert verdict.afresh == (found.base != base)
    assert isinstance(verdict, Reused) == (found.digest != digest)
    assert isinstance(verdict, Busy) == (held and found.status == "open" and found.digest == digest)
    assert rules.outcome_of(verdict)


@given(json_values, json_values)
def test_a_merge_patch_holds_after_it_is_applied(target: Any, patch: Any) -> None:
    once = rules.merged(target, patch)
    assert rules.merged(once, patch) == once
    if isinstance(patch, dict):
        assert isinstance(once, dict)
        assert all(name not in once for name, value in patch.items() if value is None)
        kept = target.keys() - patch.keys() if isinstance(target, dict) else set()
        assert all(once[name] == target[name] for name in kept)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    assert rules.merged(target, patch) == result


def stored(version: int = 1, incarnation: str = "ab") -> StoredSession:
    return StoredSession(
        tenant="t",
        agent="a",
        session="s",
        version=version,
        state=SessionState(),
        updated=0.0,
        incarnation=incarnation,
    )


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from(["ab", "cd"]), st.sampled_from(["ab", "cd"]))
def test_an_entity_tag_is_of_one_version_of_one_session(one: int, other: int, first: str, second: str) -> None:
    tag = rules.etag(stored(one, first))
    assert rules.matches(tag, stored(other, second)) == ((one, first) == (other, second))
    assert not rules.matches("W/" + tag, stored(one, first))
    assert rules.matches(f'"x", {tag}', stored(one, first))
    assert rules.matches("*", stored(one)) and not rules.matches("*", None)


@given(st.floats(0, 1e9), st.none() | st.floats(0, 1e6), st.floats(0, 1e6))
def test_an_end_is_after_the_save_or_never(updated: float, ttl: float | None, default: float) -> None:
    end = rules.expiry(updated, ttl, default)
    life = default if ttl is None else ttl
    assert (end is None) == (life == 0)
    assert end is None or (end >= updated and rules.is_over(end, end) and not rules.is_over(end, updated - 1))


@given(st.lists(st.text(min_size=1, max_size=4, alphabet="ab\0"), min_size=4, max_size=4), st.data())
def test_runs_of_different_callers_and_keys_are_different(parts: list[str], data: st.DataObject) -> None:
    tenant, agent, actor = (part.replace("\0", "n") for part in parts[:3])
    made = rules.run_id(tenant, agent, actor, "k")
    changed = data.draw(st.integers(0, 2))
    other = [tenant, agent, actor]
    other[changed] += "x"
    assert rules.run_id(*other, "k") != made != rules.run_id(tenant, agent, actor, "kk")
    assert made == rules.run_id(tenant, agent, actor, "k") and len(made) <= 64


@given(st.lists(st.tuples(st.sampled_from(["message", "node"]), st.text(max_size=3)), max_size=5))
def test_what_was_said_follows_what_was_asked(steps: list[tuple[str, str]]) -> None:
    import msgspec

    asked = (Message(role="user", content="?"),)
    before = SessionState(messages=(Message(role="user", content="0"),), values={"v": 1})
    outputs = [
        (kind, msgspec.json.encode(Message(role="assistant", content=text) if kind == "message" else text))
        for kind, text in steps
    ]
    folded = rules.folded(before, RunRequest(messages=asked), outputs)
    said = [text for kind, text in steps if kind == "message"]
    if not said:
        assert folded is None
        return
    assert folded is not None and folded.values == before.values
    assert [message.content for message in folded.messages] == ["0", "?", *said]


# -- spaces ------------------------------------------------------------------------------------------------------------

DECLARED = Declared(
    owner="agent:owner",
    access={"writer": "write", "reader": "read"},
    rules={"l*": "append", "n*": "counter", "n/x*": "custom", "n/xy": "last_write"},
)
writes = st.builds(
    SharedWrite,
    key=st.sampled_from(["a", "l", "n1", "n/x1", "n/xy"]),
    op=st.sampled_from(["set", "append", "add", "delete"]),
    value=st.integers(-3, 3) | st.lists(st.integers(0, 3), max_size=2),
    version=st.none() | st.integers(0, 3),
)
held = st.builds(Held, version=st.integers(0, 3), value=st.integers(-3, 3) | st.lists(st.integers(0, 3), max_size=2))


@given(held, writes, st.integers(4, 9))
def test_a_write_is_refused_or_does_what_its_rule_says(before: Held, write: SharedWrite, version: int) -> None:
    rule = rule_of(DECLARED, write.key)
    try:
        after = apply_write(DECLARED, before, write, version)
    except SpaceConflict:
        assert write.version is not None and write.version != before.version
        return
    except SpaceRuleBroken:
        return
    assert write.version in (None, before.version)
    assert (after.version == 0) == (write.op == "delete")
    if write.op == "delete":
        assert rule != "custom" or write.version is not None
        return
    assert after.version == version
    match rule:
        case "append":
            old = before.value if before.version else []
            assert after.value[: len(old)] == old and len(after.value) >= len(old)
        case "counter":
            assert after.value == (before.value if before.version else 0) + write.value
        case "custom":
            assert write.version == before.version and after.value == write.value
        case _:
            assert after.value == write.value


def test_the_longest_rule_that_fits_counts() -> None:
    rules_of = {key: rule_of(DECLARED, key) for key in ("a", "l", "log", "n1", "n/x", "n/xy", "n/xyz")}
    assert rules_of == {
        "a": "last_write",
        "l": "append",
        "log": "append",
        "n1": "counter",
        "n/x": "custom",
        "n/xy": "last_write",
        "n/xyz": "custom",
    }


@given(st.sampled_from([None, "owner", "writer", "reader", "other"]), st.booleans(), st.booleans())
def test_an_agent_does_what_the_access_list_says(agent: str | None, writes: bool, everybody: bool) -> None:
    declared = DECLARED if not everybody else replace(DECLARED, access={**DECLARED.access, "*": "read"})
    allowed = {None: True, "owner": True, "writer": True, "reader": not writes, "other": everybody and not writes}
    try:
        check_access(declared, "s", agent, writes=writes)
        assert allowed[agent]
    except SpaceForbidden:
        assert not allowed[agent]
