"""An agent's compiled document: what a revision's digest is taken over, and what a host is given to load."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from chimera_host.contract.behaviour import Behaviour
from chimera_host.contract.tools import Tool

FrameworkName = Literal["autogen", "crewai", "langgraph", "function"]
Digest = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$")]


class ModelChoice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which model an agent uses (a name of the gateway's settings) and how."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")] = "default"
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    seed: int | None = None


class SourceCode(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Code that an agent brings: a bundle by digest, what to call in it, and the runtime its lock makes."""

    bundle: Digest
    entrypoint: str | None = None
    requirements: Digest | None = None


class AgentResources(Struct, frozen=True, kw_only=True):
    """What an agent may use of its host: CPU in millicores, memory and storage in bytes."""

    cpu_millicores: int
    memory_bytes: int
    storage_bytes: int


class AgentDocument(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a host loads: everything about an agent that decides how it behaves, and nothing else of its definition.

    `scripted` says that none of its tools is ever run or connected to: each call is a trial that answers for them.
    """

    tenant: str
    name: str
    version: str
    description: str
    framework: FrameworkName
    resources: AgentResources
    behaviour: Behaviour
    primary_functions: tuple[str, ...] = ()
    reach: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    model: ModelChoice = ModelChoice()
    source: SourceCode | None = None
    concurrency: int = 10
    scripted: bool = False
    contract: int = 1
