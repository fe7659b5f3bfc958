"""How much a cluster is needed: from agents and calls to cells, pods, nodes and dollars a month, as pure rules.

Agents cost next to nothing, since they are records; what costs is pods. A framework's pods are the greatest of three
numbers: what Knative's autoscaler makes of the calls in flight, what the calls take of CPU, and what loaded agents take
of memory. Pods that are kept warm come on top where they are more than all of these. Everything grows with what it
stands for and nothing falls, so neither does a cost.

What a pod takes of a node is what it requests, or what it was measured to use where that is more. Figures of hosts are
those of [How it grows](docs/scale.md), the lowest of a range for a rate, the highest for a size. Prices are a cloud's
list, with their day: values to put one's own in place of.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from chimera.platform.cells import FRAMEWORK_BYTES, LARGE, MIB, STANDARD
from chimera.platform.model import ResourceClass

Measured = Literal["autogen", "langgraph", "crewai"]
"""Frameworks of whose hosts there are figures."""
GIB = 1024**3
HOURS = 730.0
"""Hours of a month, as clouds count them."""


# -- what a pod takes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What one pod requests of its node."""

    cpu_millicores: int
    memory_bytes: int

    def and_also(self, other: "Request") -> "Request":
        """Both together."""
        return Request(
            cpu_millicores=self.cpu_millicores + other.cpu_millicores,
            memory_bytes=self.memory_bytes + other.memory_bytes,
        )


QUEUE_PROXY = Request(cpu_millicores=25, memory_bytes=0)
"""Knative's sidecar in each pod of a cell: what it requests where nobody set it otherwise (config-deployment)."""


def host_request(resources: ResourceClass, share: float) -> Request:
    """What a host requests: a share of what it may use; all of it where its agent has it to itself."""
    share = 1.0 if resources.name == "dedicated" else share
    return Request(
        cpu_millicores=max(1, int(resources.cpu_millicores * share)),
        memory_bytes=int(resources.memory_bytes * share),
    )


def pod_request(resources: ResourceClass, share: float) -> Request:
    """What a pod of a cell requests, with Knative's sidecar in it."""
    return host_request(resources, share).and_also(QUEUE_PROXY)


# -- what a node gives ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """A kind of node: what it has, and how many pods may be on it."""

    name: str
    cores: int
    memory_bytes: int
    disk_gb: int
    pods: int = 110


AGENT_NODE = Machine(name="n2-standard-8", cores=8, memory_bytes=32 * GIB, disk_gb=200)
CONTROL_NODE = Machine(name="n2-standard-4", cores=4, memory_bytes=16 * GIB, disk_gb=100)
SYSTEM_PODS = Request(cpu_millicores=500, memory_bytes=768 * MIB)
"""An allowance, not measured: what the cloud's own pods on each node (network, logs, metrics) request."""
SYSTEM_PODS_COUNT = 10

_MEMORY_STEPS = ((4, 0.25), (4, 0.20), (8, 0.10), (112, 0.06), (math.inf, 0.02))
_CORE_STEPS = ((1, 0.06), (1, 0.01), (2, 0.005), (math.inf, 0.0025))
_EVICTION = 100 * MIB
_KERNEL = 0.05
"""Share of a machine's memory that a node never sees, rounded up from the example in GKE's documentation: a node of 4
cores and 16 GiB has 3920m and 13,498,416 KiB for pods."""


def allocatable(machine: Machine) -> Request:
    """What pods may request of a node of GKE: all but what GKE keeps for itself, by its published steps."""
    cores = machine.cores - _stepped(machine.cores, _CORE_STEPS)
    memory = machine.memory_bytes * (1 - _KERNEL)
    kept = _stepped(memory / GIB, _MEMORY_STEPS) * GIB + _EVICTION
    return Request(cpu_millicores=int(cores * 1000), memory_bytes=int(memory - kept))


def _stepped(amount: float, steps: Iterable[tuple[float, float]]) -> float:
    kept = 0.0
    for width, share in steps:
        part = min(amount, width)
        kept += part * share
        amount -= part
    return kept


def pods_on(request: Request, machine: Machine) -> int:
    """How many such pods fit on one node beside the cloud's own."""
    room = allocatable(machine)
    return max(
        0,
        min(
            (room.cpu_millicores - SYSTEM_PODS.cpu_millicores) // max(1, request.cpu_millicores),
            (room.memory_bytes - SYSTEM_PODS.memory_bytes) // max(1, request.memory_bytes),
            machine.pods - SYSTEM_PODS_COUNT,
        ),
    )


