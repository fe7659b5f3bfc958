"""Structural schemas of Kubernetes' kinds as JSON Schema, closed as an API server closes them for who asks strictly."""

from typing import Any

import msgspec


def strict(structural: str | bytes) -> Any:
    """The JSON Schema of an `openAPIV3Schema`, which refuses every field that it doesn't know."""
    found = _closed(msgspec.json.decode(structural))
    for name in ("apiVersion", "kind", "metadata"):
        found["properties"].setdefault(name, {})
    found["properties"]["metadata"] = {}  # the API server's own, whatever the schema says of it
    return found


def _closed(schema: Any) -> Any:
    """The schema with objects closed that say what they hold and don't say that they hold more."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _closed(one) for name, one in schema.items()}
    if found.pop("x-kubernetes-int-or-string", False):
        found.pop("type", None)
    if isinstance(found.get("properties"), dict) and not found.get("x-kubernetes-preserve-unknown-fields"):
        found["additionalProperties"] = False
    return found
