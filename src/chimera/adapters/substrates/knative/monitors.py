"""What Prometheus' operator is told to read: the platform's pages, and those of Knative's sidecar in each host's pod.

A page of a process shows no secret and takes no key, so a network policy lets in Prometheus' namespace alone. A host's
own page wants the host's key, which nobody but gateways has; what queue-proxy counts is there for each pod.
"""

from typing import Any

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.netpolicies import HOST

Json = dict[str, Any]

GROUP, VERSION = "monitoring.coreos.com", "v1"
INTERVAL = "15s"
SIDECAR_PORT = "http-usermetric"
"""Of queue-proxy: requests of its pod by code, and their times (`pkg/apis/serving/v1/revision_helpers.go`)."""


def services(meta: Json, chosen: dict[str, str], port: str) -> Json:
    """Read `/metrics` at the port of this name, of each pod behind the Services that are chosen."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "ServiceMonitor",
        "metadata": meta,
        "spec": {
            "selector": {"matchLabels": chosen},
            "endpoints": [{"port": port, "path": "/metrics", "interval": INTERVAL}],
        },
    }


def pods(meta: Json, chosen: dict[str, str], port: str) -> Json:
    """Read `/metrics` at the port of this name of each pod: for what no Service stands before."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "PodMonitor",
        "metadata": meta,
        "spec": {
            "selector": {"matchLabels": chosen},
            "podMetricsEndpoints": [{"port": port, "path": "/metrics", "interval": INTERVAL}],
        },
    }


def hosts(meta: Json) -> Json:
    """Read what queue-proxy counts in each pod of a cell; its cell's Service goes with it as a label."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "PodMonitor",
        "metadata": meta,
        "spec": {
            "selector": {"matchLabels": HOST},
            "podTargetLabels": [names.KNATIVE_SERVICE, names.PREFIX + "framework"],
            "podMetricsEndpoints": [{"port": SIDECAR_PORT, "path": "/metrics", "interval": INTERVAL}],
        },
    }
