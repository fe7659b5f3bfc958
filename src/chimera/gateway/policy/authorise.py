"""Authorisation: whether a principal may do what it asks, in the order that makes the safe answer the short one.

    reach      its tenant is the resource's, or it belongs to all       no policy can open another tenant's door
    suspended  the tenant is in service                                 only the platform may mend it
    scopes     the key's own limits hold the action and the agent       a key never does more than it was made for
    policies   roles and Cedar (decide.py)

The first three are caps: a policy can permit within them and nothing beyond. One right can't be taken: whoever holds
the home's own key may administer identity, so that a policy that forbids everything can be mended.
"""

import logging
from dataclasses import dataclass

from chimera.gateway.identity.actions import covers
from chimera.gateway.identity.directory import Directory
from chimera.gateway.identity.errors import NotAllowed, TenantSuspended
from chimera.gateway.identity.principal import ALL_TENANTS, BOOTSTRAP_ADMIN, Principal
from chimera.gateway.policy.decide import FAULT, NO_PERMIT, Policies
from chimera.gateway.policy.model import (
    AgentFacts,
    Circumstances,
    Decision,
    Denied,
    Question,
    Resource,
    refusal,
)
from chimera.gateway.policy.resources import FactsOf, agent_resource
from chimera.kernel.clock import Clock
from chimera.platform.model import CellSpec, Route

log = logging.getLogger(__name__)

REACH, SUSPENDED, SCOPE = "reach", "suspended", "scope"
"""The reasons of refusals before any policy."""
HOME_KEY = "home-key"
"""The reason why the home's key may administer identity."""

_WHY = {
    REACH: "it reaches no further than its own tenant",
    SCOPE: "its scopes don't hold that",
    NO_PERMIT: "no role and no policy permits it",
    FAULT: "it could not be decided, so it is refused",
}

OPEN = frozenset({"api:read"})
"""Actions that no key's own limits touch: asking what there is, and who one is."""
ADMINISTRATION = frozenset({"key", "role", "policy", "tenant"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """How it is asked: the protocol, how deep in agents that call agents, and what is known of an agent that asks."""

    protocol: str = "http"
    depth: int = 0
    caller: AgentFacts | None = None


_HTTP = Asked()


class Authoriser:
    """Decides, for everything that the gateway does for somebody."""

    def __init__(self, policies: Policies, directory: Directory, facts_of: FactsOf, clock: Clock) -> None:
        """Decide by `policies`, within the caps."""
        self._policies = policies
        self._directory = directory
        self.facts_of = facts_of
        self._clock = clock

    def check(self, principal: Principal, action: str, resource: Resource, asked: Asked = _HTTP) -> Decision:
        """The decision, where it allows. Raises `NotAllowed` or `TenantSuspended`."""
        decision = self.decide(principal, action, resource, asked)
        if not decision.allowed:
            error = refused(decision, principal, action, resource)
            error.denied = Denied(principal=principal, action=action, resource=resource, reasons=decision.reasons)
            raise error
        return decision

    def check_agent(self, principal: Principal, tenant: str, agent: str, asked: Asked = _HTTP) -> Decision:
        """The same for a call of an agent."""
        return self.check(principal, "agent:invoke", agent_resource(tenant, agent, self.facts_of), asked)

    def decide(self, principal: Principal, action: str, resource: Resource, asked: Asked = _HTTP) -> Decision:
        """The decision."""
        if not principal.reaches(resource.tenant):
            return refusal(REACH)
        thing = action.partition(":")[0]
        if self._directory.suspended(resource.tenant) and not (
            principal.tenant == ALL_TENANTS and thing in ADMINISTRATION
        ):
            return refusal(SUSPENDED)
        if action not in OPEN and not _within_limits(principal, action, resource):
            return refusal(SCOPE)
        if principal == BOOTSTRAP_ADMIN and thing in ADMINISTRATION:
            return Decision(allowed=True, reasons=(HOME_KEY,))
        return self._policies.decide(
            Question(
                principal=principal,
                action=action,
                resource=resource,
                context=circumstances(asked, self._clock.wall()),
                caller=asked.caller,
            )
        )


def _within_limits(principal: Principal, action: str, resource: Resource) -> bool:
    if principal.scopes is not None and not covers(principal.scopes, action):
        return False
    return principal.agents is None or resource.agent in principal.agents


def circumstances(asked: Asked, now: float) -> Circumstances:
    """What policies see of the circumstances at `now` (seconds since the epoch)."""
    days, seconds = divmod(int(now), 86_400)
    # The epoch's first day was a Thursday.
    return Circumstances(protocol=asked.protocol, depth=asked.depth, hour=seconds // 3_600, weekday=(days + 3) % 7 + 1)


def agent_principal(route: Route, cell: CellSpec) -> Principal:
    """Who asks when the agent of `route` calls another.

    The platform asserts an agent's own identity where nothing but the platform's code runs in the process, or where
    the agent is alone in it. Code that shares a process with its owner's other agents could speak for any of them, so
    it is authorised as its owner.
    """
    roles = frozenset({"agent"})
    domain = cell.runtime_class.isolation
    if domain.startswith("owner:"):
        team = domain.removeprefix(f"owner:{route.tenant}/")
        return Principal(kind="owner", subject=team, tenant=route.tenant, roles=roles)
    return Principal(kind="agent", subject=route.agent, tenant=route.tenant, roles=roles)


def refused(decision: Decision, principal: Principal, action: str, resource: Resource) -> NotAllowed | TenantSuspended:
    """The refusal as the caller hears it: what and on what, and of policies no more than that one decided."""
    if decision.reasons == (SUSPENDED,):
        return TenantSuspended(
            f"tenant {resource.tenant} is suspended", next_step="whoever runs the platform can resume it"
        )
    reason = decision.reasons[0] if len(decision.reasons) == 1 else ""
    why = _WHY.get(reason, "a policy forbids it")
    if reason == FAULT:
        log.error(
            "a decision failed and was refused",
            extra={"actor": principal.actor, "action": action, "resource": str(resource), "errors": decision.errors},
        )
    return NotAllowed(
        f"{principal.actor} may not {action} on {str(resource)[:300]}: {why}",
        next_step="ask an admin of the tenant; `chimera policies explain` shows which policies decide",
        agent=resource.agent,
    )
