"""Slices, kept decisions and Cedar together say what Cedar says over all policies; and every fault refuses."""

import os
import random
from collections.abc import Sequence

import pytest

from chimera.adapters.identity.cedar import Cedar
from chimera.gateway.identity.principal import ALL_TENANTS, BOOTSTRAP_ADMIN, Principal
from chimera.gateway.policy.decide import FAULT, NO_PERMIT, Policies, PolicyDocument
from chimera.gateway.policy.errors import InvalidPolicy
from chimera.gateway.policy.model import AgentFacts, Circumstances, Decision, Question, Resource
from chimera.gateway.policy.ports import PolicySet, Statement
from chimera.gateway.policy.slicing import Index, positions
from chimera.gateway.policy.vocabulary import (
    ATTRIBUTES,
    Hierarchy,
    cedar_schema,
    hierarchy,
    mentioned,
    role_policies,
)

from .policy_worlds import Oracle, World, policies, question

DECISIONS = int(os.environ.get("CHIMERA_TEST_DECISIONS", "5000"))
SEED = int(os.environ.get("CHIMERA_TEST_SEED", "20261124"))
ROUNDS = 10
AGENT = Resource(
    kind="Agent",
    tenant="acme",
    agent="writer",
    facts=AgentFacts(name="writer", framework="crewai", model="default", tags=("secret",), sequence=3),
)
NOON = Circumstances(protocol="http", hour=12, weekday=2)
OPERATOR = Principal(kind="user", subject="issuer|one", tenant="acme", roles=frozenset({"operator"}))


