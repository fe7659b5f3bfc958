"""The handler for conditions, and their metrics.

Any control plane answers, from the database. The gauges are shown by the one that keeps the conditions: of several
processes one, so nothing counts twice.
"""

from collections.abc import Callable, Iterator, Mapping

from aiohttp import web
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from chimera.adapters.storage.conditions import StoredConditions
from chimera.entrypoints.control_plane.http import BadRequest, Handler, answer
from chimera.entrypoints.published.conditions import ConditionPage
from chimera.entrypoints.published.parameters import DEFAULT_PAGE, LARGEST_PAGE

PARAMETERS = ("subject", "after", "limit")
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
        if unknown := sorted(set(request.query) - set(PARAMETERS)):
            raise BadRequest(f"unknown parameter {unknown[0]!r}", next_step=f"use {', '.join(PARAMETERS)}")
        text = request.query.get("limit", str(DEFAULT_PAGE))
        limit = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
        if not 1 <= limit <= LARGEST_PAGE:
            raise BadRequest(f"limit={text[:20]!r} is no page size", next_step=f"use a number from 1 to {LARGEST_PAGE}")
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
