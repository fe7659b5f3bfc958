"""The handler for conditions, and their metrics.

Any control plane answers, from the database. The gauges are shown by the one that keeps the conditions: of several
processes one, so nothing counts twice.
"""

from collections.abc import Callable, Iterator, Mapping

from aiohttp import web
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from chimera.adapters.storage.conditions import StoredConditions
from chimera.entrypoints.control_plane.http import PAGE, Handler, answer, page_size
from chimera.entrypoints.published.conditions import ConditionPage

LABELS = ("type", "status", "reason")
Counts = Callable[[], Mapping[tuple[str, str, str], int]]


class ConditionHandlers:
    """The handlers by the names of their operations."""

    def __init__(self, stored: StoredConditions) -> None:
        """Answer from `stored`."""
        self._stored = stored

    def handlers(self) -> dict[str, Handler]:
        """The handlers by the names of their operations."""
        return {"list_conditions": self.list}

    async def list(self, request: web.Request) -> web.StreamResponse:
        """A page of subjects, or the one that is named."""
        limit = page_size(request, ("subject", *PAGE))
        if (subject := request.query.get("subject")) is not None:
            found = await self._stored.of(subject)
            return answer(ConditionPage(subjects=[] if found is None else [found]))
        rows = await self._stored.page(request.query.get("after", ""), limit + 1)
        more = len(rows) > limit
        return answer(ConditionPage(subjects=rows[:limit], next=rows[limit - 1].subject if more else None))


class ConditionMetrics(Collector):
    """Makes the series when a page is asked for."""

    def __init__(self, counts: Counts) -> None:
        """Show `counts`: subjects by type, status and reason of a condition."""
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        gauge = GaugeMetricFamily(
            "chimera_conditions",
            "Cells, and the home, that have a condition of this type, status and reason.",
            labels=LABELS,
        )
        for labels, count in sorted(self._counts().items()):
            gauge.add_metric(labels, count)
        yield gauge
