"""The catalogue of facts: every kind of thing that the platform tells, what it is about, and what it says.

A fact that isn't here can't be recorded (`check`, called by the journal), and data that isn't as described here
neither, so that what is documented is what is sent. The reference page, the JSON Schemas of the API and the index of
subscriptions are made from this list.

What a type promises: fields may be added, with a default; none is removed, renamed or given another meaning. What
can't be said so gets another name. No fact holds anything of a conversation, a result, a credential or a person's name
beyond the actor (`by`); who may read it asks the API for it, with the subject's name.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import Struct

from chimera.events.model import Fact


class AgentChanged(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`revision` is live from then on; `before` was (digests). `sequence` is the change's number in the catalogue.

    `owner` is the resource of a cluster that it comes from (`namespace/name`), if any. `batch` is empty where no apply
    did it, but a rollout or a rollback; `change` is the change request that it belongs to.
    """

    agent: str
    revision: str
    version: str
    batch: str
    sequence: int
    by: str
    before: str | None = None
    owner: str | None = None
    rollout: str | None = None
    change: str | None = None


class AgentDeleted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The agent answers no calls any more. `sequence` is the change's number in the catalogue, `owner` as before."""

    agent: str
    sequence: int
    by: str
    owner: str | None = None


class BatchCommitted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many agents a batch made, changed and left alone; `sequence` is the catalogue's newest change with it."""

    batch: str
    created: int
    updated: int
    unchanged: int
    refused: int
    sequence: int
    by: str


