"""The OpenAPI 3.1 document, generated from the table of operations and the types of the bodies.

`python -m chimera.entrypoints.gateway.openapi` prints it; the copy in `schemas/openapi.json` is checked by a test.
"""

import re
import sys
from typing import Any

import msgspec

from chimera.entrypoints.gateway.operations import OPERATIONS
from chimera.entrypoints.published.operation import JSON, Operation
from chimera.entrypoints.published.parameters import PATHS
from chimera_host.contract.problem import PROBLEM_MEDIA_TYPE, Problem

VERSION = "1"
_PARAMETER = re.compile(r"\{(\w+)\}")
_EVENTS = "text/event-stream"
_ANY = {"type": "string", "minLength": 1}
_REFERENCES = "#/components/schemas/{name}"

OWNERS = {
    "gateway": "",
    "control-plane": "Answered by the control plane; 503 `control-plane-unavailable` while it is away.",
    "node": "Answered by the node agent; 503 `node-unavailable` while it is away.",
}


def document() -> dict[str, Any]:
    """The whole document."""
    bodies = [kind for operation in OPERATIONS for kind in (operation.body, operation.answer) if kind is not None]
    types = list(dict.fromkeys([*bodies, Problem]))
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCES)
    by_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Chimera",
            "version": VERSION,
            "description": "Agents defined as code, called with one API. Errors are RFC 9457 problem documents.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, a token of an issuer, or the home's key. `x-chimera-action` of "
                    "an operation is what its caller must be allowed to do.",
                }
            },
            "responses": {
                "Problem": {
                    "description": "What is wrong and what to do about it",
                    "content": {PROBLEM_MEDIA_TYPE: {"schema": by_type[Problem]}},
                }
            },
        },
    }


def encoded() -> bytes:
    """The document as JSON, the same bytes every time."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=2) + b"\n"


def _operation(operation: Operation, by_type: dict[Any, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": PATHS.get(name, _ANY)}
        for name in _PARAMETER.findall(operation.path)
    ]
    for place, named in (("query", operation.query), ("header", operation.headers)):
        parameters += [
            {
                "name": name,
                "in": place,
                "schema": {"type": kind} if isinstance(kind, str) else kind,
                "description": text,
            }
            for name, kind, text in named
        ]
    answer: dict[str, Any] = {"description": operation.summary}
    content: dict[str, Any] = {}
    if operation.answer is not None:
        content[operation.media] = {"schema": by_type[operation.answer]}
    elif operation.media != JSON:
        kind = "object" if operation.media.endswith("+json") else "string"
        content[operation.media] = {} if operation.media == _EVENTS else {"schema": {"type": kind}}
    if operation.streams:
        content[_EVENTS] = {}
    if content:
        answer["content"] = content
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": parameters,
        "responses": {
            str(operation.status): answer,
            **{str(status): {**answer, "description": when} for status, when in operation.also},
            "default": {"$ref": "#/components/responses/Problem"},
        },
    }
    if OWNERS[operation.owner]:
        described["description"] = OWNERS[operation.owner]
    if operation.body is not None:
        schema = by_type[operation.body] if operation.takes.endswith("json") else {}
        content = {operation.takes: {"schema": schema}}
        described["requestBody"] = {"required": operation.body_required, "content": content}
    if operation.key:
        described["x-chimera-action"] = operation.action
    else:
        described["security"] = []
    return described


if __name__ == "__main__":
    sys.stdout.buffer.write(encoded())
