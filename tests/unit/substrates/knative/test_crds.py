"""The CustomResourceDefinitions keep to what an API server takes as a structural schema, and are small."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from chimera.adapters.substrates.knative.resources.crds import GROUP, definitions

MOST = 256 * 1024
"""Bytes that `kubectl apply` can keep of an object in its annotation."""
KNOWN = {
    *("type", "description", "pattern", "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum"),
    *("exclusiveMinimum", "exclusiveMaximum", "enum", "format", "default", "properties", "required", "items"),
    *("additionalProperties", "oneOf", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
}

CRDS = pytest.mark.parametrize("crd", definitions(), ids=lambda one: one["spec"]["names"]["plural"])


def schema(crd: dict[str, Any]) -> dict[str, Any]:
    (version,) = crd["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, part in node.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(node.get(name), dict):
            yield from nodes(node[name], f"{path}.{name}")


@CRDS
def test_every_place_has_a_type_and_says_nothing_that_is_not_known(crd: dict[str, Any]) -> None:
    for path, node in nodes(schema(crd)):
        assert node.keys() <= KNOWN, path
        assert "type" in node or node.get("x-kubernetes-preserve-unknown-fields"), path
        assert not ("properties" in node and "additionalProperties" in node), path
        if "array" in (node.get("type"),):
            assert "items" in node, path


@CRDS
def test_alternatives_name_only_fields_that_stand_beside_them(crd: dict[str, Any]) -> None:
    for path, node in nodes(schema(crd)):
        for option in node.get("oneOf", ()):
            assert option.keys() == {"properties", "required"}, path
            assert {*option["properties"], *option["required"]} <= node["properties"].keys(), path


@CRDS
def test_nothing_of_a_definition_has_a_default_which_would_override_a_template(crd: dict[str, Any]) -> None:
    spec = schema(crd)["properties"]["spec"]
    defaults = [path for path, node in nodes(spec) if "default" in node]
    own = {"Cell": ["", ".minScale"], "Rollout": ["", ".state", ".attempt"]}
    assert defaults == own.get(crd["spec"]["names"]["kind"], [])


@CRDS
def test_it_is_explained_and_small(crd: dict[str, Any]) -> None:
    root = schema(crd)
    assert root["description"] and len(json.dumps(crd)) < MOST
    for name, part in root["properties"]["spec"].get("properties", {}).items():
        assert part.get("description"), name
    assert crd["metadata"]["name"] == f"{crd['spec']['names']['plural']}.{GROUP}"


def test_the_files_hold_what_is_installed() -> None:
    folder = Path(__file__).parents[4] / "deploy" / "crds"
    held = [yaml.safe_load(file.read_text()) for file in sorted(folder.glob("*.yaml"))]
    assert held == definitions()
