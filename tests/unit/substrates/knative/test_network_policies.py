"""Who may speak to whom among what is installed, by the policies evaluated as values."""

import pytest

from chimera.adapters.substrates.knative.netpolicies import (
    CONTROL_PLANE,
    GATEWAY,
    HOST,
    OPERATOR,
    Peer,
    allows,
    policies,
)

gateway = Peer(namespace="platform", labels=GATEWAY)
control_plane = Peer(namespace="platform", labels=CONTROL_PLANE)
operator = Peer(namespace="platform", labels=OPERATOR)
host = Peer(namespace="agents", labels=HOST)
stranger = Peer(namespace="elsewhere", labels={})
same_name_elsewhere = Peer(namespace="elsewhere", labels=GATEWAY)
intruder = Peer(namespace="agents", labels={})
activator = Peer(namespace="knative-serving", labels={"app": "activator"})
ingress = Peer(namespace="kourier-system", labels={"app": "3scale-kourier-gateway"})
dns = Peer(namespace="kube-system", labels={"k8s-app": "kube-dns"})
outside = Peer(namespace=None, labels={})

WANTED = [
    ("callers reach the gateway", stranger, gateway, 8080),
    ("callers from outside reach the gateway", outside, gateway, 8080),
    ("the gateway calls hosts by their queue-proxy", gateway, host, 8012),
    ("the gateway asks the control plane", gateway, control_plane, 8082),
    ("the gateway wakes a cell through the ingress inside", gateway, ingress, 8081),
    ("the gateway and the control plane ask the API server", gateway, outside, 6443),
    ("the gateway asks models", gateway, outside, 443),
    ("the control plane reaches the database", control_plane, outside, 5432),
    ("the operator reaches the database", operator, outside, 5432),
    ("the operator asks the API server", operator, outside, 6443),
    ("hosts ask the gateway", host, gateway, 8081),
    ("the activator passes calls on", activator, host, 8012),
    ("the autoscaler reads metrics", activator, host, 9090),
    ("names are looked up", host, dns, 53),
    ("the API server asks the webhook", outside, control_plane, 9443),
]
UNWANTED = [
    ("anybody asks the operator", stranger, operator, 8083),
    ("the gateway asks the operator", gateway, operator, 8083),
    ("the operator reaches the control plane", operator, control_plane, 8082),
    ("the operator calls hosts", operator, host, 8012),
    ("a host reaches another host", host, host, 8012),
    ("a host reaches the user's port of another", host, host, 8080),
    ("a host reaches the control plane", host, control_plane, 8082),
    ("a host calls the public API", host, stranger, 8080),
    ("a host reaches the API server", host, outside, 6443),
    ("a host reaches the internet", host, outside, 443),
    ("a host reaches the database", host, outside, 5432),
    ("a stranger reaches the internal API", stranger, gateway, 8081),
    ("a stranger reaches the control plane", stranger, control_plane, 8082),
    ("a stranger calls hosts", stranger, host, 8012),
    ("a pod that only calls itself the gateway calls hosts", same_name_elsewhere, host, 8012),
    ("another pod among the cells reaches the internal API", intruder, gateway, 8081),
    ("another pod among the cells goes anywhere", intruder, outside, 443),
    ("the gateway reaches the host past its queue-proxy", gateway, host, 8080),
]


@pytest.mark.parametrize(("source", "target", "port"), [row[1:] for row in WANTED], ids=[row[0] for row in WANTED])
def test_wanted_flows_are_allowed(source: Peer, target: Peer, port: int) -> None:
    protocol = "UDP" if port == 53 else "TCP"
    assert allows(policies("platform", "agents"), source, target, port, protocol)


@pytest.mark.parametrize(("source", "target", "port"), [row[1:] for row in UNWANTED], ids=[row[0] for row in UNWANTED])
def test_unwanted_flows_are_not(source: Peer, target: Peer, port: int) -> None:
    assert not allows(policies("platform", "agents"), source, target, port)


