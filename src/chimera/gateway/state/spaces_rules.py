"""The rules of shared state, pure: who may use a space, and what a write makes of a key.

A space's owner declares for each key how writes of several agents, or of parallel branches of one, come together:

    last_write   `set`: whoever writes last
    append       `append`: items are added to the end of a list; nothing that was added is lost
    counter      `add`: a number is added; the sum is the same in whatever order
    custom       `set` with the version that the writer has seen: he reads, merges as he likes, and writes; if somebody
                 else was faster he is told, and does it again

A rule is for a key, or for all that begin with a text (`votes/*`); the longest that fits counts, and without one
`last_write`. An expected version is checked with any of them, and removing a key needs one where the rule is custom.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from chimera.gateway.state.errors import SpaceConflict, SpaceForbidden, SpaceRuleBroken
from chimera_host.contract.state import SharedWrite

MergeRule = Literal["last_write", "append", "counter", "custom"]
Grant = Literal["read", "write"]
OWNED_BY_TENANT = "tenant"

AgentName = Annotated[str, Meta(pattern=r"^(\*|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)$")]
Owner = Annotated[str, Meta(pattern=r"^(tenant|agent:[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)$")]
KeyPattern = Annotated[str, Meta(min_length=1, max_length=200)]

MAX_RULES = 100
MAX_ACCESS = 1_000

_encoder = msgspec.json.Encoder()


class Declared(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a space's owner declares.

    `owner` is `tenant` or `agent:<name>`; an owning agent may do everything with its content. `access` names agents
    (`*`: all of the tenant) that may read, or write too. `rules` says how keys merge. `ttl` is how long the space lives
    after its last write, `entry_ttl` each key after its own, in seconds; None: for ever.
    """

    owner: Owner = OWNED_BY_TENANT
    access: Annotated[dict[AgentName, Grant], Meta(max_length=MAX_ACCESS)] = {}
    rules: Annotated[dict[KeyPattern, MergeRule], Meta(max_length=MAX_RULES)] = {}
    ttl: Annotated[float, Meta(gt=0)] | None = None
    entry_ttl: Annotated[float, Meta(gt=0)] | None = None


class Held(Struct, frozen=True, kw_only=True):
    """A key as it stands: its version (0: it isn't there) and its value."""

    version: int = 0
    value: Any = None


def check_access(declared: Declared, space: str, agent: str | None, *, writes: bool) -> None:
    """Raise `SpaceForbidden` unless `agent` may; None is the API, whose caller was authorised for the space."""
    if agent is None or declared.owner == f"agent:{agent}":
        return
    granted = declared.access.get(agent) or declared.access.get("*")
    if granted == "write" or (granted == "read" and not writes):
        return
    raise SpaceForbidden(
        f"agent {agent} may not {'write to' if writes else 'read'} space {space}",
        next_step="add it to the space's access list",
        agent=agent,
    )


def rule_of(declared: Declared, key: str) -> MergeRule:
    """The rule of a key."""
    if (exact := declared.rules.get(key)) is not None:
        return exact
    fitting = [pattern for pattern in declared.rules if pattern.endswith("*") and key.startswith(pattern[:-1])]
    return declared.rules[max(fitting, key=len)] if fitting else "last_write"


def apply_write(declared: Declared, held: Held, write: SharedWrite, version: int) -> Held:
    """What a key is after `write`; version 0: gone. Raises `SpaceConflict` or `SpaceRuleBroken`.

    `version` is the space's own after the write, and so the key's: a key that was removed and written again is never at
    a version that somebody has seen before.
    """
    if write.version is not None and write.version != held.version:
        raise conflict([(write.key, held.version)])
    rule = rule_of(declared, write.key)
    match rule, write.op:
        case "last_write", "set":
            value = write.value
        case "custom", "set" if write.version is not None:
            value = write.value
        case "append", "append":
            value = [*_items(held, write), *(write.value if isinstance(write.value, list) else [write.value])]
        case "counter", "add":
            value = _number(held.value if held.version else 0, write) + _number(write.value, write)
        case _, "delete" if rule != "custom" or write.version is not None:
            return Held(version=0)
        case _:
            raise _broken(write, rule)
    return Held(version=version, value=value)


def conflict(current: Sequence[tuple[str, int]]) -> SpaceConflict:
    """Keys that are at other versions than expected, with the versions they are at."""
    named = ", ".join(f"{key!r} is at version {version}" for key, version in current[:5])
    return SpaceConflict(
        f"somebody else has written: {named}",
        next_step="read the keys again, merge, and write with the versions that you read",
        errors=[{"key": key, "version": version} for key, version in current],
    )


def _items(held: Held, write: SharedWrite) -> list[Any]:
    if held.version == 0:
        return []
    if isinstance(held.value, list):
        return held.value
    raise SpaceRuleBroken(
        f"key {write.key!r} holds no list, so nothing can be appended", next_step="delete the key first"
    )


def _number(value: Any, write: SharedWrite) -> int | float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    raise SpaceRuleBroken(
        f"key {write.key!r} is a counter: what it holds and what is added must be numbers",
        next_step="add a number, or delete the key first",
    )


def _broken(write: SharedWrite, rule: MergeRule) -> SpaceRuleBroken:
    wanted = {
        "last_write": "`set`",
        "append": "`append`",
        "counter": "`add`",
        "custom": "`set` with the `version` that was read",
    }[rule]
    return SpaceRuleBroken(
        f"key {write.key!r} merges by {rule}, which doesn't take `{write.op}`"
        + ("" if rule != "custom" or write.version is not None else " without a version"),
        next_step=f"write it by {wanted}, or remove it by `delete`",
    )