# -- what it costs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """A cloud's list prices in US dollars; `source` says whose and of when."""

    source: str = (
        "on demand in us-central1: machines as SkyPilot's public catalogue has them (v8, commit 006059e), disk, "
        "cluster and database as examples; put those of your region and day in their place"
    )
    agent_node_hour: float = 0.388472
    control_node_hour: float = 0.194236
    disk_gb_month: float = 0.17
    cluster_hour: float = 0.10
    database_month: float = 400.0

    def node_month(self, machine: Machine) -> float:
        """A node with its disk."""
        hour = self.control_node_hour if machine.name == CONTROL_NODE.name else self.agent_node_hour
        return hour * HOURS + machine.disk_gb * self.disk_gb_month


LIST_PRICES = Prices()


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """What pods that always run take: `nodes` is their share of nodes, part of one counted as a part."""

    pods: int
    cpu_millicores: int
    memory_bytes: int
    nodes: float
    usd_per_month: float


def standing(
    pods: Iterable[tuple[Request, int]], *, machine: Machine = AGENT_NODE, prices: Prices = LIST_PRICES
) -> Standing:
    """What so many pods of each kind take and cost while they run, for a warm pool before it is applied."""
    count, cpu, memory, nodes = 0, 0, 0, 0.0
    for request, number in pods:
        fit = pods_on(request, machine)
        count += number
        cpu += request.cpu_millicores * number
        memory += request.memory_bytes * number
        # A pod larger than a node fits on none: it counts as one node, which is less than it would take.
        nodes += number / max(1, fit)
    return Standing(
        pods=count,
        cpu_millicores=cpu,
        memory_bytes=memory,
        nodes=nodes,
        usd_per_month=nodes * prices.node_month(machine),
    )


# -- what is needed ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class HostFigures:
    """What was measured of a host with one framework: CPU of one call with one model call, memory of a loaded agent."""

    cpu_seconds: float
    agent_bytes: int


HOSTS: Mapping[Measured, HostFigures] = {
    "autogen": HostFigures(cpu_seconds=1 / 160, agent_bytes=17_200),
    "langgraph": HostFigures(cpu_seconds=1 / 160, agent_bytes=26_200),
    "crewai": HostFigures(cpu_seconds=1 / 20, agent_bytes=26_200),
}
"""160 calls a second of one host process with AutoGen or LangGraph, 20 with CrewAI (docs/scale.md, "With the number of
calls"); memory of one agent with AutoGen and LangGraph. An agent of CrewAI was measured at less than either."""
GATEWAY_SECONDS = 0.002
"""CPU of the gateway for a call with one model call; a gateway is one process, on one core."""
GATEWAY_BUSY = 0.6
"""Share of a core up to which a gateway is loaded here; above it, waiting grows faster than calls."""
PROCESS = Request(cpu_millicores=250, memory_bytes=256 * MIB)
"""What a control plane, an operator and a gateway request each."""
KNATIVE = Request(cpu_millicores=3 * 800, memory_bytes=3 * 560 * MIB)
"""Activator, autoscaler, controller, webhook and Kourier's gateway, three of each, as their manifests request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """What is wanted. Shares of `mix` count relative to each other; times in seconds.

    `awake` is the share of agents that are called at least once within the idle time-out; `peak` how much more than the
    mean is called at the busiest; `warm` the pods that each cell keeps (`knative.warm_pool`), `most_kept` the bound of
    all of them; `spare` the share of nodes kept free for what doesn't fit together, and for nodes that are replaced.
    """

    agents: int
    calls_per_second: float
    call_seconds: float = 2.0
    mix: Mapping[Measured, float] = field(default_factory=lambda: {"autogen": 1, "langgraph": 1, "crewai": 1})
    tenants: int = 1
    large: float = 0.0
    code_owners: int = 0
    dedicated: int = 0
    awake: float = 1.0
    peak: float = 2.0
    warm: int = 100
    most_kept: int = 1_000
    spare: float = 0.15
    target: float = 10.0
    utilisation: float = 0.7
    request_share: float = 0.5
    replicas: int = 3
    least_nodes: int = 10
    most_nodes: int = 200
    control_nodes: int = 3
    most_cells: int = 200
    max_hosts: int = 1_000
    most_pods: int = 2_500


@dataclass(frozen=True, kw_only=True, slots=True)
class Pods:
    """The pods of one framework and resource class, and the number that decided: concurrency, cpu or memory.

    The last one stands for those that are kept warm beyond what calls need, of whichever cells.
    """

    framework: str
    resources: str
    cells: int
    pods: int
    decided_by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """What is needed. `nodes_needed` is before the pool's bounds, `agent_nodes` within them, `notes` what is short."""

    cells: int
    pods: tuple[Pods, ...]
    host_pods: int
    gateways: int
    nodes_needed: int
    agent_nodes: int
    control_nodes: int
    usd_per_month: float
    usd_per_thousand_calls: float | None
    parts: Mapping[str, float]
    notes: tuple[str, ...]