@pytest.mark.parametrize("number", range(ROUNDS))
def test_the_whole_agrees_with_cedar_over_all_policies(number: int) -> None:
    chance = random.Random(SEED + number)
    world = World.made(chance, 40)
    documents = policies(chance, world, chance.choice((0, 5, 60, 300)))
    oracle = Oracle(documents)
    decider = Policies(Cedar(), decisions=300, slices=50, tenants=2)  # small, so that each bound is reached
    decider.replace(documents)
    seen = {True: 0, False: 0}
    recent: list[Question] = []
    for _ in range(DECISIONS // ROUNDS):
        asked = chance.choice(recent[-200:]) if recent and chance.random() < 0.3 else question(chance, world)
        recent.append(asked)
        allowed, reasons, errors = oracle.ask(asked)
        decision = decider.decide(asked)
        assert decision.allowed == (allowed and not errors), (asked, decision)
        if errors:
            assert decision.reasons == (FAULT,) and len(decision.errors) == errors
        else:
            assert decision.reasons == (reasons or (NO_PERMIT,)), asked
        seen[decision.allowed] += 1
    assert min(seen.values()) > DECISIONS // ROUNDS // 50, f"too much of one decision: {seen}"
    assert decider.hits and decider.misses


def test_after_a_change_it_agrees_with_the_changed_policies() -> None:
    chance = random.Random(SEED)
    world = World.made(chance, 10)
    documents = policies(chance, world, 40)
    decider = Policies(Cedar())
    decider.replace(documents)
    asked = [question(chance, world) for _ in range(100)]
    for _ in range(15):
        gone = documents.pop(chance.randrange(len(documents)))
        changed = PolicyDocument(
            tenant=documents[0].tenant, name=documents[0].name, text=policies(chance, world, 1)[0].text
        )
        documents[0] = changed
        decider.replace([changed], [(gone.tenant, gone.name)])
        oracle = Oracle(documents)
        for one in asked:
            allowed, _, errors = oracle.ask(one)
            assert decider.decide(one).allowed == (allowed and not errors)


def test_an_agent_that_changed_is_decided_about_anew() -> None:
    decider = Policies(Cedar())
    text = 'forbid (principal, action, resource is Agent) when { resource.tags.contains("secret") };'
    decider.replace([PolicyDocument(tenant="acme", name="no-secrets", text=text)])
    assert not _ask(decider, OPERATOR, AGENT).allowed
    assert AGENT.facts is not None
    opened = AgentFacts(name="writer", framework="crewai", model="default", sequence=AGENT.facts.sequence + 1)
    assert _ask(decider, OPERATOR, Resource(kind="Agent", tenant="acme", agent="writer", facts=opened)).allowed


def test_a_tenants_policies_count_for_no_other() -> None:
    decider = Policies(Cedar())
    decider.replace([PolicyDocument(tenant="globex", name="all", text="permit (principal, action, resource);")])
    assert not _ask(decider, OPERATOR, AGENT, "key:write").allowed
    decider.replace([PolicyDocument(tenant=ALL_TENANTS, name="none", text="forbid (principal, action, resource);")])
    assert _ask(decider, OPERATOR, AGENT).reasons == ("*/none",)


class _Broken:
    """An engine that fails where it is told to."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._real = Cedar()

    def parse(self, text: str) -> list[Statement]:
        if self._where == "parse" and "forbid" in text:
            raise InvalidPolicy("broken")
        return self._real.parse(text)

    def check(self, text: str) -> list[str]:
        return []

    def make(self, statements: Sequence[tuple[str, Statement]]) -> PolicySet:
        if self._where == "make":
            raise RuntimeError("broken")
        made = self._real.make(statements)
        return _BrokenSet() if self._where == "decide" else made


class _BrokenSet:
    def decide(self, asked: Hierarchy) -> Decision:
        raise MemoryError("broken")


@pytest.mark.parametrize("where", ["parse", "make", "decide"])
def test_every_fault_refuses(where: str) -> None:
    decider = Policies(_Broken(where))
    decider.replace([PolicyDocument(tenant="acme", name="none", text="forbid (principal, action, resource);")])
    decision = _ask(decider, BOOTSTRAP_ADMIN, AGENT)
    assert not decision.allowed
    assert decision.reasons == (FAULT,)
    assert "broken" in decision.errors[0]


@pytest.mark.parametrize(
    "text",
    [
        "forbid (principal, action, resource) when { resource.nothing == 1 };",
        "permit (principal, action, resource) when { context.hour * 9223372036854775807 > 0 };",
        'forbid (principal, action, resource) when { User::"absent".name == "x" };',
    ],
)
def test_a_policy_that_fails_refuses_whichever_it_is(text: str) -> None:
    decider = Policies(Cedar())
    decider.replace([PolicyDocument(tenant="acme", name="failing", text=text)])
    decision = _ask(decider, OPERATOR, AGENT)
    assert decision.reasons == (FAULT,)
    assert "acme/failing" in decision.errors[0]


def test_an_agent_that_is_not_there_fails_what_asks_for_more_than_its_name() -> None:
    decider = Policies(Cedar())
    text = 'forbid (principal, action, resource is Agent) when { resource.tags.contains("secret") };'
    decider.replace([PolicyDocument(tenant="acme", name="no-secrets", text=text)])
    absent = Resource(kind="Agent", tenant="acme", agent="absent")
    assert _ask(decider, OPERATOR, absent).reasons == (FAULT,)


def test_an_unknown_action_is_refused() -> None:
    assert _ask(Policies(Cedar()), BOOTSTRAP_ADMIN, AGENT, "agent:fly").reasons == (FAULT,)


def test_a_slice_is_small() -> None:
    """Of 500 policies for one agent each, a question about one of them looks at its own and those of roles."""
    engine = Cedar()
    texts = [f'permit (principal, action, resource == Agent::"acme/a{number}");' for number in range(500)]
    index = Index([engine.parse(text)[0] for text in [*role_policies().values(), *texts]])
    resource = Resource(kind="Agent", tenant="acme", agent="a77")
    asked = hierarchy(Question(principal=OPERATOR, action="agent:invoke", resource=resource, context=NOON))
    found = positions(index.slice(asked))
    assert found == [list(role_policies()).index("role/operator"), len(role_policies()) + 77]


def test_an_operator_that_is_not_understood_admits_everything() -> None:
    strange = {"principal": {"op": "near"}, "action": {"op": "==", "slot": "?action"}, "resource": {}}
    asked = hierarchy(Question(principal=OPERATOR, action="agent:invoke", resource=AGENT, context=NOON))
    assert Index([strange]).slice(asked) == 1


def test_every_way_to_see_an_attribute_is_found() -> None:
    engine = Cedar()
    conditions = {
        "resource.tags.isEmpty()": {"tags"},
        'resource["model"] == "x"': {"model"},
        "principal has protocols": {"protocols"},
        "principal has framework && resource has name": {"framework", "name"},
        'if context.depth > 1 then [resource.name].contains("x") else {a: resource.model}.a == "y"': {"name", "model"},
        'Agent::"t/a".tags == resource.tags && principal == resource': {"tags"},
    }
    for condition, expected in conditions.items():
        parsed = engine.parse(f"forbid (principal, action, resource) when {{ {condition} }};")
        assert mentioned(parsed) & ATTRIBUTES == expected, condition


def test_the_schema_knows_what_policies_may_ask() -> None:
    engine = Cedar()
    assert "agent:invoke" in cedar_schema()
    for text in role_policies().values():
        assert engine.check(text) == []
    good = 'permit (principal is Agent, action == Action::"agent:invoke", resource) when { resource.name == "x" };'
    assert engine.check(good) == []
    assert engine.check(good.replace("resource.name", "resource.nmae"))
    assert engine.check(good.replace("agent:invoke", "agent:invoek"))


@pytest.mark.parametrize(
    "text", ["", "permit (principal", "permit (principal == ?principal, action, resource);", "x" * 100, "// nothing"]
)
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(InvalidPolicy):
        Cedar().parse(text)


def _ask(decider: Policies, principal: Principal, resource: Resource, action: str = "agent:invoke") -> Decision:
    return decider.decide(Question(principal=principal, action=action, resource=resource, context=NOON))
