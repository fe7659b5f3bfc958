"""The actions that can be allowed or refused, and which roles carry them; the one list that everything else follows.

An operation of the API names its action (`entrypoints/published/operation.py`), policies name actions, a key's scopes
name actions, and the audit log writes them down. An action says what kind of thing it is done to. Where an operation's
path names no such thing (a list, something not made yet), it is done to what would hold it: the agent, the tenant.

Roles are a ladder with one branch, kept small on purpose, since a role that is nearly another one is a policy:

    viewer < operator < admin        looks / calls agents and changes definitions / also changes who may do what
    viewer < approver < admin        approves changes and makes none, so that two people are needed
    agent                            what an agent, or a program that uses agents, needs

A role reaches as far as the principal's tenant. Only a principal of all tenants reaches what belongs to the platform
as a whole: hosts, logs, other tenants.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Role = Literal["viewer", "operator", "approver", "admin", "agent"]
ROLES: tuple[Role, ...] = ("viewer", "operator", "approver", "admin", "agent")

ResourceKind = Literal[
    "Platform", "Tenant", "Agent", "Session", "Space", "Task", "Subscription", "Key", "Grant", "Policy"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """One action: its name (`thing:verb`), what it is done to, what it means, and the roles that carry it."""

    name: str
    resource: ResourceKind
    doc: str
    roles: frozenset[Role]


_LOOK: tuple[Role, ...] = ("viewer", "operator", "approver", "admin")
_WORK: tuple[Role, ...] = ("operator", "admin")
_USE: tuple[Role, ...] = ("operator", "admin", "agent")
_SEE_USED: tuple[Role, ...] = (*_LOOK, "agent")
_ADMIN: tuple[Role, ...] = ("admin",)


def _action(name: str, resource: ResourceKind, doc: str, roles: tuple[Role, ...]) -> Action:
    return Action(name=name, resource=resource, doc=doc, roles=frozenset(roles))


_ALL = (
    _action("api:read", "Tenant", "Read the API's description.", _SEE_USED),
    _action("agent:invoke", "Agent", "Call an agent.", _USE),
    _action("catalogue:read", "Agent", "Read definitions and revisions; validate, compare.", _SEE_USED),
    _action("catalogue:write", "Agent", "Apply definitions, and take agents out of service.", _WORK),
    _action("change:read", "Tenant", "Read change requests, and what was said of them.", _LOOK),
    _action("change:write", "Tenant", "Open, amend, abort, pause and resume change requests.", _WORK),
    _action("change:approve", "Agent", "Approve a change of definitions.", ("approver", "admin")),
    _action("rollout:read", "Tenant", "Read rollouts, and what was seen of their agents.", _LOOK),
    _action("rollout:write", "Tenant", "Start, pause, resume and abort rollouts.", _WORK),
    _action("delivery:read", "Tenant", "Read the delivery policy and its freeze windows.", _LOOK),
    _action("delivery:write", "Tenant", "Change the delivery policy and its freeze windows.", _ADMIN),
    _action("source:read", "Tenant", "See which branches the catalogue follows, and how that goes.", _LOOK),
    _action("source:write", "Tenant", "Follow branches, which change agents as their commits say.", _ADMIN),
    _action("test:read", "Tenant", "Read runs of agents' own tests, and what came of them.", _LOOK),
    _action("test:run", "Tenant", "Run agents' own tests, and end such runs.", _WORK),
    _action("session:read", "Session", "Read sessions, and list and export them.", _SEE_USED),
    _action("session:write", "Session", "Change a session's state from outside.", _USE),
    _action("session:delete", "Session", "Erase sessions.", _WORK),
    _action("subject:read", "Tenant", "Find and export all that is kept of a person.", _WORK),
    _action("subject:erase", "Tenant", "Erase all that is kept of a person.", _ADMIN),
    _action("space:read", "Space", "Read state that agents share.", _SEE_USED),
    _action("space:write", "Space", "Make, change and erase state that agents share.", _USE),
    _action("task:submit", "Task", "Submit long work.", _USE),
    _action("task:read", "Task", "Read tasks, their progress and results.", _SEE_USED),
    _action("task:cancel", "Task", "Cancel tasks.", _USE),
    _action("event:read", "Tenant", "Read the tenant's events.", _LOOK),
    _action("event:publish", "Tenant", "Send an event, which starts the agents that subscribed to it.", _USE),
    _action("subscription:read", "Subscription", "Read subscriptions and what could not be delivered.", _LOOK),
    _action("subscription:write", "Subscription", "Change subscriptions; replay and drop dead letters.", _WORK),
    _action("quota:read", "Tenant", "Read what agents may use and have used.", _LOOK),
    _action("audit:read", "Tenant", "Read, export and verify the audit log.", ("approver", "admin")),
    _action("audit:write", "Platform", "Make a checkpoint of the audit log.", _ADMIN),
    _action("key:read", "Key", "List API keys; their secrets are never shown.", _ADMIN),
    _action("key:write", "Key", "Create, rotate and revoke API keys.", _ADMIN),
    _action("role:read", "Grant", "List who has which role.", _LOOK),
    _action("role:write", "Grant", "Give roles and take them.", _ADMIN),
    _action("policy:read", "Policy", "Read policies, and ask why something is decided as it is.", _LOOK),
    _action("policy:write", "Policy", "Change policies.", _ADMIN),
    _action("tenant:read", "Tenant", "Read tenants.", _LOOK),
    _action("tenant:write", "Platform", "Make, suspend and resume tenants.", _ADMIN),
    _action("platform:read", "Platform", "Read how processes, cells and hosts are, and the metrics.", _LOOK),
    _action("platform:write", "Platform", "Change how the platform itself runs.", _ADMIN),
    _action("log:read", "Platform", "Read the logs of processes and hosts.", _WORK),
)

ACTIONS = MappingProxyType({action.name: action for action in _ALL})
"""Every action by its name."""


def carried_by(roles: frozenset[str]) -> frozenset[str]:
    """The names of the actions that `roles` carry together; a role that isn't known carries none."""
    return frozenset(action.name for action in _ALL if action.roles & roles)


def covers(scopes: frozenset[str], action: str) -> bool:
    """Whether `scopes` hold `action`: by its name, by its thing (`session:*`), or all (`*`)."""
    return action in scopes or "*" in scopes or f"{action.partition(':')[0]}:*" in scopes


def is_scope(text: str) -> bool:
    """Whether `text` can be a scope: an action, a thing with `:*`, or `*`."""
    return text == "*" or text in ACTIONS or any(text == f"{name.partition(':')[0]}:*" for name in ACTIONS)
