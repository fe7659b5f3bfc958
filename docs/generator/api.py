"""The API page, from the published OpenAPI document."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.generator.tables import code, head, table

SCHEMA = Path(__file__).parents[2] / "schemas" / "openapi.json"

SECTIONS = {
    "calls": "Calling agents",
    "openai": "OpenAI-compatible",
    "sessions": "Sessions",
    "catalogue": "The catalogue",
    "jaegis": "JAEGIS",
    "evidence": "Evidence of revisions",
    "events": "Events, subscriptions, dead letters",
    "identity": "Keys, roles, policies and tenants",
    "platform": "The platform",
}


def page(document: dict[str, Any] | None = None) -> str:
    """The whole page."""
    document = document or json.loads(SCHEMA.read_text(encoding="utf-8"))
    parts = [head("The API"), _INTRODUCTION]
    tags = [operation["tags"][0] for methods in document["paths"].values() for operation in methods.values()]
    for tag, title in {**SECTIONS, **{tag: tag.capitalize() for tag in tags if tag not in SECTIONS}}.items():
        parts.append(f"## {title}\n")
        for method, path, operation in _operations(document):
            if operation["tags"] == [tag]:
                parts.append(_operation(method, path, operation))
    parts.append("## Types\n")
    for name, schema in document["components"]["schemas"].items():
        parts.append(_type(name, schema))
    return "\n".join(parts)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [f"### `{method} {path}`\n", f"{operation['summary']}. {operation.get('description', '')}".strip() + "\n"]
    for place in ("query", "header"):
        named = [one for one in operation.get("parameters", ()) if one["in"] == place]
        if named:
            rows = [
                (code(one["name"]), _kind(one["schema"]) + _bounds(one["schema"]), one.get("description", ""))
                for one in named
            ]
            lines.append(table((place, "type", "meaning"), rows))
    said = []
    if body := operation.get("requestBody"):
        optional = "" if body["required"] else ", or none"
        said.append(f"Body: {_content(body['content'])}{optional}.")
    for status, answer in operation["responses"].items():
        if status != "default":
            said.append(f"Answer: {status}{', ' + _content(answer['content']) if 'content' in answer else ''}.")
    if operation.get("security") == []:
        said.append("Needs no key.")
    lines.append(" ".join(said) + "\n")
    return "\n".join(lines)


def _content(content: dict[str, Any]) -> str:
    return " or ".join(
        _kind(value["schema"]) if media == "application/json" else code(media) for media, value in content.items()
    )


def _type(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = []
    for field, what in schema.get("properties", {}).items():
        default = what.get("default")
        shown = "" if default in (None, [], {}, "") else code(json.dumps(default))
        rows.append((code(field), _kind(what), "**required**" if field in required else shown))
    text = f"### {name}\n\n{schema.get('description', '')}\n\n"
    return text + table(("field", "type", "default"), rows)


def _kind(what: dict[str, Any]) -> str:
    if "$ref" in what:
        name = what["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower().replace('.', '')})"
    if "anyOf" in what:
        return " or ".join(_kind(option) for option in what["anyOf"] if option != {"type": "null"})
    if "enum" in what:
        return " or ".join(code(option) for option in what["enum"])
    if "const" in what:
        return code(what["const"])
    if "prefixItems" in what:
        return f"list of {', '.join(_kind(one) for one in what['prefixItems'])}"
    if what.get("type") == "array":
        return f"list of {_kind(what.get('items', {}))}"
    words = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "object"}
    return words.get(str(what.get("type")), str(what.get("type", "anything")))


def _bounds(what: dict[str, Any]) -> str:
    """What the value of a parameter is held to, beside its type."""
    least, most = what.get("minimum", what.get("minLength")), what.get("maximum", what.get("maxLength"))
    said = ""
    if most is not None and most < _UNBOUNDED:
        said = f" of {least:,} to {most:,}" + (" characters" if "maxLength" in what else "")
    return f"{said}, {what['default']:,} by default" if "default" in what else said


_UNBOUNDED = 10**11
"""A bound from here on only keeps a number storable."""

_INTRODUCTION = """\
One HTTP API on one address, by default `http://127.0.0.1:8080`. The same is in `schemas/openapi.json` as OpenAPI 3.1,
and a running gateway serves it at `/openapi.json`. [Calling agents](../guides/call.md) shows it in use.

- Every request but the probes carries `Authorization: Bearer` and [a key or token](../guides/identity.md). The `Host`
  header must be one of the gateway's names, an `Origin` header the gateway's own; there is no CORS.
- Nothing else is served: another path is 404, another method of a path 405, with those that it takes in `Allow`.
- Bodies are JSON, uncompressed; one that says it is something else is 415. An unknown field of a call's body is
  refused; OpenAI's are taken.
- `traceparent` (W3C Trace Context) is followed from here to the model. `X-Request-Id` is taken over where it is given,
  made where not, and answered. An answer to a call names the call in `Chimera-Call`.
- Errors are problem documents: [their codes](errors.md).
- Closing the connection cancels the call.
"""
