"""The gateway's metrics: totals by outcome, protocol and model.

No series per agent: twelve thousand would drown any store. An agent's own figures are in the log and in its metered
use.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class GatewayMetrics:
    """All of them, in a registry of their own."""

    def __init__(self) -> None:
        """Start at zero."""
        self.registry = CollectorRegistry(auto_describe=True)
        registry = self.registry
        self.calls = Counter(
            "chimera_gateway_calls", "Calls by protocol and outcome.", ("protocol", "outcome"), registry=registry
        )
        self.call_seconds = Histogram(
            "chimera_gateway_call_seconds", "Time of a call at the gateway.", buckets=BUCKETS, registry=registry
        )
        self.refused = Counter(
            "chimera_gateway_refused",
            "Requests refused for who asks or what they may: by the problem's code.",
            ("code",),
            registry=registry,
        )
        self.retries = Counter("chimera_gateway_retries", "Calls placed again, by reason.", ("why",), registry=registry)
        self.model_calls = Counter(
            "chimera_gateway_model_calls", "Model calls by model and outcome.", ("model", "outcome"), registry=registry
        )
        self.model_seconds = Histogram(
            "chimera_gateway_model_seconds", "Time of a model call.", ("model",), buckets=BUCKETS, registry=registry
        )
        self.model_retries = Counter(
            "chimera_gateway_model_retries", "Model calls tried again.", ("model",), registry=registry
        )
        self.model_replays = Counter(
            "chimera_gateway_model_replays", "Stored model answers given again instead of a call.", registry=registry
        )
        self.runs = Counter(
            "chimera_gateway_runs",
            "Calls that asked for a run by a key, or went on with one, by what became of that.",
            ("outcome",),
            registry=registry,
        )
        self.tasks = Counter(
            "chimera_gateway_tasks", "Attempts of tasks by what they came to.", ("outcome",), registry=registry
        )
        self.tasks_running = Gauge("chimera_gateway_tasks_running", "Tasks being worked on.", registry=registry)
        self.task_wait = Histogram(
            "chimera_gateway_task_wait_seconds",
            "How long a task was queued before it was begun.",
            buckets=(*BUCKETS, 3_600.0, 86_400.0),
            registry=registry,
        )
        self.tokens = Counter(
            "chimera_gateway_tokens", "Tokens by model and kind.", ("model", "kind"), registry=registry
        )
        self.in_flight = Gauge("chimera_gateway_in_flight", "Calls in flight.", registry=registry)
        self.held = Gauge("chimera_gateway_held", "Calls that wait for a host.", registry=registry)
        self.routes = Gauge("chimera_gateway_routes", "Live agents known.", registry=registry)
        self.sequence = Gauge("chimera_gateway_route_sequence", "Newest change of a route known.", registry=registry)
        self.audit_entries = Counter(
            "chimera_gateway_audit_entries", "Entries of the audit log written.", registry=registry
        )
        self.audit_lost = Counter(
            "chimera_gateway_audit_lost", "Entries lost because the audit log could not be written.", registry=registry
        )
        self.audit_waiting = Gauge(
            "chimera_gateway_audit_waiting", "Entries of the audit log not written yet.", registry=registry
        )
        self.deliveries = Counter(
            "chimera_gateway_deliveries",
            "Attempts to deliver events by what they came to; `dead` are given up.",
            ("outcome",),
            registry=registry,
        )
        self.deliveries_running = Gauge(
            "chimera_gateway_deliveries_running", "Requests to receivers of events under way.", registry=registry
        )
        self.deliveries_outstanding = Gauge(
            "chimera_gateway_deliveries_outstanding", "Events on their way to receivers, or waiting.", registry=registry
        )
        self.deliveries_behind = Gauge(
            "chimera_gateway_deliveries_behind",
            "Events that the slowest subscription has not had yet, at the gateway that delivers.",
            registry=registry,
        )
        self.event_streams = Gauge("chimera_gateway_event_streams", "Streams of events.", registry=registry)

    def exposition(self) -> bytes:
        """The page for Prometheus."""
        return generate_latest(self.registry)
