"""Decisions of policies on one core: kept, made, and by Cedar alone over all policies.

12,000 agents in one tenant and 500 policies: a hundred about tags, frameworks and circumstances, which most questions
meet, and four hundred about one agent or user each, as they pile up in use. Principals are 2,000 users, keys and
agents. "Alone" is cedarpy with all policies parsed once and the same entities, as one would call it without an index.

    python -m benchmarks.policies            prints the rows
"""

import random
import time
from collections.abc import Callable, Sequence

import cedarpy

from benchmarks.figures import Measured
from benchmarks.stats import percentile
from chimera.adapters.identity.cedar import Cedar, CedarPolicySet
from chimera.gateway.identity.actions import ROLES
from chimera.gateway.identity.principal import Principal
from chimera.gateway.policy.decide import Policies, PolicyDocument
from chimera.gateway.policy.model import AgentFacts, Circumstances, Question, Resource
from chimera.gateway.policy.vocabulary import hierarchy, role_policies

AGENTS, POLICIES, PRINCIPALS = 12_000, 500, 2_000
DECISIONS = 50_000
SEED = 7
TENANT = "acme"
FRAMEWORKS = ("autogen", "crewai", "langgraph")
DOMAINS = tuple(f"domain:{name}" for name in ("law", "health", "trade", "energy", "transport", "food", "media", "arts"))


def measure(decisions: int = DECISIONS) -> dict[str, Measured]:
    """The rows: so many decisions kept, two fifths of them made, a fiftieth by Cedar alone."""
    chance = random.Random(SEED)
    agents = [_agent(chance, number) for number in range(AGENTS)]
    principals = [_principal(chance, number) for number in range(PRINCIPALS)]
    documents = [_policy(chance, number) for number in range(POLICIES)]
    decider = Policies(Cedar())
    decider.replace(documents)
    asked = [_question(chance, agents, principals) for _ in range(decisions)]
    warm = decisions // 100
    for one in asked[:warm]:  # parse the slices that most questions share
        decider.decide(one)
    made = _timed(decider.decide, asked[warm : warm + decisions * 2 // 5])
    for one in asked:
        decider.decide(one)
    kept = _timed(decider.decide, asked)
    alone = _alone(documents)
    plain = _timed(lambda one: alone.decide(hierarchy(one)), asked[: decisions // 50])
    note = f"{AGENTS:,} agents, {POLICIES} policies"
    return {
        "policy_kept": Measured(value=len(kept) / sum(kept), note=note),
        "policy_kept_p99": Measured(value=percentile(kept, 0.99) * 1_000, note=note),
        "policy_made": Measured(value=len(made) / sum(made), note=note),
        "policy_alone": Measured(value=len(plain) / sum(plain), note=note),
    }


def _timed(decide: Callable[[Question], object], asked: Sequence[Question]) -> list[float]:
    """Seconds of each decision."""
    taken = []
    clock = time.perf_counter
    for one in asked:
        began = clock()
        decide(one)
        taken.append(clock() - began)
    return taken


def _alone(documents: Sequence[PolicyDocument]) -> CedarPolicySet:
    texts = [*role_policies().values(), *(document.text for document in documents)]
    return CedarPolicySet(cedarpy.PolicySet.from_str("\n".join(texts)))


def _agent(chance: random.Random, number: int) -> AgentFacts:
    tags = tuple(sorted(chance.sample(DOMAINS, 2)))
    return AgentFacts(
        name=f"agent-{number:05}",
        framework=chance.choice(FRAMEWORKS),
        model="default",
        tags=tags,
        protocols=("http", "sse", "openai"),
        sequence=number + 1,
    )


def _principal(chance: random.Random, number: int) -> Principal:
    roles = frozenset({chance.choice(ROLES)})
    match number % 3:
        case 0:
            return Principal(kind="user", subject=f"https://login|{number}", tenant=TENANT, roles=roles)
        case 1:
            return Principal(kind="key", subject=f"{number:016}", tenant=TENANT, roles=roles)
    return Principal(kind="agent", subject=f"agent-{number:05}", tenant=TENANT, roles=frozenset({"agent"}))


def _question(chance: random.Random, agents: Sequence[AgentFacts], principals: Sequence[Principal]) -> Question:
    facts, principal = chance.choice(agents), chance.choice(principals)
    caller = agents[int(principal.subject.removeprefix("agent-"))] if principal.kind == "agent" else None
    return Question(
        principal=principal,
        action=chance.choice(("agent:invoke", "agent:invoke", "catalogue:read", "session:read")),
        resource=Resource(kind="Agent", tenant=TENANT, agent=facts.name, facts=facts),
        context=Circumstances(protocol=chance.choice(("http", "openai")), hour=12, weekday=3),
        caller=caller,
    )


def _policy(chance: random.Random, number: int) -> PolicyDocument:
    agent = f"agent-{chance.randrange(AGENTS):05}"
    domain = chance.choice(DOMAINS)
    invoke = 'action == Action::"agent:invoke"'
    if number % 5 == 0:
        text = chance.choice(
            (
                f'forbid (principal is Agent, {invoke}, resource) when {{ resource.tags.contains("{domain}") && '
                f'!principal.tags.contains("{domain}") && context.depth > 3 }};',
                f'permit (principal in Role::"viewer", {invoke}, resource) '
                f'when {{ resource.tags.contains("{domain}") }};',
                f"forbid (principal is Key, {invoke}, resource) unless {{ context.hour >= {number % 9} }};",
                f'permit (principal is Agent, {invoke}, resource) when {{ resource.framework == "crewai" }};',
            )
        )
    else:
        text = chance.choice(
            (
                f'forbid (principal, {invoke}, resource == Agent::"{TENANT}/{agent}");',
                f'permit (principal == User::"https://login|{number}", action, resource == Agent::"{TENANT}/{agent}");',
                f'permit (principal == Agent::"{TENANT}/{agent}", {invoke}, resource) when {{ context.depth < 2 }};',
                f'forbid (principal, action == Action::"session:read", resource in Agent::"{TENANT}/{agent}");',
            )
        )
    return PolicyDocument(tenant=TENANT, name=f"policy-{number}", text=text)


if __name__ == "__main__":
    for name, measured in measure().items():
        print(f"{name:16} {measured.value:12,.3f}  {measured.note}")
