"""The operator's own health and metrics; nobody else asks it anything."""

from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from chimera.entrypoints.operator.service import Operator

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class OperatorMetrics(Collector):
    """Made when a page is asked for; an operator that doesn't lead has no agents to show."""

    def __init__(self, operator: Operator | None) -> None:
        """Show `operator`; without one, what there is to show."""
        self._operator = operator

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        operator = self._operator
        leading = GaugeMetricFamily("chimera_operator_leading", "1 if this operator is the one that works.")
        agents = GaugeMetricFamily("chimera_operator_agents", "Agents as resources, by phase.", labels=["phase"])
        rollouts = GaugeMetricFamily("chimera_operator_rollouts", "Rollouts as resources, by phase.", labels=["phase"])
        staying = GaugeMetricFamily(
            "chimera_operator_staying",
            "Agents in service whose resources are gone, since taking them out of service was refused.",
        )
        passes = CounterMetricFamily("chimera_operator_passes", "Passes over all objects of a kind.", labels=["kind"])
        failures = GaugeMetricFamily(
            "chimera_operator_failures", "Passes that failed since the last that didn't.", labels=["kind"]
        )
        statuses = CounterMetricFamily("chimera_operator_statuses", "Statuses that were written.", labels=["kind"])
        if operator is not None:
            leading.add_metric([], float(operator.leading))
            staying.add_metric([], len(operator.agents.staying) if operator.leading else 0)
            for phase, count in operator.agents.phases.items() if operator.leading else ():
                agents.add_metric([phase], count)
            for phase, count in operator.rollouts.phases.items() if operator.leading else ():
                rollouts.add_metric([phase], count)
            for loop in operator.loops:
                passes.add_metric([loop.kind], loop.passes)
                failures.add_metric([loop.kind], loop.failures)
            for kind, writer in operator.writers.items():
                statuses.add_metric([kind], writer.written)
        yield from (leading, agents, rollouts, staying, passes, failures, statuses)


def make_app(operator: Operator) -> web.Application:
    """`/livez`, `/readyz` and `/metrics`. One that waits for its turn is as ready as the one that works."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(OperatorMetrics(operator))

    async def healthy(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def page(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": METRICS_TYPE})

    app = web.Application()
    app.router.add_get("/livez", healthy)
    app.router.add_get("/readyz", healthy)
    app.router.add_get("/metrics", page)
    return app
