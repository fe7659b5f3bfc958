"""Explaining: what would be decided for somebody, why, and what a change of policies would make of it.

Questions are decided by the same code as requests, with the same caps before the policies. Candidates are tried in a
copy of the tenant's policies, which nobody else sees.
"""

import asyncio

from msgspec.structs import replace

from chimera.gateway.errors import InvalidRequest
from chimera.gateway.identity import api
from chimera.gateway.identity.actions import ACTIONS, ROLES
from chimera.gateway.identity.directory import Directory
from chimera.gateway.identity.keys import principal_of_key
from chimera.gateway.identity.principal import ALL_TENANTS, Principal, named_user
from chimera.gateway.policy.authorise import Asked, Authoriser
from chimera.gateway.policy.decide import Policies, PolicyDocument
from chimera.gateway.policy.model import Resource
from chimera.gateway.policy.ports import PolicyEngine
from chimera.gateway.policy.resources import FactsOf, resource_of
from chimera.gateway.policy.vocabulary import ROLE_PREFIX, role_policies
from chimera.kernel.clock import Clock

BREATH = 10


class Explainer:
    """Asks the questions of people."""

    def __init__(
        self, engine: PolicyEngine, policies: Policies, directory: Directory, facts_of: FactsOf, clock: Clock
    ) -> None:
        """Decide by `policies`, and candidates by copies of them on `engine`."""
        self._engine = engine
        self._policies = policies
        self._directory = directory
        self._facts_of = facts_of
        self._clock = clock

    async def explain(self, tenant: str, asked: api.QuestionBody, by: Principal) -> api.Explained:
        """What is decided, and why."""
        return await self._ask(self._policies, tenant, asked, by)

    async def test(self, tenant: str, body: api.CasesBody, by: Principal) -> api.CaseResults:
        """What the cases get where `body.policies` changes those of the tenant."""
        candidate = Policies(self._engine, decisions=1, slices=64, tenants=2)
        held = {
            **{(ALL_TENANTS, name): one for name, one in self._policies.documents(ALL_TENANTS).items()},
            **{(tenant, name): one for name, one in self._policies.documents(tenant).items()},
        }
        for name, text in body.policies.items():
            if text is None:
                held.pop((tenant, name), None)
            else:
                held[tenant, name] = PolicyDocument(tenant=tenant, name=name, text=text)
        candidate.replace(list(held.values()))
        results = []
        for number, case in enumerate(body.cases):
            if number % BREATH == 0:
                await asyncio.sleep(0)  # calls go on between the cases, which take a fraction of a millisecond each
            got = await self._ask(candidate, tenant, case, by)
            results.append(api.CaseResult(passed=got.allowed == case.allowed, expected=case.allowed, got=got))
        return api.CaseResults(passed=all(one.passed for one in results), results=results)

    async def _ask(self, policies: Policies, tenant: str, asked: api.QuestionBody, by: Principal) -> api.Explained:
        if asked.action not in ACTIONS:
            raise InvalidRequest(
                f"{asked.action[:100]!r} is no action", next_step="docs/guides/policies.md lists them all"
            )
        principal = await self._principal(tenant, asked, by)
        resource = self._resource(tenant, asked)
        caller = self._facts_of(tenant, principal.subject) if principal.kind == "agent" else None
        authoriser = Authoriser(policies, self._directory, self._facts_of, self._clock)
        decision = authoriser.decide(
            principal, asked.action, resource, Asked(protocol=asked.protocol, depth=asked.depth, caller=caller)
        )
        return api.Explained(
            allowed=decision.allowed,
            principal=principal.actor,
            action=asked.action,
            resource=str(resource),
            reasons=decision.reasons,
            errors=decision.errors,
            policies={reason: text for reason in decision.reasons if (text := _text(policies, reason)) is not None},
        )

    async def _principal(self, tenant: str, asked: api.QuestionBody, by: Principal) -> Principal:
        if asked.principal is None:
            return by
        if unknown := [role for role in asked.roles if role not in ROLES]:
            raise InvalidRequest(f"{unknown[0][:100]!r} is no role", next_step=f"roles are {', '.join(ROLES)}")
        kind, _, subject = asked.principal.partition(":")
        match kind:
            case "key":
                stored = await self._directory.key(subject)
                if stored is None or stored.tenant not in (tenant, by.tenant):
                    raise InvalidRequest(f"tenant {tenant} has no key {subject[:100]!r}", next_step="see `keys list`")
                return principal_of_key(stored)
            case "user":
                user = named_user(subject, tenant)
                given = await self._directory.roles(tenant, user.actor)
                return replace(user, roles=frozenset((*asked.roles, *given)))
            case "agent":
                return Principal(kind="agent", subject=subject, tenant=tenant, roles=frozenset({"agent"}))
        raise InvalidRequest(
            f"{asked.principal[:100]!r} is no principal",
            next_step="name it as key:ID, user:ISSUER|SUBJECT or agent:NAME",
        )

    def _resource(self, tenant: str, asked: api.QuestionBody) -> Resource:
        values = {"tenant": tenant}
        if asked.agent is not None:
            values["agent"] = asked.agent
        if asked.name is not None:
            values[ACTIONS[asked.action].resource.lower()] = asked.name
        return resource_of(asked.action, values, self._facts_of)


def _text(policies: Policies, reason: str) -> str | None:
    """The text of the policy that `reason` names."""
    if reason.startswith(ROLE_PREFIX):
        return role_policies().get(reason)
    tenant, _, name = reason.partition("#")[0].partition("/")
    found = policies.documents(tenant).get(name)
    return None if found is None else found.text
