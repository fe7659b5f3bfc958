"""How principals, resources and actions look in Cedar: entities, the schema, and the policies that roles are.

An entity is a uid `(type, id)`, everything that it is in, and attributes. `hierarchy` gives the three that a question
is about (and an agent that the third belongs to); slicing and the engine both work on it, so they can't disagree about
who is in what:

    Key, User, Agent, Team, System  in  Role, Tenant, Platform
    Session, Task, Space, …         in  Agent, Tenant      Tenant in Platform
    an action                       in  the group of each role that carries it, and of its thing (`session:*`)

Each lists all that is above it, not its parents alone: then what has no attributes of its own (roles, tenants, groups
of actions) needs no entity. Of an agent's attributes only those are given that some policy mentions: `mentioned` finds
them, and no policy can see another. Reading entities is half the time of a decision, and these two halve it.

The schema is what policies are checked against when they are applied, so that a misspelt attribute is found then.
Nothing is checked against it at a decision: its entities are made here, and checking costs more than deciding.
"""

from collections.abc import Container, Iterable, Mapping
from typing import Any

import msgspec

from chimera.gateway.identity.actions import ACTIONS, ROLES
from chimera.gateway.identity.principal import ALL_TENANTS, Principal
from chimera.gateway.policy.model import AgentFacts, Question, Resource

Uid = tuple[str, str]

PLATFORM_UID: Uid = ("Platform", "chimera")
ROLE_PREFIX = "role/"
"""What the ids of the policies that roles are begin with."""

_ATTRIBUTES = ("name", "framework", "model", "tags", "protocols")
ATTRIBUTES = frozenset(_ATTRIBUTES)
"""The attributes of agents."""

_TYPES = {"key": "Key", "user": "User", "agent": "Agent", "owner": "Team", "host": "System", "system": "System"}


class Entity(msgspec.Struct, frozen=True):
    """One entity: what it is in (not itself), and its form in Cedar's JSON."""

    uid: Uid
    above: tuple[Uid, ...]
    data: msgspec.Raw


def _entity(uid: Uid, above: Iterable[Uid] = (), **attributes: Any) -> Entity:
    held = tuple(above)
    data = {"uid": _json(uid), "attrs": attributes, "parents": [_json(one) for one in held]}
    return Entity(uid, held, msgspec.Raw(msgspec.json.encode(data)))


def _json(uid: Uid) -> dict[str, str]:
    return {"type": uid[0], "id": uid[1]}


_GROUPS = {
    name: tuple(("Action", group) for group in (*sorted(action.roles), f"{name.partition(':')[0]}:*"))
    for name, action in ACTIONS.items()
}
_ACTIONS = {name: _entity(("Action", name), groups) for name, groups in _GROUPS.items()}


class Hierarchy(msgspec.Struct, frozen=True):
    """A question in Cedar's words: three uids, what each is in (itself too), entities and context as JSON."""

    principal: Uid
    action: Uid
    resource: Uid
    principal_in: tuple[Uid, ...]
    action_in: tuple[Uid, ...]
    resource_in: tuple[Uid, ...]
    entities: str
    context: str


def hierarchy(question: Question, attributes: Container[str] = ATTRIBUTES) -> Hierarchy:
    """The entities of `question`, with these of their attributes. Raises KeyError for an action that doesn't exist."""
    principal, resource = question.principal, question.resource
    action = _ACTIONS[question.action]
    what = resource_uid(resource)
    above = _place(resource.tenant)
    entities: dict[Uid, Entity] = {action.uid: action}
    if resource.agent is not None:
        agent = _agent(("Agent", f"{resource.tenant}/{resource.agent}"), above, resource.facts, attributes)
        entities[agent.uid] = agent
        above = (agent.uid, *agent.above)
    if what == PLATFORM_UID or what[0] == "Tenant":
        above = () if what == PLATFORM_UID else (PLATFORM_UID,)
    if what not in entities:
        entities[what] = _entity(what, above)
    asking = _principal(principal, question.caller, attributes)
    entities[asking.uid] = asking  # a key or an agent may ask for something to be done to itself
    done_to = entities[what]
    return Hierarchy(
        principal=asking.uid,
        action=action.uid,
        resource=what,
        principal_in=(asking.uid, *asking.above),
        action_in=(action.uid, *action.above),
        resource_in=(what, *done_to.above),
        entities=msgspec.json.encode([entity.data for entity in entities.values()]).decode(),
        context=msgspec.json.encode(question.context).decode(),
    )


