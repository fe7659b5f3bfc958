"""The sizing page: the formulas beside what they give, made by the module that reckons (`chimera.platform.sizing`)."""

from collections.abc import Iterator

from chimera.platform.cells import FRAMEWORK_BYTES, LARGE, MIB, STANDARD
from chimera.platform.sizing import (
    AGENT_NODE,
    CONTROL_NODE,
    GATEWAY_BUSY,
    GATEWAY_SECONDS,
    GIB,
    HOSTS,
    HOURS,
    LIST_PRICES,
    QUEUE_PROXY,
    SYSTEM_PODS,
    Demand,
    allocatable,
    pod_request,
    pods_on,
    size,
    standing,
)
from docs.generator.tables import head, table

SHARE = 0.5
EXAMPLES = (
    ("the mission, quiet", Demand(agents=12_000, calls_per_second=10)),
    ("the mission, busy", Demand(agents=12_000, calls_per_second=100)),
    ("the same without warm pools", Demand(agents=12_000, calls_per_second=100, warm=0)),
    ("a thousand calls a second", Demand(agents=12_000, calls_per_second=1_000)),
    ("the same with calls of ten seconds", Demand(agents=12_000, calls_per_second=1_000, call_seconds=10)),
    ("ten times the agents", Demand(agents=120_000, calls_per_second=1_000)),
    ("50 teams that bring code", Demand(agents=12_000, calls_per_second=100, code_owners=50)),
)


def page() -> str:
    """The page's text."""
    return "\n".join([head("How large a cluster"), _INTRODUCTION, *_parts()])


def _parts() -> Iterator[str]:
    yield "## What it comes to\n"
    yield "Each with the mean rate of calls, twice as many at the peak, and all agents in use.\n"
    yield table(
        (
            "case",
            "agents",
            "calls/s",
            "cells",
            "pods",
            "nodes for agents",
            "gateways",
            "USD a month",
            "USD per 1,000 calls",
        ),
        [_row(name, demand) for name, demand in EXAMPLES],
    )
    yield _FORMULAS
    yield table(
        ("framework", "CPU of a call", "loaded agent", "framework itself"),
        [
            (
                name,
                f"{figures.cpu_seconds * 1000:.2f} ms",
                f"{figures.agent_bytes / 1000:.1f} KB",
                f"{FRAMEWORK_BYTES[name] // MIB} MiB",
            )
            for name, figures in HOSTS.items()
        ],
    )
    yield _FIGURES
    yield "## What fits on a node\n"
    yield _NODES
    yield table(
        ("node", "cores", "memory", "for pods: CPU", "for pods: memory", "standard pods", "large pods"),
        [
            (
                machine.name,
                str(machine.cores),
                f"{machine.memory_bytes // GIB} GiB",
                f"{allocatable(machine).cpu_millicores}m",
                f"{allocatable(machine).memory_bytes / GIB:.1f} GiB",
                str(pods_on(pod_request(STANDARD, SHARE), machine)),
                str(pods_on(pod_request(LARGE, SHARE), machine)),
            )
            for machine in (AGENT_NODE, CONTROL_NODE)
        ],
    )
    yield "## What warm pods cost\n"
    yield _WARM
    yield table(
        ("pods of each cell, of three cells", "CPU", "memory", "nodes", "USD a month"),
        [_warm(number) for number in (1, 10, 100, 1_000)],
    )
    yield "## Ten to two hundred nodes\n"
    yield _AUTOSCALING
    yield "## Prices\n"
    yield _PRICES
    yield table(
        ("price", "USD"),
        [
            (f"`{name}`", f"{value:g}")
            for name in LIST_PRICES.__dataclass_fields__
            if isinstance(value := getattr(LIST_PRICES, name), float)
        ],
    )


def _row(name: str, demand: Demand) -> tuple[str, ...]:
    found = size(demand)
    nodes = str(found.agent_nodes) if found.nodes_needed <= found.agent_nodes else f"{found.nodes_needed}: too many"
    thousand = f"{found.usd_per_thousand_calls:.3f}" if found.usd_per_thousand_calls else ""
    if found.nodes_needed > found.agent_nodes:
        thousand = ""
    return (
        name,
        f"{demand.agents:,}",
        f"{demand.calls_per_second:,.0f}",
        str(found.cells),
        f"{found.host_pods:,}",
        nodes,
        str(found.gateways),
        f"{found.usd_per_month:,.0f}",
        thousand,
    )


def _warm(number: int) -> tuple[str, ...]:
    held = standing([(pod_request(STANDARD, SHARE), 3 * number)])
    return (
        f"{number:,}",
        f"{held.cpu_millicores / 1000:,.1f} cores",
        f"{held.memory_bytes / GIB:,.0f} GiB",
        f"{held.nodes:,.1f}",
        f"{held.usd_per_month:,.0f}",
    )