class BundleStored(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A packed source folder, by its digest; `size` is in bytes."""

    digest: str
    size: int


class SessionChanged(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The session's state was saved as `version`."""

    agent: str
    session: str
    version: int
    by: str


class SessionTold(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The session as a whole was erased, or exported."""

    agent: str
    session: str
    by: str


class SpaceChanged(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The space's declaration has this version."""

    space: str
    version: int
    by: str


class SpaceWritten(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """These keys were written together; the space has this version."""

    space: str
    version: int
    keys: tuple[str, ...]
    by: str


class SpaceDeleted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The space and all its keys are gone."""

    space: str
    by: str


class SubjectTold(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of a person was exported or erased, by kind. The person is named by a digest, in the fact's subject."""

    by: str
    sessions: int = 0
    runs: int = 0
    steps: int = 0
    checkpoints: int = 0
    answers: int = 0
    tasks: int = 0
    copies: int = 0


class TaskChanged(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The task's state and its number of changes; `problem` is the code of what went wrong last."""

    task: str
    agent: str
    state: str
    version: int
    attempts: int
    by: str
    session: str | None = None
    problem: str | None = None


class MessageSent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An agent's message to another by its id; `reply`: an answer is wanted. `answers`: the message that it answers."""

    message: str
    sender: str
    receiver: str
    by: str
    reply: bool = False
    answers: str | None = None


class KeyChanged(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The API key by its id, and what it may do. Its secret is nowhere."""

    key: str
    name: str
    roles: tuple[str, ...]
    by: str
    scopes: tuple[str, ...] | None = None
    agents: tuple[str, ...] | None = None
    expires: float | None = None


class RoleChanged(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The roles that a principal has from then on."""

    principal: str
    roles: tuple[str, ...]
    by: str


class PolicyChanged(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The policy text of this name has this version."""

    name: str
    version: int
    by: str


class TenantChanged(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tenant's name."""

    name: str
    by: str


class SubscriptionChanged(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The subscription as it stands then. `receiver` is its address without a path; `why` is why it is paused."""

    subscription: str
    name: str
    receiver: str
    state: str
    version: int
    by: str
    why: str | None = None


class ConditionTold(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A condition as it is from then on. Its words must be asked for: they may name what is for operators alone."""

    type: str
    status: str
    reason: str
    since: float


class ConditionsChanged(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The conditions that became trouble, other trouble, or well again; `cell` where they are a cell's."""

    conditions: tuple[ConditionTold, ...]
    cell: str | None = None


class ChangeTold(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The change request as it is from then on. `content` is the digest of what it does, to so many `agents`."""

    change: str
    state: str
    risk: str
    content: str
    agents: int
    by: str
    commit: str | None = None


class RolloutTold(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The rollout as it is from then on. `moved` of `agents` have their new revision for nearly all calls, or for all.

    `wave` of `waves` is under way. `taken_back` names agents that were taken back by themselves, a hundred at most, and
    `reason` says why.
    """

    rollout: str
    state: str
    agents: int
    moved: int
    wave: int
    waves: int
    by: str
    change: str | None = None
    reason: str = ""
    taken_back: tuple[str, ...] = ()


class DeliveryPolicyChanged(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tenant's delivery policy has this version; `direct` says whether definitions may be applied directly."""

    version: int
    direct: bool
    freezes: tuple[str, ...]
    by: str


class SourceChanged(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How following a branch goes: the commit that is live, the newest one that was seen, and what is wrong."""

    source: str
    phase: str
    commit: str | None = None
    seen: str | None = None
    reason: str = ""
    drifted: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class FactType:
    """One kind of fact: its name, the form of its subject, what it means, and the type of its data."""

    name: str
    subject: str
    doc: str
    data: type[Struct]


def _type(name: str, subject: str, data: type[Struct], doc: str) -> FactType:
    return FactType(name=name, subject=subject, doc=doc, data=data)


_AGENT = "agents/{agent}"
_SESSION = "agents/{agent}/sessions/{session}"
_TASK = "agents/{agent}/tasks/{task}"
_SPACE = "spaces/{space}"
_PERSON = "subjects/{digest}"
_KEY = "keys/{key}"
_SUBSCRIPTION = "subscriptions/{subscription}"
_CELL = "cells/{cell}"
_CHANGE = "changes/{change}"
_ROLLOUT = "rollouts/{rollout}"

_ALL = (
    _type("agent.created", _AGENT, AgentChanged, "An agent is live that wasn't before."),
    _type("agent.updated", _AGENT, AgentChanged, "Another revision of an agent is live."),
    _type("agent.deleted", _AGENT, AgentDeleted, "An agent was taken out of service."),
    _type("batch.committed", "batches/{batch}", BatchCommitted, "A batch of definitions was made live as a whole."),
    _type("change.opened", _CHANGE, ChangeTold, "Somebody wants definitions changed."),
    _type("change.amended", _CHANGE, ChangeTold, "A change has another content; what was said of the old one is void."),
    _type("change.building", _CHANGE, ChangeTold, "The checks of a change have begun."),
    _type("change.built", _CHANGE, ChangeTold, "A change has passed all checks."),
    _type("change.failed", _CHANGE, ChangeTold, "A change can't go on as it is."),
    _type("change.approved", _CHANGE, ChangeTold, "Somebody, or the platform's reviewers, approved a change."),
    _type("change.rejected", _CHANGE, ChangeTold, "Somebody rejected a change."),
    _type("change.emergency", _CHANGE, ChangeTold, "A change takes the emergency path."),
    _type("change.reviewed", _CHANGE, ChangeTold, "Somebody looked at a change that took the emergency path."),
    _type("change.staging", _CHANGE, ChangeTold, "A change goes to staging."),
    _type("change.rolling-out", _CHANGE, ChangeTold, "A change begins to go to production, or goes on."),
    _type("change.paused", _CHANGE, ChangeTold, "The rollout of a change stands still."),
    _type("change.done", _CHANGE, ChangeTold, "All of a change is live."),
    _type("change.rolled-back", _CHANGE, ChangeTold, "All of a change was taken back."),
    _type("change.aborted", _CHANGE, ChangeTold, "A change was given up; nothing of it is live."),
    _type("change.superseded", _CHANGE, ChangeTold, "A change was overtaken by another, changed agents or its branch."),
    _type("change.wanted", _CHANGE, ChangeTold, "Somebody wants a rollout to pause, to go on or to be taken back."),
    _type("rollout.started", _ROLLOUT, RolloutTold, "A rollout has begun."),
    _type("rollout.wave", _ROLLOUT, RolloutTold, "All agents of a wave are decided; the next wave begins."),
    _type("rollout.asked-to-run", _ROLLOUT, RolloutTold, "Somebody wants a rollout to go on."),
    _type("rollout.asked-to-pause", _ROLLOUT, RolloutTold, "Somebody wants a rollout to rest."),
    _type("rollout.asked-to-abort", _ROLLOUT, RolloutTold, "Somebody wants a rollout to be taken back."),
    _type("rollout.paused", _ROLLOUT, RolloutTold, "A rollout rests: it goes no further."),
    _type("rollout.resumed", _ROLLOUT, RolloutTold, "A rollout that rested goes on."),
    _type("rollout.taken-back", _ROLLOUT, RolloutTold, "Agents of a rollout are taken back by themselves."),
    _type("rollout.promoting", _ROLLOUT, RolloutTold, "All agents of a rollout are decided and become live."),
    _type("rollout.rolling-back", _ROLLOUT, RolloutTold, "All of a rollout is taken back."),
    _type("rollout.done", _ROLLOUT, RolloutTold, "All of a rollout is live."),
    _type("rollout.rolled-back", _ROLLOUT, RolloutTold, "Nothing of a rollout gets calls any more."),
    _type("rollout.aborted", _ROLLOUT, RolloutTold, "A rollout was aborted, and nothing of it gets calls any more."),
    _type("delivery.changed", "delivery", DeliveryPolicyChanged, "The tenant's delivery policy was changed."),
    _type("bundle.stored", "bundles/{digest}", BundleStored, "A source folder was stored that wasn't there."),
    _type("session.created", _SESSION, SessionChanged, "A session was saved for the first time."),
    _type("session.updated", _SESSION, SessionChanged, "A session was saved again."),
    _type("session.deleted", _SESSION, SessionTold, "A session was erased."),
    _type("session.exported", _SESSION, SessionTold, "All that is kept of a session was exported."),
    _type("space.created", _SPACE, SpaceChanged, "A space of shared state was declared."),
    _type("space.updated", _SPACE, SpaceChanged, "A space was declared otherwise."),
    _type("space.written", _SPACE, SpaceWritten, "Keys of a space were written."),
    _type("space.deleted", _SPACE, SpaceDeleted, "A space was erased."),
    _type("subject.exported", _PERSON, SubjectTold, "All that is kept of a person was exported."),
    _type("subject.erased", _PERSON, SubjectTold, "All that was kept of a person was erased."),
    _type("task.submitted", _TASK, TaskChanged, "Long work was accepted."),
    _type("task.started", _TASK, TaskChanged, "An attempt at a task has begun."),
    _type("task.retried", _TASK, TaskChanged, "An attempt has failed or was given back; another one follows."),
    _type("task.succeeded", _TASK, TaskChanged, "A task has its result."),
    _type("task.failed", _TASK, TaskChanged, "A task has failed for good."),
    _type("task.cancelled", _TASK, TaskChanged, "A task was cancelled."),
    _type("task.expired", _TASK, TaskChanged, "A task was not finished by its deadline."),
    _type("source.changed", "sources/{source}", SourceChanged, "A source has another commit live, or other trouble."),
    _type("cell.changed", _CELL, ConditionsChanged, "A cell has trouble, other trouble, or none any more."),
    _type("home.changed", "home", ConditionsChanged, "The home as a whole has trouble, or none any more."),
    _type("message.sent", "agents/{agent}/messages/{message}", MessageSent, "An agent was sent another's message."),
    _type("key.created", _KEY, KeyChanged, "An API key was made."),
    _type("key.rotated", _KEY, KeyChanged, "An API key has another secret."),
    _type("key.revoked", _KEY, KeyChanged, "An API key was revoked."),
    _type("role.granted", "roles/{principal}", RoleChanged, "Somebody was given roles."),
    _type("role.withdrawn", "roles/{principal}", RoleChanged, "Somebody's roles were taken."),
    _type("policy.changed", "policies/{policy}", PolicyChanged, "A policy text was made or changed."),
    _type("policy.deleted", "policies/{policy}", PolicyChanged, "A policy text was deleted."),
    _type("subscription.created", _SUBSCRIPTION, SubscriptionChanged, "Somebody subscribed to events."),
    _type("subscription.updated", _SUBSCRIPTION, SubscriptionChanged, "A subscription was changed."),
    _type(
        "subscription.paused", _SUBSCRIPTION, SubscriptionChanged, "Nothing is delivered to a subscription any more."
    ),
    _type("subscription.resumed", _SUBSCRIPTION, SubscriptionChanged, "A paused subscription goes on."),
    _type("subscription.rotated", _SUBSCRIPTION, SubscriptionChanged, "A subscription has another secret."),
    _type("subscription.deleted", _SUBSCRIPTION, SubscriptionChanged, "A subscription was deleted."),
    _type("tenant.created", "tenant", TenantChanged, "The tenant was made."),
    _type("tenant.suspended", "tenant", TenantChanged, "The tenant was suspended: nothing is done for it."),
    _type("tenant.resumed", "tenant", TenantChanged, "The tenant is served again."),
)

FACTS: Mapping[str, FactType] = MappingProxyType({one.name: one for one in _ALL})
"""Every kind of fact by its name."""


def check(fact: Fact) -> None:
    """Hold a fact against the catalogue.

    Raises `ValueError` for a type that isn't in it, and `msgspec.ValidationError`, which is one, for data of another
    form: mistakes of the code that records, found by the first test of it.
    """
    kind = FACTS.get(fact.type)
    if kind is None:
        raise ValueError(f"{fact.type!r} is not in the catalogue of facts (chimera.events.catalogue)")
    if not isinstance(fact.data, kind.data):
        msgspec.convert(fact.data, kind.data, from_attributes=isinstance(fact.data, Struct))


def schema_of(kind: FactType) -> dict[str, Any]:
    """The JSON Schema of a kind's data, whole in itself. It allows other fields, since later releases may add some."""
    (reference,), components = msgspec.json.schema_components((kind.data,), ref_template="#/$defs/{name}")
    name = reference["$ref"].rpartition("/")[2]
    made: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", **components.pop(name)}
    made.pop("additionalProperties", None)
    made["description"] = inspect.cleandoc(made["description"])
    if components:
        made["$defs"] = components
    return made
