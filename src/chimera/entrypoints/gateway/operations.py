"""The table of the public API: every operation once, for the dispatcher and for the OpenAPI document.

`served` operations are answered by the gateway; the others by the control plane or the node agent, to which the gateway
passes them on after it has checked the key.
"""

from dataclasses import dataclass
from typing import Any, Literal

from chimera.gateway import api

Owner = Literal["gateway", "control-plane", "node"]

TENANT = "/v1/tenants/{tenant}"
AGENT = TENANT + "/agents/{agent}"
NODE_PREFIXES = ("/v1/cells", "/v1/hosts", "/v1/incidents", "/v1/logs", "/v1/top")
OPEN_PATHS = ("/livez", "/readyz")


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One method of one path. `name` is the handler's and the document's operation id."""

    method: str
    path: str
    name: str
    summary: str
    tag: str
    owner: Owner = "gateway"
    body: Any = None
    answer: Any = None
    media: str = "application/json"
    streams: bool = False
    query: tuple[tuple[str, str, str], ...] = ()
    status: int = 200
    key: bool = True


SERVED = (
    Operation(
        method="POST",
        path=AGENT + "/invoke",
        name="invoke",
        summary="Call an agent; the answer whole or as server-sent events",
        tag="calls",
        body=api.InvokeBody,
        answer=api.InvokeAnswer,
        streams=True,
    ),
    Operation(
        method="POST",
        path="/v1/chat/completions",
        name="chat",
        summary="Call an agent of the default tenant as OpenAI's clients call a model",
        tag="openai",
        body=api.ChatBody,
        answer=dict[str, Any],
        streams=True,
    ),
    Operation(
        method="POST",
        path=TENANT + "/chat/completions",
        name="tenant_chat",
        summary="The same for a tenant; point an OpenAI client's base URL at /v1/tenants/{tenant}",
        tag="openai",
        body=api.ChatBody,
        answer=dict[str, Any],
        streams=True,
    ),
    Operation(
        method="GET",
        path="/v1/models",
        name="models",
        summary="Agents of the default tenant as models, by name, in pages",
        tag="openai",
        answer=api.ModelList,
        query=(("limit", "integer", "most models in the page"), ("after", "string", "the last id of the page before")),
    ),
    Operation(
        method="GET",
        path=TENANT + "/models",
        name="tenant_models",
        summary="The same for a tenant",
        tag="openai",
        answer=api.ModelList,
        query=(("limit", "integer", "most models in the page"), ("after", "string", "the last id of the page before")),
    ),
    Operation(
        method="GET",
        path="/v1/models/agent/{agent}",
        name="model",
        summary="One agent as a model",
        tag="openai",
        answer=api.ModelCard,
    ),
    Operation(
        method="GET",
        path=TENANT + "/models/agent/{agent}",
        name="tenant_model",
        summary="The same for a tenant",
        tag="openai",
        answer=api.ModelCard,
    ),
    Operation(
        method="GET",
        path=AGENT + "/sessions/{session}",
        name="session",
        summary="A session as stored",
        tag="sessions",
        answer=api.SessionAnswer,
    ),
    Operation(
        method="DELETE",
        path=AGENT + "/sessions/{session}",
        name="delete_session",
        summary="Erase a session",
        tag="sessions",
        status=204,
    ),
    Operation(
        method="GET",
        path="/openapi.json",
        name="openapi",
        summary="This document",
        tag="platform",
        answer=dict[str, Any],
    ),
    Operation(
        method="GET",
        path="/livez",
        name="livez",
        summary="Whether the gateway runs",
        tag="platform",
        media="text/plain",
        key=False,
    ),
    Operation(
        method="GET",
        path="/readyz",
        name="readyz",
        summary="Whether the gateway takes calls",
        tag="platform",
        media="text/plain",
        key=False,
    ),
    Operation(
        method="GET",
        path="/metrics",
        name="metrics",
        summary="Metrics for Prometheus",
        tag="platform",
        media="text/plain",
    ),
)


def _catalogue(method: str, path: str, name: str, summary: str) -> Operation:
    return Operation(
        method=method,
        path=path,
        name=name,
        summary=summary,
        tag="catalogue",
        owner="control-plane",
        body=dict[str, Any] if method in ("POST", "PUT") else None,
        answer=dict[str, Any],
    )


def _node(path: str, name: str, summary: str) -> Operation:
    return Operation(
        method="GET", path=path, name=name, summary=summary, tag="platform", owner="node", answer=dict[str, Any]
    )


PASSED_ON = (
    _catalogue("GET", TENANT + "/agents", "list_agents", "Agents, in pages"),
    _catalogue("GET", AGENT, "describe_agent", "An agent: definition, revision, cell, limits, warnings"),
    _catalogue("DELETE", AGENT, "delete_agent", "Take an agent out of service"),
    _catalogue("GET", AGENT + "/revisions", "list_revisions", "The revisions of an agent"),
    _catalogue("GET", TENANT + "/revisions/{digest}", "get_revision", "One revision by its digest"),
    _catalogue("POST", TENANT + "/check", "check_sources", "Which sources are live and unchanged"),
    _catalogue("POST", TENANT + "/batches", "begin_batch", "Begin a batch of definitions"),
    _catalogue("POST", TENANT + "/batches/{batch}/definitions", "add_definitions", "Add definitions to a batch"),
    _catalogue("POST", TENANT + "/batches/{batch}/commit", "commit_batch", "Put a batch into service, all or nothing"),
    _catalogue("PUT", TENANT + "/bundles/{digest}", "put_bundle", "Store a source bundle"),
    _catalogue("POST", TENANT + "/apply", "apply", "Apply a few definitions at once"),
    _catalogue("POST", TENANT + "/validate", "validate", "Check definitions without applying them"),
    _catalogue("POST", TENANT + "/diff", "diff", "What applying definitions would change"),
    _catalogue("GET", "/v1/status", "status", "How the catalogue stands"),
    _node("/v1/cells", "list_cells", "Cells and how many hosts each has"),
    _node("/v1/hosts", "list_hosts", "Running hosts"),
    _node("/v1/incidents", "incidents", "Hosts that died, and which agents are suspects"),
    _node("/v1/top", "top", "What hosts use"),
    _node("/v1/logs", "logs", "Log lines of this machine's processes"),
)

OPERATIONS = SERVED + PASSED_ON


class Matcher:
    """Finds the operation of a path; segments in braces match any text."""

    def __init__(self, operations: tuple[Operation, ...]) -> None:
        """Index `operations` by their number of segments."""
        self._exact: dict[str, dict[str, Operation]] = {}
        self._patterns: dict[int, list[tuple[tuple[str, ...], dict[str, Operation]]]] = {}
        for operation in operations:
            if "{" not in operation.path:
                self._exact.setdefault(operation.path, {})[operation.method] = operation
                continue
            segments = tuple(operation.path.split("/"))
            group = self._patterns.setdefault(len(segments), [])
            methods = next((methods for known, methods in group if known == segments), None)
            if methods is None:
                methods = {}
                group.append((segments, methods))
            methods[operation.method] = operation

    def find(self, path: str) -> tuple[dict[str, Operation], dict[str, str]] | None:
        """The path's operations by method, and the values of its segments in braces."""
        if (exact := self._exact.get(path)) is not None:
            return exact, {}
        given = path.split("/")
        for segments, methods in self._patterns.get(len(given), ()):
            values: dict[str, str] = {}
            for wanted, value in zip(segments, given, strict=True):
                if wanted.startswith("{"):
                    if not value:
                        break
                    values[wanted[1:-1]] = value
                elif wanted != value:
                    break
            else:
                return methods, values
        return None