_DEFAULT = Demand(agents=1, calls_per_second=1)
_FIT = pods_on(pod_request(STANDARD, SHARE), AGENT_NODE)
_LEAST, _MOST = _DEFAULT.least_nodes, _DEFAULT.most_nodes
_TARGET, _UTILISATION = f"{_DEFAULT.target:g}", f"{_DEFAULT.utilisation:g}"
_KEPT = f"{SYSTEM_PODS.cpu_millicores}m and {SYSTEM_PODS.memory_bytes // MIB} MiB"

_INTRODUCTION = """\
From agents and calls a second to cells, pods, nodes and dollars a month. `chimera size` reckons with your own numbers:

```
chimera size --agents 12000 --calls-per-second 100 --framework autogen=3 --framework crewai=1
```

Agents cost next to nothing; pods cost, and what makes pods is calls in flight. What models cost isn't in any of it,
and is usually more than all of it.
"""

_FORMULAS = f"""
## The formulas

Cells: `tenants * frameworks * resource classes`, one more for each framework that a team with code uses, one for each
dedicated agent. Agents make none.

Pods of a framework and class are the greatest of three, rounded up:

| by | pods |
|---|---|
| concurrency, as Knative's autoscaler | `calls/s * peak * seconds of a call / ({_TARGET} * {_UTILISATION})` |
| CPU | `calls/s * peak * CPU of a call / CPU that a pod requests` |
| memory | `agents in use * memory of a loaded one / (memory that a pod requests - the framework's)` |

Where `knative.warm_pool` keeps more than all of these, `the lesser of cells * warm_pool and most_kept` in all.

The {_TARGET} and the {_UTILISATION} are a cell's target and `knative.utilisation`. A pod requests half of its class
(`knative.request_share`) and {QUEUE_PROXY.cpu_millicores}m for Knative's sidecar.

Gateways: `calls/s * peak * {GATEWAY_SECONDS * 1000:g} ms / {GATEWAY_BUSY:g}`, three at least.

Nodes: `sum of pods / pods that fit on one * {1 + _DEFAULT.spare:.2f}`, between {_LEAST} and {_MOST}; what is more than
needed is for pods that don't fit together and for nodes that are being replaced. A month has {HOURS:g} hours, and the
nodes of the peak are paid for all of it: the autoscaler makes it less.

No result falls when anything wanted grows (property tests), so a limit that holds for more holds for less.

## Where the figures come from
"""

_FIGURES = """
Rates are the lowest and sizes the highest of [what was measured](scale.md#measured) on two cores of an AMD EPYC that
were busy with other work: 160 to 185 calls a second of one host process with AutoGen or LangGraph and 20 to 26 with
CrewAI, with a model that takes half a second; a gateway's 2 ms; 17 and 26 KB for a loaded agent. A loaded agent of
CrewAI is taken to be as large as the largest of the others. On a cluster no pod was loaded to its end: measure yours
before you rely on a number here.

A sleeping cell (`warm_pool = 0`) costs nothing and answers after some seconds
([figures](adr/0021-cells-on-knative.md#figures)); `--warm 0` reckons without pods that wait.
"""

_NODES = f"""\
What GKE keeps for itself is reckoned by its published steps, less 5 % of memory that a node never sees. The cloud's own
pods on each node are an allowance of {_KEPT}, not measured.
"""

_WARM = """\
`knative.warm_pool` keeps 100 pods of each cell waiting for calls, `knative.most_kept` bounds all of them. Many agents
share a cell, so this is paid for each cell, not for each agent. `chimera install` says it before it applies.
"""

_AUTOSCALING = f"""\
Three loops, each with its own pace. Knative adds a pod within seconds when a cell's calls go above
{_DEFAULT.target * _DEFAULT.utilisation:g} for each of its pods. The scheduler finds it a node, or none. GKE's
autoscaler then adds a node for pods that fit nowhere, which takes a minute or two, and takes one away that has been
less than half requested for ten minutes. So between {_LEAST} nodes ({_LEAST * _FIT} standard pods) and {_MOST}
({_MOST * _FIT:,}) the pool follows the peak of the last ten minutes.

A burst that needs more than the free pods of running nodes waits in the gateway for a node: keep as many warm as a
minute's growth needs. `knative.max_hosts` (1,000) bounds a cell, `most_cells` (200) the cells.
"""

_PRICES = f"""\
Prices are {LIST_PRICES.source}.
They are parameters: `--price agent_node_hour=0.31`. Discounts for use or commitment,
traffic, logs and load balancers aren't in them.
"""
