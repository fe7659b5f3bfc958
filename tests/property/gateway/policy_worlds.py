"""Random policies and questions about a small world, and what Cedar says to them by itself: the oracle.

The oracle shares nothing with what it judges but the policies' text: entities are built here with their direct parents,
and every policy is evaluated.
"""

import json
import random
from dataclasses import dataclass
from typing import Any

import cedarpy

from chimera.gateway.identity.actions import ACTIONS, ROLES
from chimera.gateway.identity.principal import ALL_TENANTS, Principal
from chimera.gateway.policy.decide import PolicyDocument, statement_id
from chimera.gateway.policy.model import AgentFacts, Circumstances, Question, Resource
from chimera.gateway.policy.vocabulary import role_policies

TENANTS = ("acme", "globex")
TAGS = ("domain:law", "domain:health", "integration:mail", "secret")
FRAMEWORKS = ("autogen", "crewai", "langgraph")
THINGS = ("Session", "Task", "Space")


@dataclass(frozen=True)
class World:
    """Agents by tenant and name."""

    agents: dict[tuple[str, str], AgentFacts]

    @staticmethod
    def made(chance: random.Random, agents: int) -> "World":
        found = {}
        for number in range(agents):
            tenant, name = chance.choice(TENANTS), f"agent-{number}"
            found[tenant, name] = AgentFacts(
                name=name,
                framework=chance.choice(FRAMEWORKS),
                model=chance.choice(("default", "large")),
                tags=tuple(sorted(chance.sample(TAGS, chance.randrange(3)))),
                protocols=("http", "openai")[: chance.randrange(3)],
                sequence=number + 1,
            )
        return World(found)

    def agent(self, chance: random.Random) -> tuple[str, str]:
        return chance.choice(list(self.agents)) if chance.random() < 0.97 else (chance.choice(TENANTS), "absent")


def question(chance: random.Random, world: World) -> Question:
    """Any principal, action and resource, also such as no operation would ask."""
    tenant, agent = world.agent(chance)
    facts = world.agents.get((tenant, agent))
    kind = chance.choice(("Agent", "Agent", "Agent", *THINGS, "Key", "Tenant", "Platform", "Policy"))
    if kind == "Agent":
        resource = Resource(kind=kind, tenant=tenant, agent=agent, facts=facts)
    elif kind in THINGS and chance.random() < 0.8:
        resource = Resource(kind=kind, tenant=tenant, agent=agent, facts=facts, name=f"{chance.randrange(5)}/%x")
    elif kind == "Platform":
        resource = Resource(kind=kind, tenant=ALL_TENANTS)
    else:
        resource = Resource(kind=kind, tenant=tenant, name="" if kind == "Tenant" else str(chance.randrange(5)))
    principal, caller = _principal(chance, world)
    return Question(
        principal=principal,
        action=chance.choice(list(ACTIONS)) if chance.random() < 0.5 else "agent:invoke",
        resource=resource,
        context=Circumstances(
            protocol=chance.choice(("http", "openai", "agent")),
            hour=chance.randrange(24),
            weekday=chance.randrange(1, 8),
            depth=chance.randrange(5),
        ),
        caller=caller,
    )


def _principal(chance: random.Random, world: World) -> tuple[Principal, AgentFacts | None]:
    kind = chance.choice(("user", "user", "key", "agent", "owner", "system"))
    if kind == "agent":
        tenant, name = world.agent(chance)
        roles = frozenset({"agent"})
        return Principal(kind="agent", subject=name, tenant=tenant, roles=roles), world.agents.get((tenant, name))
    roles = frozenset(chance.sample(ROLES, chance.randrange(3)))
    tenant = chance.choice((*TENANTS, ALL_TENANTS))
    # A key may be the one that it asks about, which is then one entity.
    subject = {"user": "https://issuer|", "key": "", "owner": "team-", "system": "part-"}[kind]
    subject = f"{subject}{chance.randrange(5)}"
    return Principal(kind=kind, subject=subject, tenant=tenant, roles=roles), None  # type: ignore[arg-type]


def policies(chance: random.Random, world: World, count: int) -> list[PolicyDocument]:
    """Random documents, a third of them forbidding; some fail at some questions."""
    return [
        PolicyDocument(
            tenant=chance.choice((*TENANTS, ALL_TENANTS)),
            name=f"policy-{number}",
            text="\n".join(_policy(chance, world) for _ in range(1 if chance.random() < 0.8 else 3)),
        )
        for number in range(count)
    ]


