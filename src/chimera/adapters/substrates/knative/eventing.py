"""What carries events in a cluster: one Broker, one Trigger, and where the Broker's data plane reaches the gateways.

One Trigger, whatever agents subscribe to: it hands on everything, and a gateway's index says whom an event starts, a
million times a second where nobody is. A Trigger for each agent would be 12,000 objects whose filters the Broker asks
one after the other, and one for each filter would change with every agent that is applied.

The Broker's ingress is where Knative's own stands by default (a Broker of the class MTChannelBasedBroker). Its
deliveries are tried again for about a minute; what it gives up goes to the gateways too, as a dead letter.
"""

from typing import Any

Json = dict[str, Any]

GROUP, VERSION = "eventing.knative.dev", "v1"
BROKER, TRIGGER, SERVICE = "chimera", "chimera-agents", "chimera-broker"
KNATIVE_EVENTING = "knative-eventing"
CLASS = "MTChannelBasedBroker"
PORT, PORT_NAME = 8083, "broker"
INGRESS_PORTS = (80, 8080)
"""Of the ingress: its Service's, and its pods', which is what a network policy sees."""
DELIVERY = {"retry": 7, "backoffPolicy": "exponential", "backoffDelay": "PT0.5S"}


def ingress(namespace: str) -> str:
    """Where events are sent to the Broker of a namespace."""
    return f"http://broker-ingress.{KNATIVE_EVENTING}.svc.cluster.local/{namespace}/{BROKER}"


def broker(meta: Json) -> Json:
    """The Broker."""
    marked = {**meta, "annotations": {"eventing.knative.dev/broker.class": CLASS}}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Broker", "metadata": marked, "spec": {}}


def trigger(meta: Json, namespace: str) -> Json:
    """The Trigger, which hands every event to the gateways."""
    at = f"http://{SERVICE}.{namespace}.svc.cluster.local:{PORT}"
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "Trigger",
        "metadata": meta,
        "spec": {
            "broker": BROKER,
            "subscriber": {"uri": f"{at}/events"},
            "delivery": {**DELIVERY, "deadLetterSink": {"uri": f"{at}/dead-letters"}},
        },
    }


def service(meta: Json, chosen: dict[str, str]) -> Json:
    """Where the gateways are reached by the Broker's data plane, and by nobody else."""
    port = {"name": PORT_NAME, "port": PORT, "targetPort": PORT_NAME, "protocol": "TCP", "appProtocol": "http"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": chosen, "ports": [port]}}
