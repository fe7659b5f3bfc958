"""The host's metrics as text for Prometheus. No series per agent: twelve thousand of them would drown any store."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class CallMetrics:
    """Counts calls by outcome and how long they took."""

    def __init__(self) -> None:
        """Start at zero."""
        self.outcomes: Counter[str] = Counter()
        self.model_calls = 0
        self.tool_calls = 0
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def ended(self, outcome: str, seconds: float, *, model_calls: int, tool_calls: int) -> None:
        """A call ended with `outcome`: `ok`, or the code of its problem."""
        self.outcomes[outcome] += 1
        self.model_calls += model_calls
        self.tool_calls += tool_calls
        self._seconds += seconds
        self._buckets[bisect_left(BUCKETS, seconds)] += 1

    def refused(self, code: str) -> None:
        """A call was refused before it began."""
        self.outcomes[code] += 1

    def lines(self) -> list[str]:
        """The exposition of these."""
        out = ["# HELP chimera_host_calls_total Calls by outcome.", "# TYPE chimera_host_calls_total counter"]
        out += [
            f'chimera_host_calls_total{{outcome="{name}"}} {count}' for name, count in sorted(self.outcomes.items())
        ]
        out += [
            "# HELP chimera_host_call_seconds Time of a call in the host.",
            "# TYPE chimera_host_call_seconds histogram",
        ]
        below = 0
        for bound, count in zip(BUCKETS, self._buckets, strict=False):
            below += count
            out.append(f'chimera_host_call_seconds_bucket{{le="{bound}"}} {below}')
        below += self._buckets[-1]
        out += [
            f'chimera_host_call_seconds_bucket{{le="+Inf"}} {below}',
            f"chimera_host_call_seconds_sum {self._seconds:.6f}",
            f"chimera_host_call_seconds_count {below}",
        ]
        return out


def exposition(
    calls: CallMetrics, counters: Mapping[str, tuple[str, float]], gauges: Mapping[str, tuple[str, float]]
) -> str:
    """The whole page; `counters` and `gauges` map a name to its help and value."""
    out = calls.lines()
    for kind, metrics in (("counter", counters), ("gauge", gauges)):
        for name, (text, value) in metrics.items():
            out += [
                f"# HELP {name} {text}",
                f"# TYPE {name} {kind}",
                f"{name} {value:g}" if value % 1 else f"{name} {value:.0f}",
            ]
    return "\n".join(out) + "\n"
