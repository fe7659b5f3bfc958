"""Upkeep's metrics, shown by the control plane that does the work: of several processes one, so nothing counts twice.

They are what the last pass over each kind found and left, as it is stored: a scrape asks the database nothing, and the
totals outlive the process.
"""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from chimera.platform.upkeep.service import Progress

_GAUGES = {
    "rows": "Rows of each kind, estimated when upkeep looked through it last.",
    "bytes": "Bytes that a kind takes, estimated likewise.",
    "oldest": "Age of the row that goes first, in seconds: since it ended, or since it was made.",
    "keep": "How long rows of a kind are kept, in seconds; none for what is kept for ever.",
    "finished": "When upkeep last came to the end of a kind, in seconds since the epoch.",
    "seconds": "How long that took, pauses included.",
    "failures": "How often upkeep of a kind has failed since it last came to its end.",
}
_NAMES = {"oldest": "oldest_seconds", "keep": "keep_seconds", "finished": "finished_timestamp_seconds"}


class UpkeepMetrics(Collector):
    """Makes the series when a page is asked for."""

    def __init__(self, progress: Progress) -> None:
        """Show `progress`."""
        self._progress = progress

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        for field, text in _GAUGES.items():
            gauge = GaugeMetricFamily(f"chimera_upkeep_{_NAMES.get(field, field)}", text, labels=["kind"])
            for kind in self._progress.kinds:
                if (value := getattr(kind, field)) is not None:
                    gauge.add_metric([kind.kind], value)
            yield gauge
        removed = CounterMetricFamily("chimera_upkeep_removed", "Rows removed so far.", labels=["kind"])
        for kind in self._progress.kinds:
            removed.add_metric([kind.kind], kind.removed)
        yield removed
