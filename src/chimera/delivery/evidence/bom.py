"""The bill of materials of a revision, as CycloneDX 1.6 JSON (ECMA-424): all that decides how the agent behaves.

It says what is known of a revision, and nothing of the time it was asked: the same revision, on the same release with
the same model behind its name, has the same bytes. So its digest can stand in a provenance statement.

- The runtime's packages are those of its lock, by name, version and package URL. Which of a package's files a machine
  installs depends on the machine; the lock pins all of them by their hashes, and stands here as a file with its digest.
- The model is a component with a model card. What its provider says of it isn't known here, and not made up: the card
  says what the agent uses it for and with which parameters.
- Prompts are data: the digest is over all of the behaviour, so a changed word changes it.
- Other agents, MCP servers by address and functions elsewhere are services: they run on the other side of a border.

The format is written here and not by a library. The one for Python has no model cards, and puts a random serial number
and the time into each document. The schema that CycloneDX publishes judges what is written, in tests.
"""

import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from chimera.agents.compile import CompiledAgent
from chimera.agents.images import parse_image
from chimera.agents.requirements import read_lock
from chimera_host.contract.tools import AgentTool, FunctionTool, McpTool, MessageTool, Tool

SPEC = "1.6"
MEDIA_TYPE = "application/vnd.cyclonedx+json"
PLATFORM = "chimera-ecosystem"
AGENT, MODEL, PROMPTS = "agent", "model", "prompts"
_NAMESPACE = uuid.UUID("b7d9a6c8-2a55-5a0e-9a5b-6a4f1f6f9c11")
_NODE, _PYTHON = "node:18-alpine", "python:3.11-slim"
_ENCODER = msgspec.json.Encoder(order="sorted")

Json = dict[str, Any]


class Lockfile(Struct, frozen=True, kw_only=True):
    """A lock of Python packages: its name in the bill, the SHA-256 of its text in hexadecimal, and what it locks."""

    name: str
    digest: str
    lines: tuple[str, ...]


def lockfile(name: str, text: str) -> Lockfile:
    """A lock from its text; raises `InvalidDefinition` where it isn't one."""
    lines = read_lock(text, file=name).lines
    return Lockfile(name=name, digest=hashlib.sha256(text.encode()).hexdigest(), lines=lines)


class KnownModel(Struct, frozen=True, kw_only=True):
    """What the settings say of the model that an agent names: who serves it, and its name there."""

    provider: str
    model: str | None = None


class Materials(Struct, frozen=True, kw_only=True):
    """What goes into a revision beside its own definition."""

    release: str
    runtime: Lockfile | None = None
    requirements: Lockfile | None = None
    models: Mapping[str, KnownModel] = {}


def bill_of_materials(agent: CompiledAgent, materials: Materials) -> bytes:
    """The document, in one way of writing."""
    value = agent.value
    parts = [
        *_runtime(agent, materials),
        *_own(agent, materials),
        _model(agent, materials),
        *_functions(value.agent.tools),
    ]
    packages = [
        *_packages("runtime", materials.runtime),
        *_packages("requirements", materials.requirements),
    ]
    services = list(_services(agent))
    direct = sorted({one["bom-ref"] for one in (*parts, *services)})
    document: Json = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": "",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": AGENT,
                "group": value.agent.tenant,
                "name": value.agent.name,
                "version": value.agent.version,
                "description": value.agent.description,
                "hashes": [_hash(agent.digest.removeprefix("sha256:"))],
                "properties": _properties(
                    framework=value.agent.framework,
                    isolation=value.isolation,
                    revision=agent.digest,
                    owner=value.owner.team if value.owner else None,
                ),
            },
            "tools": {"components": [{"type": "application", "name": PLATFORM, "version": materials.release}]},
        },
        "components": sorted((*parts, *packages), key=lambda one: str(one["bom-ref"])),
        "services": services,
        "dependencies": [
            {"ref": AGENT, "dependsOn": direct},
            *_held(parts, packages),
        ],
    }
    # The number is of the content, so that the same bill has the same one.
    document["serialNumber"] = uuid.uuid5(_NAMESPACE, hashlib.sha256(_ENCODER.encode(document)).hexdigest()).urn
    return _ENCODER.encode(document)


def _runtime(agent: CompiledAgent, materials: Materials) -> Iterator[Json]:
    runtime = agent.value.runtime
    if runtime not in (_PYTHON, _NODE):
        yield _image(runtime)
        return
    language, _, version = runtime.partition(":")
    yield {"type": "platform", "bom-ref": "language", "name": language, "version": version.partition("-")[0]}
    yield {"type": "framework", "bom-ref": "host", "name": "chimera-host", "version": materials.release}
    if materials.runtime is not None:
        yield _file("runtime", materials.runtime.name, materials.runtime.digest)


def _image(runtime: str) -> Json:
    """The image that an agent names; of one named by digest and no tag, that is the version."""
    found = parse_image(runtime)
    if found is None:  # a revision that an earlier release compiled
        return {"type": "container", "bom-ref": "image", "name": runtime}
    version = found.tag or found.digest or "latest"
    component: Json = {"type": "container", "bom-ref": "image", "name": found.repository, "version": version}
    if found.digest:
        last = found.path.rpartition("/")[2]
        component["hashes"] = [_hash(found.digest.removeprefix("sha256:"))]
        component["purl"] = (
            f"pkg:oci/{_quoted(last)}@{_quoted(found.digest)}?repository_url={_quoted(found.repository)}"
        )
    return component


