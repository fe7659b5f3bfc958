"""Who may speak to whom: nobody, but for the flows that the platform lives on.

A cluster's network plugin enforces these or doesn't; Kubernetes has no way to say which. So they are also evaluated as
values (`allows`), and a test holds them against a table of wanted and unwanted flows.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chimera.adapters.substrates.knative import eventing as broker
from chimera.adapters.substrates.knative.admission import manifests as admission
from chimera.adapters.substrates.knative.labelling import meta

Json = dict[str, Any]

NAMESPACE = "kubernetes.io/metadata.name"
KNATIVE, KOURIER, SYSTEM = "knative-serving", "kourier-system", "kube-system"
GATEWAY = {"app.kubernetes.io/name": "chimera", "app.kubernetes.io/component": "gateway"}
CONTROL_PLANE = {"app.kubernetes.io/name": "chimera", "app.kubernetes.io/component": "control-plane"}
OPERATOR = {"app.kubernetes.io/name": "chimera", "app.kubernetes.io/component": "operator"}
HOST = {"app.kubernetes.io/name": "chimera-host"}
METRICS = 9090
"""Where a gateway shows its page for Prometheus, and nothing else."""
POD_PORTS = (8012, 8112, 8022, 9090, 9091)
"""queue-proxy's: calls, calls with TLS, its own probes, the autoscaler's metrics, a cell's metrics."""
SIDECAR_METRICS = 9091
API_PORTS = (443, 6443)


def policies(
    platform: str,
    cells: str,
    *,
    database_port: int = 5432,
    monitoring: str | None = None,
    eventing: bool = False,
    egress: Sequence[Json] = (),
    ingress: str = KOURIER,
) -> list[Json]:
    """All policies of both namespaces; `monitoring` is the one from which Prometheus reads.

    With `eventing` gateways send to a Broker's ingress, and its data plane reaches them at one port. Control planes and
    gateways may reach what `egress` says, too. `ingress` is the namespace of the one that Knative uses.
    """
    dns = {"to": [_in(SYSTEM)], "ports": [_port(53, "UDP"), _port(53)]}
    # An API server, a database and models are outside any namespace, or in one that nobody knows here.
    outside = {"ports": [_port(number) for number in (*API_PORTS, database_port)]}
    found = [
        _policy(platform, "default-deny", {}, [], []),
        _policy(cells, "default-deny", {}, [], []),
        _policy(
            platform,
            "gateway",
            GATEWAY,
            [{"ports": [_port(8080)]}, {"from": [_in(cells, HOST)], "ports": [_port(8081)]}],
            [
                dns,
                outside,
                {"to": [_pods(CONTROL_PLANE)], "ports": [_port(8082)]},
                {"to": [_in(cells, HOST)], "ports": [_port(8012)]},
                # A sleeping cell is woken at its Service, which leads to the ingress inside, and on to the activator.
                {"to": [_in(ingress), _in(KNATIVE)], "ports": [_port(8081), _port(8080), _port(8012)]},
            ],
        ),
        _policy(
            platform,
            "control-plane",
            CONTROL_PLANE,
            # An API server that asks the webhook comes from outside any namespace, by addresses that nobody knows here.
            [{"from": [_pods(GATEWAY)], "ports": [_port(8082)]}, {"ports": [_port(admission.PORT)]}],
            [dns, outside],
        ),
        _policy(platform, "operator", OPERATOR, [], [dns, outside]),
        _policy(
            cells,
            "hosts",
            HOST,
            [
                {"from": [_in(platform, GATEWAY)], "ports": [_port(8012)]},
                {"from": [_in(KNATIVE), _in(ingress)], "ports": [_port(number) for number in POD_PORTS]},
            ],
            [dns, {"to": [_in(platform, GATEWAY)], "ports": [_port(8081)]}],
        ),
    ]
    if egress:
        # Policies of their own, beside those above: they add up.
        for name, chosen in (("control-plane", CONTROL_PLANE), ("gateway", GATEWAY)):
            found.append(_policy(platform, f"{name}-egress", chosen, None, list(egress)))
    if eventing:
        found.append(
            _policy(
                platform,
                "gateway-broker",
                GATEWAY,
                [{"from": [_in(broker.KNATIVE_EVENTING)], "ports": [_port(broker.PORT)]}],
                [{"to": [_in(broker.KNATIVE_EVENTING)], "ports": [_port(number) for number in broker.INGRESS_PORTS]}],
            )
        )
    if monitoring is not None:
        read = (
            (platform, "gateway-metrics", GATEWAY, METRICS),
            (platform, "control-plane-metrics", CONTROL_PLANE, 8082),
            (platform, "operator-metrics", OPERATOR, 8083),
            (cells, "host-metrics", HOST, SIDECAR_METRICS),
        )
        found += [
            _policy(where, name, chosen, [{"from": [_in(monitoring)], "ports": [_port(number)]}])
            for where, name, chosen, number in read
        ]
    return found