def _policy(chance: random.Random, world: World) -> str:
    tenant, agent = world.agent(chance)
    principal = chance.choice(
        (
            "principal",
            f'principal == User::"https://issuer|{chance.randrange(5)}"',
            f'principal == Key::"{tenant}/{chance.randrange(5)}"',
            f'principal == Agent::"{tenant}/{agent}"',
            f'principal in Role::"{chance.choice(ROLES)}"',
            f'principal in Tenant::"{tenant}"',
            'principal in Platform::"chimera"',
            "principal is Agent",
            f'principal is User in Tenant::"{tenant}"',
            f'principal is Team in Role::"{chance.choice(ROLES)}"',
        )
    )
    action = chance.choice(
        (
            "action",
            'action == Action::"agent:invoke"',
            f'action == Action::"{chance.choice(list(ACTIONS))}"',
            f'action in Action::"{chance.choice(ROLES)}"',
            'action in [Action::"session:*", Action::"agent:invoke"]',
        )
    )
    resource = chance.choice(
        (
            "resource",
            f'resource == Agent::"{tenant}/{agent}"',
            f'resource == Agent::"{tenant}/{agent}"',
            f'resource in Agent::"{tenant}/{agent}"',
            f'resource in Tenant::"{tenant}"',
            "resource is Session",
            f'resource is Agent in Tenant::"{tenant}"',
            f'resource is Task in Agent::"{tenant}/{agent}"',
        )
    )
    conditions = (
        "",
        "",
        "when { context.depth < 3 }",
        "unless { context.hour >= 9 && context.hour < 17 }",
        f'when {{ resource has tags && resource.tags.contains("{chance.choice(TAGS)}") }}',
        f'when {{ resource.framework == "{chance.choice(FRAMEWORKS)}" }}',  # fails where resource is no agent
        'when { principal has tags && principal.tags.containsAny(["domain:law", "secret"]) }',
        'when { context.protocol like "op*" } unless { resource has model && resource.model == "large" }',
        f'when {{ resource in Tenant::"{tenant}" || principal in Role::"admin" }}',
        "when { context.depth * 9223372036854775807 > 0 }",  # overflows from depth 2 on
        "when { if principal is Agent then principal.name == resource.name else false }",
    )
    forbids = chance.random() < 0.33
    # What forbids everything to everybody would make all decisions the same.
    if forbids and resource == "resource":
        resource = f'resource == Agent::"{tenant}/{agent}"'
    return f"{'forbid' if forbids else 'permit'} ({principal}, {action}, {resource}) {chance.choice(conditions)};"


class Oracle:
    """Cedar over all policies that count for a tenant."""

    def __init__(self, documents: list[PolicyDocument]) -> None:
        self._sets = {tenant: _everything(documents, tenant) for tenant in (*TENANTS, ALL_TENANTS)}

    def ask(self, asked: Question) -> tuple[bool, tuple[str, ...], int]:
        """Allowed, the ids of the policies that decided, how many failed."""
        answer = cedarpy.is_authorized(
            {
                "principal": _uid(*_who(asked.principal)),
                "action": _uid("Action", asked.action),
                "resource": _uid(*_what(asked.resource)),
                "context": {
                    "protocol": asked.context.protocol,
                    "hour": asked.context.hour,
                    "weekday": asked.context.weekday,
                    "depth": asked.context.depth,
                },
            },
            self._sets[asked.resource.tenant],
            _entities(asked),
        )
        diagnostics = answer.diagnostics
        return answer.allowed, tuple(sorted(diagnostics.reasons)), len(diagnostics.errors)


def _everything(documents: list[PolicyDocument], tenant: str) -> cedarpy.PolicySet:
    held: dict[str, Any] = {}
    texts = [(name, [text]) for name, text in role_policies().items()]
    for name, [text] in texts:
        held[name] = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]["policy0"]
    for document in documents:
        if document.tenant in (tenant, ALL_TENANTS):
            parsed = json.loads(cedarpy.policies_to_json_str(document.text))["staticPolicies"]
            for number in range(len(parsed)):
                held[statement_id(document, number, len(parsed))] = parsed[f"policy{number}"]
    whole = {"templates": {}, "staticPolicies": held, "templateLinks": []}
    return cedarpy.PolicySet.from_json_str(json.dumps(whole))


def _who(principal: Principal) -> tuple[str, str]:
    match principal.kind:
        case "agent":
            return "Agent", f"{principal.tenant}/{principal.subject}"
        case "owner":
            return "Team", f"{principal.tenant}/{principal.subject}"
        case "user":
            return "User", principal.subject
        case "key":
            return "Key", f"{principal.tenant}/{principal.subject}"
        case _:
            return "System", principal.subject


def _what(resource: Resource) -> tuple[str, str]:
    if resource.kind == "Platform":
        return "Platform", "chimera"
    name = resource.name.replace("%", "%25").replace("/", "%2F")
    return resource.kind, "/".join(part for part in (resource.tenant, resource.agent, name) if part)


def _entities(asked: Question) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}

    def add(uid: tuple[str, str], parents: list[tuple[str, str]], **attributes: Any) -> None:
        found[uid] = {"uid": _uid(*uid), "attrs": attributes, "parents": [_uid(*one) for one in parents]}

    def add_agent(tenant: str, name: str, facts: AgentFacts | None) -> None:
        held: dict[str, Any] = {}
        if facts is not None:
            held = {name: getattr(facts, name) for name in ("name", "framework", "model")}
            held |= {"tags": list(facts.tags), "protocols": list(facts.protocols)}
        add(("Agent", f"{tenant}/{name}"), [("Tenant", tenant), ("Role", "agent")], **held)

    add(("Platform", "chimera"), [])
    for tenant in TENANTS:
        add(("Tenant", tenant), [("Platform", "chimera")])
    for role in ROLES:
        add(("Role", role), [])
        add(("Action", role), [])
    thing = f"{asked.action.partition(':')[0]}:*"
    add(("Action", thing), [])
    parents = [("Action", role) for role in ACTIONS[asked.action].roles]
    add(("Action", asked.action), [*parents, ("Action", thing)])
    resource, principal = asked.resource, asked.principal
    if resource.agent is not None:
        add_agent(resource.tenant, resource.agent, resource.facts)
    if (what := _what(resource)) not in found:
        above = ("Agent", f"{resource.tenant}/{resource.agent}") if resource.agent else ("Tenant", resource.tenant)
        add(what, [above])
    if principal.kind == "agent":
        add_agent(principal.tenant, principal.subject, asked.caller)
    else:
        place = ("Platform", "chimera") if principal.tenant == ALL_TENANTS else ("Tenant", principal.tenant)
        add(_who(principal), [*(("Role", role) for role in principal.roles), place])
    return list(found.values())


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}