def _own(agent: CompiledAgent, materials: Materials) -> Iterator[Json]:
    """What the agent brings itself."""
    document = agent.value.agent
    prompts = hashlib.sha256(_ENCODER.encode(document.behaviour)).hexdigest()
    yield {
        "type": "data",
        "bom-ref": PROMPTS,
        "name": "prompts and behaviour",
        "hashes": [_hash(prompts)],
        "data": [{"type": "configuration", "name": document.framework, "classification": "internal"}],
    }
    if document.source is not None:
        yield _file("bundle", "source folder", document.source.bundle.removeprefix("sha256:"))
    if materials.requirements is not None:
        yield _file("requirements", materials.requirements.name, materials.requirements.digest)


def _model(agent: CompiledAgent, materials: Materials) -> Json:
    document = agent.value.agent
    choice, known = document.model, materials.models.get(document.model.name)
    component: Json = {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": (known.model if known is not None else None) or choice.name,
        "modelCard": {
            "modelParameters": {
                "task": "text-generation",
                "inputs": [{"format": "text"}],
                "outputs": [{"format": "text"}],
            },
            "considerations": {"useCases": list(document.primary_functions)},
            "properties": _properties(
                max_tokens=choice.max_tokens, seed=choice.seed, temperature=choice.temperature, top_p=choice.top_p
            ),
        },
        "properties": _properties(name=choice.name, provider=known.provider if known is not None else None),
    }
    return component


def _functions(tools: Sequence[Tool]) -> Iterator[Json]:
    """Tools that run beside the agent: functions of its folder, and servers that a command starts."""
    for tool in tools:
        if isinstance(tool, FunctionTool):
            yield {
                "type": "library",
                "bom-ref": f"tool/{tool.name}",
                "name": tool.function,
                "description": tool.description or "",
                "properties": _limits(tool),
            }
        elif isinstance(tool, McpTool) and tool.command is not None:
            yield {
                "type": "application",
                "bom-ref": f"tool/{tool.name}",
                "name": tool.command[0],
                "description": f"MCP server: {', '.join(tool.allow)}",
                "properties": [*_properties(command=" ".join(tool.command)), *_limits(tool)],
            }


def _services(agent: CompiledAgent) -> Iterator[Json]:
    function = agent.value.agent.behaviour.function
    if function is not None and function.endpoint is not None:
        yield {
            "bom-ref": "function",
            "name": "function",
            "endpoints": [function.endpoint.url],
            "authenticated": function.endpoint.credential is not None,
            "x-trust-boundary": True,
        }
    for tool in agent.value.agent.tools:
        service: Json = {"bom-ref": f"tool/{tool.name}", "name": tool.name, "properties": _limits(tool)}
        if isinstance(tool, McpTool) and tool.url is not None:
            yield {
                **service,
                "description": f"MCP server: {', '.join(tool.allow)}",
                "endpoints": [tool.url],
                "authenticated": bool(tool.credentials),
                "x-trust-boundary": True,
            }
        elif isinstance(tool, AgentTool | MessageTool):
            yield {**service, "name": f"agent/{tool.agent}", "authenticated": True, "x-trust-boundary": False}


def _packages(lock_name: str, lock: Lockfile | None) -> Iterator[Json]:
    if lock is None:
        return
    for line in lock.lines:
        pinned = line.partition(" --hash")[0]
        requirement, _, marker = pinned.partition(" ; ")
        name, _, version = requirement.partition("==")
        bare = name.partition("[")[0]
        component: Json = {
            "type": "library",
            "bom-ref": f"{lock_name}/{requirement}" + (f";{marker}" if marker else ""),
            "name": bare,
            "version": version,
            "purl": f"pkg:pypi/{_quoted(bare)}@{_quoted(version)}",
        }
        if marker:
            component["scope"] = "optional"
            component["properties"] = _properties(marker=marker)
        yield component


def _held(parts: Sequence[Json], packages: Sequence[Json]) -> Iterator[Json]:
    """A lock depends on what it locks; all others on nothing that is known."""
    for one in parts:
        reference = str(one["bom-ref"])
        held = sorted(str(package["bom-ref"]) for package in packages if package["bom-ref"].startswith(reference + "/"))
        if held:
            yield {"ref": reference, "dependsOn": held}


def _file(reference: str, name: str, digest: str) -> Json:
    return {"type": "file", "bom-ref": reference, "name": name, "hashes": [_hash(digest)]}


def _limits(tool: Tool) -> list[Json]:
    return _properties(
        credentials=", ".join(sorted(tool.credentials.values())) if isinstance(tool, FunctionTool | McpTool) else None,
        deadline_seconds=tool.limits.deadline_seconds,
        egress=", ".join(tool.limits.egress) or None,
    )


def _properties(**values: str | int | float | None) -> list[Json]:
    return [
        {"name": f"chimera:{name}", "value": value if isinstance(value, str) else f"{value:g}"}
        for name, value in sorted(values.items())
        if value is not None and value != ""
    ]


def _hash(digest: str) -> Json:
    return {"alg": "SHA-256", "content": digest}


def _quoted(text: str) -> str:
    return quote(text, safe="")
