"""From a checked definition to an immutable revision: canonical form, digest, and what each reader of it needs.

The canonical form holds everything of a definition that matters, in one way of writing: quantities as numbers,
defaults filled in, tags sorted, behaviour derived, keys in order, JSON without spaces. Its SHA-256 is the revision's
digest, so the same content has the same digest on any machine, however its YAML is laid out. The digest of the source
bundle (which holds a requirements lock, if any) is part of it.
"""

import hashlib
from typing import Any, Literal

import msgspec
from msgspec import Struct

from chimera.agents import quantities
from chimera.agents.cases import AgentTest
from chimera.agents.derive import behaviour_of
from chimera.agents.errors import Fault, InvalidDefinition
from chimera.agents.reach import resolve_point
from chimera.agents.spec import DataClass, Definition, Owner, Retirement
from chimera.agents.subscriptions import TakenEvents, taken
from chimera.agents.validate import Checked
from chimera_host.contract.agent import AgentDocument, AgentResources, FrameworkName, SourceCode

COMPILER = 1
"""Grows when the canonical form of the same definition changes, so that a client's memory of digests is dropped."""

FRAMEWORKS: dict[str, FrameworkName] = {
    "AutoGen": "autogen",
    "CrewAI": "crewai",
    "LangGraph": "langgraph",
    "function": "function",
}
_PREFIXES = ("capability:", "domain:", "integration:")
_ENCODER = msgspec.json.Encoder(order="sorted")


class Bundle(Struct, frozen=True, kw_only=True):
    """A source folder as it is kept: its digest, its requirements file's where it has one, and its files' paths."""

    digest: str
    requirements: str | None = None
    files: tuple[str, ...] = ()


class CanonicalDefinition(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A definition in its one way of writing. Times are seconds; sizes are in the document's resources."""

    adac: Literal["2.0"]
    agent: AgentDocument
    runtime: str
    tags: tuple[str, ...]
    protocols: tuple[str, ...]
    isolation: Literal["shared", "dedicated"]
    min_instances: int
    max_instances: int
    concurrency_target: int
    idle_timeout: float
    tokens_per_day: int | None
    usd_per_day: float | None
    availability: float
    latency_p95: float
    tests: tuple[AgentTest, ...]
    owner: Owner | None
    retirement: Retirement | None
    calls_per_minute: int | None = None
    subscriptions: tuple[TakenEvents, ...] = ()
    data_class: DataClass = "internal"


class CompiledAgent(Struct, frozen=True, kw_only=True):
    """A revision: its canonical form as bytes and as a value, its digest, and the warnings to show."""

    digest: str
    canonical: bytes
    value: CanonicalDefinition
    warnings: tuple[Fault, ...] = ()


def compile_definition(checked: Checked, *, tenant: str, bundle: Bundle | None = None) -> CompiledAgent:
    """Compile for `tenant`; `bundle` is the source folder's, which a definition that names one must come with."""
    if checked.definition.specification.source is not None and bundle is None:
        message = "the source folder is missing: the definition came without its files"
        allowed = "a definition with its folder, from a file or an archive"
        raise InvalidDefinition([Fault(path="specification.source", message=message, allowed=allowed)])
    return compiled_of(canonical(checked.definition, tenant=tenant, bundle=bundle), checked.warnings)


def compiled_of(value: CanonicalDefinition, warnings: tuple[Fault, ...] = ()) -> CompiledAgent:
    """The revision whose canonical form is `value`."""
    data = _ENCODER.encode(value)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    return CompiledAgent(digest=digest, canonical=data, value=value, warnings=warnings)


def canonical(definition: Definition, *, tenant: str, bundle: Bundle | None) -> CanonicalDefinition:
    """The one way of writing `definition`."""
    specification, scaling = definition.specification, definition.scaling
    tools = tuple(tool.name for tool in definition.tools)
    points = [resolve_point(point, tools) for point in definition.capabilities.integration_points]
    source = None
    if bundle is not None and specification.source is not None:
        source = SourceCode(bundle=bundle.digest, entrypoint=specification.entrypoint, requirements=bundle.requirements)
    document = AgentDocument(
        tenant=tenant,
        name=definition.metadata.name,
        version=definition.metadata.version,
        description=definition.metadata.description,
        framework=FRAMEWORKS[specification.framework],
        resources=AgentResources(
            cpu_millicores=quantities.millicores(specification.resources.cpu),
            memory_bytes=quantities.size(specification.resources.memory),
            storage_bytes=quantities.size(specification.resources.storage),
        ),
        behaviour=behaviour_of(definition),
        primary_functions=definition.capabilities.primary_functions,
        reach=tuple(sorted({point for point in points if point})),
        tools=definition.tools,
        model=definition.model,
        source=source,
        concurrency=scaling.max_instances * scaling.concurrency_target,
    )
    return CanonicalDefinition(
        adac="2.0",
        agent=document,
        runtime=specification.runtime,
        tags=sort_tags(definition.metadata.tags),
        protocols=tuple(sorted({protocol.lower() for protocol in definition.capabilities.communication_protocols})),
        isolation=definition.isolation,
        min_instances=scaling.min_instances,
        max_instances=scaling.max_instances,
        concurrency_target=scaling.concurrency_target,
        idle_timeout=quantities.seconds(scaling.idle_timeout),
        tokens_per_day=definition.budget.tokens_per_day,
        usd_per_day=definition.budget.usd_per_day,
        availability=definition.service_level_objective.availability,
        latency_p95=quantities.seconds(definition.service_level_objective.latency_p95),
        tests=definition.tests,
        owner=definition.owner,
        retirement=definition.retirement,
        calls_per_minute=scaling.calls_per_minute,
        subscriptions=tuple(taken(one) for one in definition.subscriptions),
        data_class=definition.data_class,
    )


def sort_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    """Capability, domain and integration tags in that order, then those without a prefix; each sorted, each once."""

    def key(tag: str) -> tuple[int, str]:
        for index, prefix in enumerate(_PREFIXES):
            if tag.startswith(prefix):
                return index, tag
        return len(_PREFIXES), tag

    return tuple(sorted(set(tags), key=key))


_DECODER = msgspec.json.Decoder(CanonicalDefinition)


def read_canonical(data: bytes) -> CanonicalDefinition:
    """The value of a stored canonical form."""
    return _DECODER.decode(data)


def document_bytes(value: CanonicalDefinition) -> bytes:
    """The part that hosts get, as JSON."""
    return _ENCODER.encode(value.agent)


def plain(value: CanonicalDefinition) -> dict[str, Any]:
    """The canonical form as JSON data, for people and for `diff`."""
    data: dict[str, Any] = msgspec.to_builtins(value)
    return data
