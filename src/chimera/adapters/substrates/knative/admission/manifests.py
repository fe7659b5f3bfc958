"""What an installation has for the webhook: a Service, a Secret without data, and whom the API server asks.

Two fields are left out on purpose, the Secret's `data` and the webhook's `caBundle`: whoever keeps the certificates
applies them, as another field manager, and an installation that is applied again takes nothing of his.

- `failurePolicy: Ignore`: the operator checks every resource again, so what slips in while nobody can be asked is not
  live but `Invalid`, with the same words. `Fail` would let nobody change an agent while the control plane is away, and
  guard nothing more.
- `timeoutSeconds: 3`: an answer takes milliseconds. It is how much longer an apply takes when packets get lost.
- Every namespace is asked for (no `namespaceSelector`), since the kinds are Chimera's alone. `matchPolicy: Equivalent`,
  so that a later version of a kind is asked for as well.
- `sideEffects: None`, so that a dry run is answered as well.
"""

from typing import Any

Json = dict[str, Any]

NAME, PORT, PORT_NAME, PATH = "chimera-admission", 9443, "admission", "/validate"
WEBHOOK = "agents.chimera.ecosystem"
TIMEOUT = 3


def configuration_name(namespace: str) -> str:
    """The configuration is in no namespace, so it names the one of its installation."""
    return f"chimera.{namespace}"


def dns_names(namespace: str) -> tuple[str, ...]:
    """What the certificate is for: the name that the API server calls."""
    return (f"{NAME}.{namespace}.svc",)


def secret(namespace: str, labels: dict[str, str]) -> Json:
    """The Secret of the certificates, without any."""
    meta = {"name": NAME, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "Opaque"}


def service(namespace: str, labels: dict[str, str], selector: dict[str, str]) -> Json:
    """Where the API server finds the processes that answer."""
    port = {"name": PORT_NAME, "port": 443, "targetPort": PORT_NAME, "protocol": "TCP", "appProtocol": "https"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": namespace, "labels": labels},
        "spec": {"selector": selector, "ports": [port]},
    }


def configuration(namespace: str, labels: dict[str, str], *, group: str, version: str) -> Json:
    """Whom the API server asks about agents and rollouts."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": configuration_name(namespace), "labels": labels},
        "webhooks": [
            {
                "name": WEBHOOK,
                "clientConfig": {"service": {"name": NAME, "namespace": namespace, "path": PATH, "port": 443}},
                "rules": [
                    {
                        "apiGroups": [group],
                        "apiVersions": [version],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["agents", "rollouts"],
                        "scope": "Namespaced",
                    }
                ],
                "admissionReviewVersions": ["v1"],
                "failurePolicy": "Ignore",
                "matchPolicy": "Equivalent",
                "sideEffects": "None",
                "timeoutSeconds": TIMEOUT,
            }
        ],
    }
