"""Statuses as documents: a pure rule from what is to be told and what was told to what is written, if anything."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from chimera.adapters.substrates.knative.objects import Identity, Resource
from chimera.adapters.substrates.knative.resources.kinds import AgentStatus, CellStatus, RolloutStatus, Told
from chimera.adapters.substrates.knative.resources.plan import Outcome, Phase
from chimera.platform.conditions import Condition
from chimera.platform.reasons import Aspect

Json = dict[str, Any]
MOST_MESSAGE = 4_000
MANAGER = "chimera-operator"
_CARRIED = (Phase.CHANGING, Phase.ROLLING_OUT, Phase.HELD, Phase.REFUSED)
"""Phases of Agents that something else than the operator brings to production, or refused to."""


def agent_status(outcome: Outcome, generation: int, before: AgentStatus, tenant: str | None, now: str) -> AgentStatus:
    """The status of an Agent; equal to `before` where nothing is to be told."""
    row = outcome.row
    carried = [] if outcome.phase not in _CARRIED else [("Delivered", False, outcome.phase.value, outcome.message)]
    conflict = outcome.phase is Phase.CONFLICT
    return AgentStatus(
        observed_generation=generation,
        phase=outcome.phase.value,
        tenant=tenant or "",
        revision=row.revision if row else "",
        version=row.version if row else "",
        cell=row.cell if row else "",
        change=outcome.change,
        rollout=outcome.rollout,
        conditions=conditions(
            [
                ("Ready", outcome.phase is Phase.LIVE, outcome.phase.value, outcome.message),
                (
                    "Conflict",
                    conflict,
                    "OtherOwner" if conflict else "OneOwner",
                    outcome.message if conflict else "No one else owns the agent.",
                ),
                *carried,
            ],
            generation,
            before.conditions,
            now,
        ),
    )


def template_status(taken: bool, generation: int, before: AgentStatus, now: str) -> AgentStatus:
    """The status of an AgentTemplate."""
    reason = "NameTaken" if taken else "Ready"
    message = (
        "This release has a template of this name, which goes before it. Give this one another name."
        if taken
        else "Agents of this namespace can extend it."
    )
    told = conditions([("Ready", not taken, reason, message)], generation, before.conditions, now)
    return AgentStatus(observed_generation=generation, phase=reason, conditions=told)


def conditions(
    wanted: Sequence[tuple[str, bool, str, str]], generation: int, before: Sequence[Told], now: str
) -> tuple[Told, ...]:
    """Conditions (type, whether it is so, reason, message); the time of one is when it turned last."""
    known = {one.type: one for one in before}
    found = []
    for kind, is_so, reason, message in wanted:
        value = "True" if is_so else "False"
        earlier = known.get(kind)
        turned = earlier.last_transition_time if earlier is not None and earlier.status == value else now
        found.append(
            Told(
                type=kind,
                status=value,
                reason=reason,
                message=message if len(message) <= MOST_MESSAGE else message[: MOST_MESSAGE - 1] + "…",
                observed_generation=generation,
                last_transition_time=turned or now,
            )
        )
    return tuple(found)


def carried(found: Sequence[Condition], generation: int) -> tuple[Told, ...]:
    """A cell's conditions as the control plane keeps them, but for the one that the operator says itself."""
    return tuple(
        Told(
            type=one.type.value,
            status=one.status,
            reason=one.reason.value,
            message=f"{one.message} Next: {one.next_step}." if one.next_step else one.message,
            observed_generation=generation,
            last_transition_time=datetime.fromtimestamp(one.since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        for one in found
        if one.type is not Aspect.READY
    )


def document(resource: Resource[Any], of: Identity, status: AgentStatus | CellStatus | RolloutStatus) -> Json:
    """What is applied; with the object's unique id, so that one which was made anew isn't told of its predecessor."""
    told: Mapping[str, Any] = msgspec.to_builtins(status)
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": of.name, "namespace": of.namespace, "uid": of.uid},
        "status": dict(told),
    }