def principal_uid(principal: Principal) -> Uid:
    """The uid of `principal`."""
    kind = _TYPES[principal.kind]
    if kind in ("Agent", "Key", "Team"):
        return kind, f"{principal.tenant}/{principal.subject}"
    return kind, principal.subject


def resource_uid(resource: Resource) -> Uid:
    """The uid of `resource`."""
    return PLATFORM_UID if resource.kind == "Platform" else (resource.kind, resource.id)


def _place(tenant: str) -> tuple[Uid, ...]:
    return (PLATFORM_UID,) if tenant == ALL_TENANTS else (("Tenant", tenant), PLATFORM_UID)


def _principal(principal: Principal, facts: AgentFacts | None, attributes: Container[str]) -> Entity:
    uid, place = principal_uid(principal), _place(principal.tenant)
    if uid[0] == "Agent":
        return _agent(uid, place, facts, attributes)
    return _entity(uid, (*(("Role", role) for role in sorted(principal.roles)), *place))


def _agent(uid: Uid, place: tuple[Uid, ...], facts: AgentFacts | None, attributes: Container[str]) -> Entity:
    above = (("Role", "agent"), *place)
    if facts is None:  # no such agent: a policy that asks for more than its name fails, and a failure refuses
        return _entity(uid, above)
    return _entity(uid, above, **{name: getattr(facts, name) for name in _ATTRIBUTES if name in attributes})


def mentioned(policies: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The attributes that any of `policies`, in Cedar's JSON form, asks for, and perhaps more.

    There are two ways to see an attribute, `e.a` (also as `e["a"]`) and `e has a`; both name it under the key `attr`.
    """
    found: set[str] = set()
    waiting: list[Any] = list(policies)
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            asked = one.get("attr")
            if asked is not None:
                found.update([asked] if isinstance(asked, str) else map(str, asked))
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return frozenset(found)


def role_policies() -> dict[str, str]:
    """The policies that roles are, by id: an empty store of policies behaves like roles alone."""
    return {
        f"{ROLE_PREFIX}{role}": f'permit (principal in Role::"{role}", action in Action::"{role}", resource);'
        for role in ROLES
    }


def cedar_schema() -> str:
    """The schema in Cedar's own syntax."""
    lines = [
        "entity Platform;",
        "entity Tenant in [Platform];",
        "entity Role;",
        "entity User in [Role, Tenant, Platform];",
        "entity Key in [Role, Tenant, Platform];",
        "entity System in [Role, Tenant, Platform];",
        "entity Team in [Role, Tenant];",
        "entity Agent in [Role, Tenant] "
        "{ name: String, framework: String, model: String, tags: Set<String>, protocols: Set<String> };",
        *(f"entity {kind} in [Agent, Tenant];" for kind in ("Session", "Space", "Task")),
        *(f"entity {kind} in [Tenant];" for kind in ("Subscription", "Grant", "Policy")),
        *(f'action "{group}";' for group in sorted({uid[1] for parents in _GROUPS.values() for uid in parents})),
    ]
    for name, action in ACTIONS.items():
        groups = ", ".join(f'"{uid[1]}"' for uid in _GROUPS[name])
        things = {action.resource} | ({"Tenant"} if action.resource != "Platform" else set())
        if action.resource in ("Session", "Space", "Task"):
            things.add("Agent")
        if name == "agent:invoke":
            things = {"Agent"}
        lines.append(
            f'action "{name}" in [{groups}] appliesTo {{ principal: [User, Key, Agent, Team, System], '
            f"resource: [{', '.join(sorted(things))}], "
            "context: { protocol: String, hour: Long, weekday: Long, depth: Long } };"
        )
    return "\n".join(lines) + "\n"
