"""The metrics page: every series of every process, with its labels and what it counts.

The gateway's and the control plane's come from the objects that hold them. The node agent and the hosts write their
pages as text; what their series say stands here, and a test finds those that don't.
"""

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase

from chimera.entrypoints.admission.server import AdmissionMetrics
from chimera.entrypoints.control_plane.conditions import LABELS, ConditionMetrics
from chimera.entrypoints.control_plane.http import Metrics
from chimera.entrypoints.control_plane.leading import Leading
from chimera.entrypoints.control_plane.upkeep_metrics import UpkeepMetrics
from chimera.entrypoints.operator.app import OperatorMetrics
from chimera.gateway.metrics import GatewayMetrics
from chimera.platform.upkeep.service import Progress
from docs.generator.tables import code, head, table

Series = tuple[str, str, tuple[str, ...], str]
"""A name as a scrape has it, its type, its labels, and what it says."""

OF_CELL = ("cell", "tenant", "framework")
NODE: tuple[Series, ...] = (
    ("chimera_cell_hosts", "gauge", OF_CELL, "Hosts of a cell."),
    ("chimera_cell_hosts_wanted", "gauge", OF_CELL, "Hosts that the autoscaler wants for it."),
    ("chimera_cell_calls_in_flight", "gauge", OF_CELL, "Calls in flight on its hosts."),
    ("chimera_host_incidents_total", "counter", (), "Hosts that died."),
)
HOST: tuple[Series, ...] = (
    ("chimera_host_calls_total", "counter", ("outcome",), "Calls by outcome."),
    ("chimera_host_call_seconds", "histogram", (), "Time of a call in the host."),
    ("chimera_host_model_calls_total", "counter", (), "Model calls made for agents."),
    ("chimera_host_tool_calls_total", "counter", (), "Tool calls made for agents."),
    ("chimera_host_loads_total", "counter", (), "Agents loaded."),
    ("chimera_host_load_failures_total", "counter", (), "Agents that could not be loaded."),
    ("chimera_host_load_seconds_total", "counter", (), "Time spent loading agents."),
    ("chimera_host_evictions_total", "counter", (), "Agents given up for others' sake."),
    ("chimera_host_unloads_total", "counter", (), "Agents given up because they were idle."),
    ("chimera_host_in_flight", "gauge", (), "Calls that run."),
    ("chimera_host_loaded_agents", "gauge", (), "Agents loaded now."),
    ("chimera_host_agent_capacity", "gauge", (), "Agents that fit, by what was measured."),
    ("chimera_host_agent_bytes", "gauge", (), "Estimated bytes of one loaded agent."),
    ("chimera_host_resident_bytes", "gauge", (), "Bytes of the process in memory."),
    ("chimera_host_memory_limit_bytes", "gauge", (), "Bytes that the process may use."),
    ("chimera_host_threads", "gauge", (), "Threads for blocking frameworks."),
    ("chimera_host_thread_queue", "gauge", (), "Functions that wait for a thread."),
    ("chimera_host_ready", "gauge", (), "1 if the host takes calls."),
)


def gateway() -> list[Series]:
    """The gateway's."""
    return list(_held_by(GatewayMetrics()))


def control_plane() -> list[Series]:
    """The control plane's, with upkeep's and the webhook's."""
    found = [*_held_by(Metrics()), *_held_by(AdmissionMetrics())]
    for family in UpkeepMetrics(Progress()).collect():
        found.append(_series(family, ("kind",)))
    found += [_series(family, LABELS) for family in ConditionMetrics(dict).collect()]
    found += [_series(family, ()) for family in Leading().collect()]
    return found


def operator() -> list[Series]:
    """The operator's."""
    labels = {"chimera_operator_leading": (), "chimera_operator_agents": ("phase",)}
    return [_series(family, labels.get(family.name, ("kind",))) for family in OperatorMetrics(None).collect()]


def page() -> str:
    """The page."""
    parts = [
        head("Metrics"),
        "Each process has a page for Prometheus at `/metrics`; [watch](../guides/watch.md#metrics) says who may read\n"
        "which. A histogram has the series `_bucket`, `_sum` and `_count` behind its name. There are none per agent.\n",
    ]
    for title, series in (
        ("Gateway", gateway()),
        ("Control plane", control_plane()),
        ("Operator", operator()),
        ("Node agent", NODE),
        ("Hosts", HOST),
    ):
        rows = ((code(name), kind, ", ".join(code(one) for one in labels), text) for name, kind, labels, text in series)
        parts.append(f"## {title}\n\n{table(('series', 'type', 'labels', 'says'), rows)}")
    parts.append(
        "A host of agents on Node.js has `calls_total`, `in_flight`, `loaded_agents` and `resident_bytes` of these.\n"
    )
    return "\n".join(parts)


def _held_by(holder: object) -> Iterator[Series]:
    for metric in vars(holder).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            yield _series(family, tuple(metric._labelnames))


def _series(family: Metric, labels: tuple[str, ...]) -> Series:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return name, family.type, labels, family.documentation
