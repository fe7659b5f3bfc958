"""Placement: which cell an agent belongs to, as a pure rule over its compiled definition.

Agents share a cell when they share everything that a process can't separate: tenant, framework, runtime, requirements,
isolation domain and resource class. Pure declarations of a tenant share one domain; code shares only with the same
owner's (without an owner: with nobody's); a dedicated agent shares with none. So 12,000 declarative agents of three
frameworks make a handful of cells (`MOST_DECLARATIVE_CELLS` at most for a tenant, whatever its agents say), and the
number of cells grows with owners of code, not with agents.

A host's memory is not the sum of its agents': it is what the framework takes and room for the agents in use (measured;
the least recently used are unloaded above it). Two classes are enough: agents that ask for more than 1 GiB or one core
go to large hosts. A dedicated agent's own figures are taken literally, on top of what its framework takes.
"""

import hashlib
from typing import Literal, get_args

import msgspec

from chimera.agents.compile import CanonicalDefinition
from chimera.agents.spec import NODE_RUNTIME, PYTHON_RUNTIME
from chimera.platform.model import CellSpec, ResourceClass, RuntimeClass
from chimera_host.contract.agent import FrameworkName

MIB = 1024**2
STANDARD = ResourceClass(name="standard", cpu_millicores=1000, memory_bytes=2048 * MIB)
LARGE = ResourceClass(name="large", cpu_millicores=2000, memory_bytes=6144 * MIB)
MOST_DECLARATIVE_CELLS = len(get_args(FrameworkName)) * len((STANDARD, LARGE))
"""Of one tenant, on the platform's own runtime: agents on Node bring code, and one machine runs no custom images."""

FRAMEWORK_BYTES = {"autogen": 192 * MIB, "crewai": 512 * MIB, "langgraph": 192 * MIB, "function": 96 * MIB}


def runtime_class(value: CanonicalDefinition) -> RuntimeClass:
    """What `value` must share with the other agents of its cell."""
    document = value.agent
    kind = _kind(value.runtime)
    return RuntimeClass(
        tenant=document.tenant,
        framework=document.framework,
        runtime=kind,
        isolation=_isolation(value),
        resources=_resources(value),
        requirements=document.source.requirements if document.source else None,
        image=value.runtime if kind == "image" else None,
    )


def cell_id(runtime: RuntimeClass) -> str:
    """A name to read and a digest to be sure: `default-autogen-standard-1f2e3d4c5b6a7980`.

    The digest is long enough that nobody finds an owner's name that falls into another's cell.
    """
    digest = hashlib.sha256(msgspec.json.encode(runtime, order="sorted")).hexdigest()[:16]
    return f"{runtime.tenant}-{runtime.framework}-{runtime.resources.name}-{digest}"


def tenant_of_cell(cell: str) -> str:
    """The tenant that a cell's name begins with: what stands behind it has no hyphens."""
    return cell.rsplit("-", 3)[0]


def cell_spec(value: CanonicalDefinition, *, max_hosts: int) -> CellSpec:
    """The cell of `value` as one agent sees it; a cell's minimum is the highest of its agents'."""
    runtime = runtime_class(value)
    alone = value.isolation == "dedicated"
    return CellSpec(
        cell=cell_id(runtime),
        runtime_class=runtime,
        min_hosts=value.min_instances,
        max_hosts=min(max_hosts, value.max_instances) if alone else max_hosts,
        target=float(value.concurrency_target) if alone else 10.0,
        idle_timeout=value.idle_timeout if alone else 300.0,
    )


def unservable_here(value: CanonicalDefinition) -> str | None:
    """Why one machine can't run the agent, with the next step; None where it can."""
    if _kind(value.runtime) == "image":
        return (
            f"the agent's runtime is the image {value.runtime}, which needs Kubernetes; "
            f"use {PYTHON_RUNTIME} or {NODE_RUNTIME} on one machine"
        )
    return None


def unservable_in_cluster(value: CanonicalDefinition) -> str | None:
    """Why a cluster can't run the agent, with the next step; None where it can."""
    source = value.agent.source
    if source is not None and source.requirements is not None and _kind(value.runtime) != "image":
        return (
            "the agent has a requirements file of its own, which no host image holds, and a pod installs nothing; "
            "build an image from the host's, and name it as the agent's `runtime`"
        )
    return None


def _kind(runtime: str) -> Literal["python", "node", "image"]:
    if runtime == PYTHON_RUNTIME:
        return "python"
    return "node" if runtime == NODE_RUNTIME else "image"


def _isolation(value: CanonicalDefinition) -> str:
    tenant, name = value.agent.tenant, value.agent.name
    if value.isolation == "dedicated":
        return f"agent:{tenant}/{name}"
    brings_code = value.agent.source is not None or any(
        getattr(tool, "command", None) is not None for tool in value.agent.tools
    )
    if not brings_code:
        return f"tenant:{tenant}"
    return f"owner:{tenant}/{value.owner.team}" if value.owner else f"agent:{tenant}/{name}"


def _resources(value: CanonicalDefinition) -> ResourceClass:
    asked = value.agent.resources
    if value.isolation == "dedicated":
        return ResourceClass(
            name="dedicated",
            cpu_millicores=asked.cpu_millicores,
            memory_bytes=asked.memory_bytes + FRAMEWORK_BYTES[value.agent.framework],
        )
    return STANDARD if asked.cpu_millicores <= 1000 and asked.memory_bytes <= 1024 * MIB else LARGE
