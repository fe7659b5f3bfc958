"""ADaC v2.0: an agent's definition as types. The JSON Schema, the reference page and the checks are made from them.

The mission's sections stand first (`schema_version`, `metadata`, `specification`, `capabilities`); a definition with
those alone is valid and runs. Everything else is optional and has a default that suits a shared, idle-most-of-the-time
agent. Quantities are text as people write them ("250m", "512Mi", "5m"); `chimera.agents.quantities` reads them.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from chimera.agents.cases import AgentTest
from chimera.agents.images import IMAGE_PATTERN
from chimera.agents.quantities import BYTES_PATTERN, CPU_PATTERN, DURATION_PATTERN, VERSION_PATTERN
from chimera_host.contract.agent import ModelChoice
from chimera_host.contract.behaviour import Behaviour, ShortText, Text
from chimera_host.contract.tools import Tool

SCHEMA_VERSION = "ADaC v2.0"
PYTHON_RUNTIME = "python:3.11-slim"
NODE_RUNTIME = "node:18-alpine"

DataClass = Literal["public", "internal", "confidential", "personal"]
DATA_CLASSES: tuple[DataClass, ...] = ("public", "internal", "confidential", "personal")
"""The gravest last."""

Name = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        max_length=63,
        description="1 to 63 lower-case letters, digits and inner hyphens; unique in its tenant.",
        examples=["invoice-checker"],
    ),
]
SemanticVersion = Annotated[str, Meta(pattern=VERSION_PATTERN, max_length=100, examples=["1.0.0"])]
Cpu = Annotated[str, Meta(pattern=CPU_PATTERN, description="100m to 2000m.", examples=["250m"])]
Memory = Annotated[str, Meta(pattern=BYTES_PATTERN, description="128Mi to 4Gi.", examples=["512Mi"])]
Storage = Annotated[str, Meta(pattern=BYTES_PATTERN, description="1Gi to 10Gi.", examples=["1Gi"])]
Duration = Annotated[str, Meta(pattern=DURATION_PATTERN, examples=["5m"])]
Tag = Annotated[str, Meta(min_length=1, max_length=120)]
Runtime = Annotated[
    str,
    Meta(
        pattern=IMAGE_PATTERN,
        max_length=500,
        description="python:3.11-slim, node:18-alpine, or a custom image (needs Kubernetes).",
        examples=["python:3.11-slim", "node:18-alpine"],
    ),
]
EntryPoint = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_./-]*:[A-Za-z_][A-Za-z0-9_]*$", max_length=200)]
EventText = Annotated[str, Meta(pattern=r"^[\x21-\x7e]{1,512}$", examples=["task.failed", "com.example.order.*"])]
RelativePath = Annotated[str, Meta(min_length=1, max_length=500)]


class Metadata(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who the agent is."""

    name: Name
    version: SemanticVersion
    description: Text
    tags: Annotated[
        tuple[Tag, ...],
        Meta(max_length=100, description="Sorted by a prefix capability:, domain: or integration: where one is given."),
    ] = ()


class Resources(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the agent may use of its host; chooses the resource class of its cell."""

    cpu: Cpu = "250m"
    memory: Memory = "512Mi"
    storage: Storage = "1Gi"


class Specification(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What runs the agent. `entrypoint` and `source` bring code of the agent's own."""

    framework: Literal["AutoGen", "CrewAI", "LangGraph", "function"]
    runtime: Runtime = "python:3.11-slim"
    resources: Resources = Resources()
    entrypoint: EntryPoint | None = None
    source: RelativePath | None = None


class Capabilities(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the agent is for, what it may reach, and how it may be reached."""

    primary_functions: Annotated[tuple[ShortText, ...], Meta(min_length=1, max_length=50)]
    integration_points: Annotated[tuple[ShortText, ...], Meta(max_length=50)] = ()
    communication_protocols: Annotated[tuple[ShortText, ...], Meta(max_length=10)] = ("http", "sse", "openai")


class Scaling(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Bounds of the agent's share of its cell; `max_instances` x `concurrency_target` is its own concurrency limit."""

    min_instances: Annotated[int, Meta(ge=0, le=1000)] = 0
    max_instances: Annotated[int, Meta(ge=1, le=1000)] = 10
    concurrency_target: Annotated[int, Meta(ge=1, le=1000)] = 10
    idle_timeout: Duration = "5m"
    calls_per_minute: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class Budget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the agent's model calls may cost in a day (UTC)."""

    tokens_per_day: Annotated[int, Meta(ge=1)] | None = None
    usd_per_day: Annotated[float, Meta(gt=0)] | None = None


class ServiceLevelObjective(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What callers may expect over 30 days: the share of calls that succeed (0 to 1), and the latency of 95%."""

    availability: Annotated[float, Meta(gt=0, lt=1)] = 0.99
    latency_p95: Duration = "30s"


class Owner(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who answers for the agent; agents with code share a cell only with the same team's."""

    team: Name
    contact: ShortText | None = None


class Retirement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """When the agent ends (ISO 8601 date), and which agent takes over."""

    after: Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", examples=["2027-12-31"])]
    replaced_by: Name | None = None


class EventSubscription(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Events that start the agent, each as a durable task; an event must pass all that is asked of it."""

    name: Name
    types: Annotated[tuple[EventText, ...], Meta(min_length=1, max_length=20)]
    sources: Annotated[tuple[EventText, ...], Meta(max_length=20)] = ()
    subjects: Annotated[tuple[EventText, ...], Meta(max_length=20)] = ()
    filters: Annotated[tuple[dict[str, Any], ...], Meta(max_length=20)] = ()
    data: Annotated[dict[str, str | int | float | bool], Meta(max_length=20)] = {}
    input: Text | None = None
    session: Literal["event", "subject", "subscription"] = "event"
    attempts: Annotated[int, Meta(ge=1, le=100)] | None = None
    expires: Duration = "1d"
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0


class Definition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An agent, defined as code (ADaC v2.0)."""

    schema_version: Literal["ADaC v2.0"]
    metadata: Metadata
    specification: Specification
    capabilities: Capabilities
    extends: Annotated[str, Meta(max_length=63, description="A template to start from.")] | None = None
    behaviour: Behaviour = Behaviour()
    tools: Annotated[tuple[Tool, ...], Meta(max_length=50)] = ()
    subscriptions: Annotated[tuple[EventSubscription, ...], Meta(max_length=20)] = ()
    scaling: Scaling = Scaling()
    isolation: Literal["shared", "dedicated"] = "shared"
    model: ModelChoice = ModelChoice()
    budget: Budget = Budget()
    service_level_objective: ServiceLevelObjective = ServiceLevelObjective()
    tests: Annotated[tuple[AgentTest, ...], Meta(max_length=200)] = ()
    data_class: DataClass = "internal"
    owner: Owner | None = None
    retirement: Retirement | None = None