def size(demand: Demand, prices: Prices = LIST_PRICES) -> Size:
    """What `demand` needs, at its peak."""
    total = sum(demand.mix.values())
    kinds = [
        (framework, resources, share / total * part)
        for framework, share in demand.mix.items()
        for resources, part in ((STANDARD, 1.0 - demand.large), (LARGE, demand.large))
        if share > 0 and part > 0
    ]
    frameworks = sum(share > 0 for share in demand.mix.values())
    found = [_pods(demand, framework, resources, share) for framework, resources, share in kinds]
    # Code of an owner shares with nobody else's: a cell for each framework that it uses, here all of them.
    own = demand.code_owners * frameworks + demand.dedicated
    cells = own + sum(one.cells for one in found)
    kept = max(0, min(cells * demand.warm, demand.most_kept) - sum(one.pods for one in found))
    found.append(Pods(framework="any", resources="standard", cells=own, pods=kept, decided_by="warm"))
    requests = [pod_request(resources, demand.request_share) for _, resources, _ in kinds]
    # No pod requests less than a standard one, so what calls take from the pool costs no less than the pool did.
    requests.append(pod_request(STANDARD, demand.request_share))
    held = standing(zip(requests, (one.pods for one in found), strict=True), prices=prices)
    needed = math.ceil(held.nodes * (1 + demand.spare))
    agent_nodes = min(max(needed, demand.least_nodes), demand.most_nodes)
    gateways = max(demand.replicas, math.ceil(demand.calls_per_second * demand.peak * GATEWAY_SECONDS / GATEWAY_BUSY))
    parts = {
        "agent nodes": agent_nodes * prices.node_month(AGENT_NODE),
        "control nodes": demand.control_nodes * prices.node_month(CONTROL_NODE),
        "cluster": prices.cluster_hour * HOURS,
        "database": prices.database_month,
    }
    month = sum(parts.values())
    calls = demand.calls_per_second * HOURS * 3600
    return Size(
        cells=cells,
        pods=tuple(found),
        host_pods=held.pods,
        gateways=gateways,
        nodes_needed=needed,
        agent_nodes=agent_nodes,
        control_nodes=demand.control_nodes,
        usd_per_month=month,
        usd_per_thousand_calls=month / calls * 1000 if calls else None,
        parts=parts,
        notes=tuple(_notes(demand, found, needed, gateways)),
    )


def _pods(demand: Demand, framework: Measured, resources: ResourceClass, share: float) -> Pods:
    figures = HOSTS[framework]
    rate = demand.calls_per_second * demand.peak * share
    request = host_request(resources, demand.request_share)
    # A pod's agents and its framework stay within what it requested, which the node is sure to have.
    room = max(MIB, request.memory_bytes - FRAMEWORK_BYTES[framework])
    cells = min(demand.tenants, math.ceil(demand.agents * share))
    wanted = {
        "concurrency": rate * demand.call_seconds / (demand.target * demand.utilisation),
        "cpu": rate * figures.cpu_seconds / (request.cpu_millicores / 1000),
        "memory": demand.agents * share * demand.awake * figures.agent_bytes / room,
    }
    by = max(wanted, key=lambda name: (math.ceil(wanted[name]), wanted[name]))
    return Pods(framework=framework, resources=resources.name, cells=cells, pods=math.ceil(wanted[by]), decided_by=by)


def _notes(demand: Demand, found: Iterable[Pods], needed: int, gateways: int) -> Iterable[str]:
    cells = sum(one.cells for one in found)
    if cells > demand.most_cells:
        yield f"{cells} cells are wanted and `knative.most_cells` is {demand.most_cells}: what is beyond waits"
    pods = sum(one.pods for one in found)
    if demand.most_pods and pods > demand.most_pods:
        yield f"{pods} pods are needed and `knative.most_pods` is {demand.most_pods}: a quota refuses what is beyond"
    for one in found:
        if one.decided_by != "warm" and one.pods > one.cells * demand.max_hosts:
            yield f"{one.framework} needs {one.pods} pods and a cell has {demand.max_hosts} at most"
    if needed > demand.most_nodes:
        yield f"{needed} nodes are needed and the pool ends at {demand.most_nodes}: calls beyond it wait, then fail"
    room, busy = allocatable(CONTROL_NODE), math.ceil(GATEWAY_BUSY * 1000)
    gateway = max(PROCESS.cpu_millicores, busy) if gateways > demand.replicas else PROCESS.cpu_millicores
    cpu = KNATIVE.cpu_millicores + 2 * demand.replicas * PROCESS.cpu_millicores + gateways * gateway
    # One node may be gone, and what ran there must run on the others.
    there = (demand.control_nodes - 1) * (room.cpu_millicores - SYSTEM_PODS.cpu_millicores)
    if cpu > there:
        yield (
            f"with one control node gone the others have {there / 1000:.1f} cores, and the platform's pods need "
            f"{cpu / 1000:.1f}: let gateways run on agent nodes, or add control nodes"
        )