def test_without_policies_everything_is_allowed_so_the_table_can_fail() -> None:
    assert all(allows([], source, target, port) for _, source, target, port in UNWANTED)


git = Peer(namespace=None, labels={}, address="203.0.113.7")
forge = Peer(namespace="forge", labels={"app": "forgejo"})


models = Peer(namespace="models", labels={"app": "vllm"})
functions = Peer(namespace="shop", labels={"app": "prices"})
receiver = Peer(namespace=None, labels={}, address="198.51.100.20")
SAID = tuple(
    {"to": to, "ports": [{"protocol": "TCP", "port": port}]}
    for to, port in (
        ([{"ipBlock": {"cidr": "203.0.113.0/24"}}], 8443),
        ([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "forge"}}}], 3000),
        ([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "models"}}}], 8000),
        ([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}], 8080),
        ([{"ipBlock": {"cidr": "198.51.100.16/28"}}], 80),
    )
)
OPENED = [
    ("a host of Git at another port", control_plane, git, 8443),
    ("a forge in the cluster", control_plane, forge, 3000),
    ("a model in the cluster", gateway, models, 8000),
    ("a function in the cluster", gateway, functions, 8080),
    ("a receiver of events by http", gateway, receiver, 80),
]


@pytest.mark.parametrize(("source", "target", "port"), [row[1:] for row in OPENED], ids=[row[0] for row in OPENED])
def test_gateways_and_control_planes_reach_what_is_said_and_nobody_else_does(
    source: Peer, target: Peer, port: int
) -> None:
    closed, opened = policies("platform", "agents"), policies("platform", "agents", egress=SAID)
    assert allows(opened, source, target, port) and not allows(closed, source, target, port)
    assert not any(allows(opened, other, target, port) for other in (operator, host))
    assert not allows(opened, source, target, port + 1), "nothing else of it"
    elsewhere = Peer(namespace=None, labels={}, address="192.0.2.7")
    assert not allows(opened, source, elsewhere, port)
    assert allows(opened, source, git, 443) and not allows(opened, stranger, control_plane, 8082)
    assert not allows(opened, stranger, gateway, 8081), "out alone, never in"


@pytest.mark.parametrize("namespace", ["istio-system", "contour-internal"])
def test_cells_are_woken_through_the_ingress_that_is_said_and_through_no_other(namespace: str) -> None:
    other = Peer(namespace=namespace, labels={"app": "gateway"})
    found = policies("platform", "agents", ingress=namespace)
    for here, there, through in ((found, other, ingress), (policies("platform", "agents"), ingress, other)):
        for port in (8080, 8081):
            assert allows(here, gateway, there, port) and not allows(here, gateway, through, port)
        assert allows(here, there, host, 8012) and not allows(here, through, host, 8012)
        assert allows(here, gateway, activator, 8012) and allows(here, activator, host, 8012)


prometheus = Peer(namespace="monitoring", labels={"app.kubernetes.io/name": "prometheus"})
READ = [
    ("the gateway's page", gateway, 9090),
    ("the control plane's", control_plane, 8082),
    ("the operator's", operator, 8083),
    ("a sidecar's", host, 9091),
]


@pytest.mark.parametrize(("target", "port"), [row[1:] for row in READ], ids=[row[0] for row in READ])
def test_prometheus_reads_pages_and_nobody_else_does(target: Peer, port: int) -> None:
    opened = policies("platform", "agents", monitoring="monitoring")
    assert allows(opened, prometheus, target, port)
    assert not allows(opened, stranger, target, port)
    assert not allows(opened, host, target, port)
    assert not allows(policies("platform", "agents"), prometheus, target, port)


@pytest.mark.parametrize("port", [8081, 8012, 8080])
def test_prometheus_calls_no_host_and_no_internal_api(port: int) -> None:
    opened = policies("platform", "agents", monitoring="monitoring")
    assert not allows(opened, prometheus, host, port)
    assert port == 8080 or not allows(opened, prometheus, gateway, port)
