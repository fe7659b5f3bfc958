"""What Prometheus' operator is told to read, against its own schemas.

`schemas/servicemonitor-0.85.json` and `podmonitor-0.85.json` are `openAPIV3Schema` of v1 in
`jsonnet/prometheus-operator/*monitors-crd.json` of github.com/prometheus-operator/prometheus-operator at v0.85.0
(Apache-2.0, a Go module), without descriptions. That a port is one that the pods have, and that labels choose
somebody, no schema says: the manifests of the same installation do.
"""

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from chimera.adapters.substrates.knative.installation import Installation, manifests
from chimera.adapters.substrates.knative.monitors import SIDECAR_PORT
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.testing.schemas import strict

CHOSEN = Installation(knative=KnativeSettings(), database="postgresql://chimera@db.example/chimera", monitors=True)
ALL = manifests(CHOSEN)
MONITORS = [one for one in ALL if one["apiVersion"].startswith("monitoring.coreos.com/")]
SHOWN = [f"{one['kind']} {one['metadata']['name']}" for one in MONITORS]


def judge(one: dict[str, Any]) -> None:
    schema = strict((Path(__file__).parent / "schemas" / f"{one['kind'].lower()}-0.85.json").read_bytes())
    jsonschema.Draft202012Validator(schema).validate(one)


@pytest.mark.parametrize("one", MONITORS, ids=SHOWN)
def test_what_is_read_is_said_as_prometheus_operator_has_it(one: dict[str, Any]) -> None:
    judge(one)


def test_each_monitor_reads_a_port_that_those_whom_it_chooses_have() -> None:
    assert len(MONITORS) == 4
    for one in MONITORS:
        chosen = one["spec"]["selector"]["matchLabels"].items()
        place = one["metadata"]["namespace"]
        if one["kind"] == "ServiceMonitor":
            behind = [other for other in ALL if other["kind"] == "Service" and other["metadata"]["namespace"] == place]
            found = [other for other in behind if chosen <= other["metadata"].get("labels", {}).items()]
            ports = {port["name"] for other in found for port in other["spec"]["ports"]}
            (endpoint,) = one["spec"]["endpoints"]
        elif place == CHOSEN.namespace:
            pods = [other["spec"]["template"] for other in ALL if other["kind"] == "Deployment"]
            found = [pod for pod in pods if chosen <= pod["metadata"]["labels"].items()]
            ports = {port["name"] for pod in found for part in pod["spec"]["containers"] for port in part["ports"]}
            (endpoint,) = one["spec"]["podMetricsEndpoints"]
        else:
            found, ports = [one], {SIDECAR_PORT}  # pods of cells, which Knative makes
            (endpoint,) = one["spec"]["podMetricsEndpoints"]
        assert found and endpoint["port"] in ports, one["metadata"]["name"]


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("ServiceMonitor", ("spec", "endpoints", 0, "port"), 8080),
        ("ServiceMonitor", ("spec", "endpoints", 0, "interval"), "15 seconds"),
        ("ServiceMonitor", ("spec", "endpoints", 0, "portname"), "metrics"),
        ("ServiceMonitor", ("spec", "podMetricsEndpoints"), []),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "path"), None),
        ("PodMonitor", ("spec", "podTargetLabels"), "serving.knative.dev/service"),
        ("PodMonitor", ("spec", "endpoints"), []),
        ("PodMonitor", ("spec", "selector"), "chimera"),
    ],
    ids=str,
)
def test_what_is_wrong_is_found(kind: str, path: tuple[str | int, ...], value: Any) -> None:
    one = copy.deepcopy(next(one for one in MONITORS if one["kind"] == kind))
    *before, last = path
    place: Any = one
    for step in before:
        place = place[step]
    place[last] = value
    with pytest.raises(jsonschema.ValidationError):
        judge(one)
