"""The labels of everything that is installed, and what chooses the pods of one component."""

from typing import Any

from chimera.adapters.substrates.knative import names

Json = dict[str, Any]


def labels(component: str | None = None) -> dict[str, str]:
    """What everything that is installed carries."""
    found = {names.MANAGED_BY: names.MANAGER, names.PART_OF: names.MANAGER}
    return found if component is None else {**found, **selector(component)}


def selector(component: str) -> dict[str, str]:
    """What chooses the pods of one component."""
    return {"app.kubernetes.io/name": "chimera", "app.kubernetes.io/component": component}


def meta(namespace: str, name: str, component: str | None = None) -> Json:
    """The metadata of an object in a namespace."""
    return {"name": name, "namespace": namespace, "labels": labels(component)}
