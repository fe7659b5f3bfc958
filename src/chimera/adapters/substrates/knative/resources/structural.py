"""From the JSON Schema of ADaC to a structural schema, as a CustomResourceDefinition wants it: a pure rule.

A structural schema is one tree: no `$ref`, a type at each place, and all fields of a union's alternatives side by side,
since an API server prunes by them what it doesn't know. Alternatives say only which fields they need and may have.

It takes every definition that `chimera validate` takes, and refuses most of what that refuses (a property test holds
the first). Left to the operator are rules between fields, and patterns with classes of characters that mean less in Go
than in Python. Defaults are left out on purpose: an API server writes them into the object, and a definition would then
override its template with what its author never wrote.
"""

import re
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

_KEPT = (
    "type",
    "description",
    "pattern",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "enum",
)
_VALIDATION = ("pattern", "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum", "enum")
_OTHER_IN_GO = re.compile(r"\\[wWdDsSbB]|\(\?")
FREE: Json = {"x-kubernetes-preserve-unknown-fields": True}


def structural(schema: Mapping[str, Any], name: str) -> Json:
    """The type `name` of `schema` (with its `$defs`) as one tree."""
    return _convert({"$ref": f"#/$defs/{name}"}, schema["$defs"])


def _convert(node: Mapping[str, Any], defs: Mapping[str, Any]) -> Json:
    if "$ref" in node:
        target = _convert(defs[str(node["$ref"]).rpartition("/")[2]], defs)
        # What is said at the field is nearer than what is said of its type.
        return {**target, "description": node["description"]} if "description" in node else target
    if "anyOf" in node:
        return _union(node, defs)
    found: Json = {name: node[name] for name in _KEPT if name in node}
    if "enum" in node and all(isinstance(value, str) for value in node["enum"]):
        found["type"] = "string"
    if "examples" in node:
        shown = " or ".join(f"`{example}`" for example in node["examples"])
        found["description"] = f"{found.get('description', '')} For example {shown}.".strip()
    if _OTHER_IN_GO.search(found.get("pattern", "")):
        del found["pattern"]
    for bound, plain in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in node:
            found[plain], found[bound] = node[bound], True
    if found.get("type") == "integer":
        found["format"] = "int64"
    if found.get("type") == "array":
        found["items"] = _convert(node["items"], defs)
    if found.get("type") == "object":
        found |= _object(node, defs)
    return found if "type" in found else {**found, **FREE}


def _object(node: Mapping[str, Any], defs: Mapping[str, Any]) -> Json:
    found: Json = {}
    if node.get("properties"):
        found["properties"] = {name: _convert(part, defs) for name, part in node["properties"].items()}
        if node.get("required"):
            found["required"] = list(node["required"])
    elif isinstance(node.get("additionalProperties"), Mapping):
        found["additionalProperties"] = _convert(node["additionalProperties"], defs)
    elif "properties" not in node:
        found |= FREE
    return found


def relax(node: Json) -> None:
    """Let every field be left out that a template may give: all but those of lists' entries, which aren't merged."""
    node.pop("required", None)
    for part in node.get("properties", {}).values():
        relax(part)


def _union(node: Mapping[str, Any], defs: Mapping[str, Any]) -> Json:
    options = [option for option in node["anyOf"] if option.get("type") != "null"]
    told = {"description": node["description"]} if "description" in node else {}
    if len(options) == 1:
        return {**_convert(options[0], defs), **told}
    converted = [_convert(option, defs) for option in options]
    if any(option.get("type") != "object" for option in converted):
        return {**FREE, **told}
    properties: Json = {}
    for option in converted:
        for name, part in option["properties"].items():
            properties[name] = _both(properties[name], part) if name in properties else part
    return {
        "type": "object",
        **told,
        "properties": properties,
        "required": sorted(set.intersection(*(set(option.get("required", ())) for option in converted)) | {"type"}),
        "oneOf": [_alternative(option) for option in converted],
    }


def _alternative(option: Json) -> Json:
    """What tells this alternative from the others: its `type`, and what it needs."""
    kind = {"type": {"enum": option["properties"]["type"]["enum"]}}
    return {"properties": kind, "required": list(option.get("required", ()))}


def _both(one: Json, other: Json) -> Json:
    """A field of two alternatives that takes what either takes."""
    if one == other:
        return one
    if "enum" in one and "enum" in other:
        values = [*one["enum"], *(value for value in other["enum"] if value not in one["enum"])]
        return {**one, "enum": values, **_told(one, other)}
    if one.get("type") != other.get("type"):
        return dict(FREE)
    # Bounds that differ are left to whoever knows which alternative it is.
    found = {name: value for name, value in one.items() if name not in _VALIDATION or other.get(name) == value}
    return {**found, **_told(one, other)}


def _told(one: Json, other: Json) -> Json:
    texts = dict.fromkeys(part["description"] for part in (one, other) if "description" in part)
    return {"description": " ".join(texts)} if texts else {}
