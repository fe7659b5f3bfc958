"""How a rollout begins: its members with their groups, objectives and waves, worked out from definitions. Pure.

Agents have **the same change** where the semantic difference between what is live and what is to be is the same,
whatever else the agents are: another model for a hundred agents is one change a hundred times. Only such agents pool
evidence.
"""

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from chimera.agents.compile import CanonicalDefinition
from chimera.agents.diff import compare
from chimera.delivery.rollout import waves
from chimera.delivery.rollout.model import Item, Member, Policy
from chimera.delivery.rollout.sequential import Objective
from chimera_host.contract.tools import AgentTool, MessageTool

LATE = 0.05
"""The share of calls that may take longer than the objective's latency, which is that of 95 of 100."""
NEW, LEAVES = "new", "leaves"


def members_of(
    items: Sequence[Item],
    definitions: Mapping[str, CanonicalDefinition],
    calls: Mapping[str, int],
    policy: Policy,
    now: float,
) -> list[Member]:
    """The members in the order in which they are begun."""
    groups = {one.agent: group_of(one, definitions) for one in items}
    needed = _needed(items, definitions)
    candidates = [
        waves.Candidate(
            agent=one.agent,
            group=groups[one.agent],
            calls=calls.get(one.agent, 0),
            leaves=one.revision is None,
            needed_by=needed.get(one.agent, frozenset()),
        )
        for one in items
    ]
    by_agent = {one.agent: one for one in items}
    return [
        Member(
            agent=one.agent,
            revision=by_agent[one.agent].revision,
            before=by_agent[one.agent].before,
            group=one.group,
            wave=number,
            objective=_objective(by_agent[one.agent], definitions),
            cases=by_agent[one.agent].cases,
            since=now,
            owner=by_agent[one.agent].owner,
        )
        for number, wave in enumerate(waves.waves(candidates, policy.canary, policy.waves))
        for one in wave
    ]


def group_of(item: Item, definitions: Mapping[str, CanonicalDefinition]) -> str:
    """The name of what changes: the digest of the semantic difference, without what is the agent's own."""
    if item.revision is None:
        return LEAVES
    old = definitions.get(item.before or "")
    new = definitions.get(item.revision)
    if old is None or new is None:
        return NEW
    told = [(change.path, change.old, change.new) for change in compare(old, new).changes]
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:16]


def _needed(items: Sequence[Item], definitions: Mapping[str, CanonicalDefinition]) -> dict[str, frozenset[str]]:
    """By whom of these each of them is called or written to that is new."""
    found: dict[str, set[str]] = {one.agent: set() for one in items if one.before is None}
    for item in items:
        made = definitions.get(item.revision or "")
        for tool in () if made is None else made.agent.tools:
            if isinstance(tool, AgentTool | MessageTool) and tool.agent in found and tool.agent != item.agent:
                found[tool.agent].add(item.agent)
    return {name: frozenset(callers) for name, callers in found.items()}


def _objective(item: Item, definitions: Mapping[str, CanonicalDefinition]) -> Objective:
    found = definitions.get(item.revision or "")
    if found is None:
        return Objective()
    return Objective(1 - found.availability, LATE, found.latency_p95)