def _policy(
    namespace: str, name: str, chosen: dict[str, str], ingress: list[Json] | None, egress: list[Json] | None = None
) -> Json:
    both = {kind: rules for kind, rules in (("Ingress", ingress), ("Egress", egress)) if rules is not None}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta(namespace, name),
        "spec": {
            "podSelector": {"matchLabels": chosen} if chosen else {},
            "policyTypes": list(both),
            **{kind.lower(): rules for kind, rules in both.items()},
        },
    }


def _pods(labels: dict[str, str]) -> Json:
    return {"podSelector": {"matchLabels": labels}}


def _in(namespace: str, labels: dict[str, str] | None = None) -> Json:
    found: Json = {"namespaceSelector": {"matchLabels": {NAMESPACE: namespace}}}
    return {**found, **_pods(labels)} if labels else found


def _port(number: int, protocol: str = "TCP") -> Json:
    return {"protocol": protocol, "port": number}


# -- evaluation -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """A pod, or what is outside the cluster (no namespace), at an address where that matters."""

    namespace: str | None
    labels: dict[str, str]
    address: str = ""


def allows(found: list[Json], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection may be made, by the rules of Kubernetes: out of the one and into the other."""
    return _side(found, "Egress", source, target, port, protocol) and _side(
        found, "Ingress", target, source, port, protocol
    )


def _side(found: list[Json], kind: str, own: Peer, other: Peer, port: int, protocol: str) -> bool:
    chosen = [
        one["spec"]
        for one in found
        if own.namespace == one["metadata"]["namespace"]
        and kind in one["spec"]["policyTypes"]
        and _matches(one["spec"]["podSelector"], own.labels)
    ]
    if not chosen:
        return True
    word = "to" if kind == "Egress" else "from"
    return any(
        _peer(rule.get(word), spec_namespace=own.namespace, other=other) and _ports(rule.get("ports"), port, protocol)
        for spec in chosen
        for rule in spec[kind.lower()]
    )


def _peer(peers: list[Json] | None, *, spec_namespace: str | None, other: Peer) -> bool:
    if not peers:
        return True
    for peer in peers:
        if "ipBlock" in peer:
            if other.address and ipaddress.ip_address(other.address) in ipaddress.ip_network(peer["ipBlock"]["cidr"]):
                return True
            continue
        if "namespaceSelector" in peer:
            in_namespace = other.namespace is not None and _matches(
                peer["namespaceSelector"], {NAMESPACE: other.namespace}
            )
        else:
            in_namespace = other.namespace == spec_namespace
        if in_namespace and _matches(peer.get("podSelector", {}), other.labels):
            return True
    return False


def _ports(ports: list[Json] | None, port: int, protocol: str) -> bool:
    return not ports or any(one["port"] == port and one["protocol"] == protocol for one in ports)


def _matches(selector: Json, labels: dict[str, str]) -> bool:
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
