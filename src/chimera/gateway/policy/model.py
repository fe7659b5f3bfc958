"""What is decided about, as values: a resource, the circumstances, and the decision.

These are the words of the policies too (`vocabulary.py` says how they look in Cedar). All are hashable, since a
decision is kept under exactly what it was made of.
"""

from dataclasses import dataclass

from msgspec import Struct

from chimera.gateway.identity.actions import ResourceKind
from chimera.gateway.identity.principal import ALL_TENANTS, Principal


class AgentFacts(Struct, frozen=True, kw_only=True):
    """What policies may ask of an agent. `sequence` grows with every change of it, so it stands for all of them."""

    name: str
    framework: str
    model: str
    tags: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    sequence: int = 0


class Resource(Struct, frozen=True, kw_only=True):
    """What an action is done to.

    `agent` names the agent that it is or belongs to, `facts` is what is known of that agent (None: no such agent, or
    the thing belongs to none). A resource of the platform as a whole has the tenant `ALL_TENANTS`.
    """

    kind: ResourceKind
    tenant: str
    name: str = ""
    agent: str | None = None
    facts: AgentFacts | None = None

    @property
    def id(self) -> str:
        """Its id among those of its kind: tenant, agent and name as far as it has them, joined by slashes."""
        parts = [self.tenant]
        if self.agent is not None:
            parts.append(self.agent)
        if self.name:
            parts.append(self.name.replace("%", "%25").replace("/", "%2F"))
        return "/".join(parts)

    def __str__(self) -> str:
        """How messages and the audit log name it."""
        return f"{self.kind}:{self.id}"


PLATFORM = Resource(kind="Platform", tenant=ALL_TENANTS)


class Denied(Struct, frozen=True, kw_only=True):
    """What was asked and refused, and why: names of policies, or the caps of `authorise`."""

    principal: Principal
    action: str
    resource: Resource
    reasons: tuple[str, ...]


class Circumstances(Struct, frozen=True, kw_only=True):
    """What policies see as `context`: how it is asked and, coarsely, when (UTC; Monday is 1).

    Time stands in whole hours, so that a decision can be kept for as long as it is sure to hold.
    """

    protocol: str
    hour: int
    weekday: int
    depth: int = 0


class Question(Struct, frozen=True, kw_only=True):
    """May `principal` do `action` to `resource`, as things are? `caller` is what is known of an agent that asks."""

    principal: Principal
    action: str
    resource: Resource
    context: Circumstances
    caller: AgentFacts | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The answer. `reasons` names the policies (or the rule before them) that decided, `errors` what went wrong."""

    allowed: bool
    reasons: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


def refusal(reason: str, *errors: str) -> Decision:
    """A refusal that no policy made."""
    return Decision(allowed=False, reasons=(reason,), errors=errors)
