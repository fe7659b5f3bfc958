"""Whether this control plane is the one that keeps cells: of several on one database exactly one should say so."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Leading(Collector):
    """Says it as a metric; `now` is set by whoever holds the lease."""

    def __init__(self, now: bool = False) -> None:
        """Lead from now on, where nobody else could."""
        self.now = now

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        text = "1 if this control plane is the one that keeps cells."
        yield GaugeMetricFamily("chimera_control_plane_leading", text, value=float(self.now))
