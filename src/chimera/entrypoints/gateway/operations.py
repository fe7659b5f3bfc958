"""The table of the public API: every operation once, for the dispatcher and for the OpenAPI document.

`SERVED` operations are answered by the gateway; the others by the control plane or the node agent, to which the gateway
passes them on after it has checked the key. In a cluster, where no node agent is, the gateway looks itself. What isn't
in the table is not passed on: both have paths for the platform alone.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from chimera.entrypoints.gateway.audit_operations import AUDIT
from chimera.entrypoints.gateway.event_operations import EVENTS
from chimera.entrypoints.gateway.hooks import HOOKS
from chimera.entrypoints.gateway.identity_operations import IDENTITY
from chimera.entrypoints.gateway.state_operations import STATE
from chimera.entrypoints.gateway.task_operations import TASKS
from chimera.entrypoints.published.catalogue import CATALOGUE
from chimera.entrypoints.published.changes import CHANGES
from chimera.entrypoints.published.conditions import CONDITIONS
from chimera.entrypoints.published.evidence import EVIDENCE
from chimera.entrypoints.published.jaegis import JAEGIS
from chimera.entrypoints.published.operation import AGENT, TENANT, Operation
from chimera.entrypoints.published.parameters import HEADER_KEY, KEY, whole
from chimera.entrypoints.published.rollouts import ROLLOUTS
from chimera.entrypoints.published.sources import SOURCES
from chimera.entrypoints.published.trials import TRIALS
from chimera.entrypoints.published.upkeep import UPKEEP
from chimera.gateway import api
from chimera.platform.report import CellRow, HostRow, IncidentRow, Top

IDEMPOTENT = (
    (
        HEADER_KEY,
        KEY,
        "names the work: the same key again goes on with it where it is unfinished, and gives its answer again",
    ),
)
MODELS = (
    ("limit", whole(1, 100_000), "most models in the page"),
    ("after", "string", "the last id of the page before"),
)
SERVED = (
    Operation(
        method="POST",
        path=AGENT + "/invoke",
        name="invoke",
        summary="Call an agent; the answer whole or as server-sent events",
        tag="calls",
        action="agent:invoke",
        body=api.InvokeBody,
        answer=api.InvokeAnswer,
        streams=True,
        headers=IDEMPOTENT,
    ),
    Operation(
        method="POST",
        path="/v1/chat/completions",
        name="chat",
        summary="Call an agent of the default tenant as OpenAI's clients call a model",
        tag="openai",
        action="agent:invoke",
        resource="body",
        body=api.ChatBody,
        answer=dict[str, Any],
        streams=True,
        headers=IDEMPOTENT,
    ),
    Operation(
        method="POST",
        path=TENANT + "/chat/completions",
        name="tenant_chat",
        summary="The same for a tenant; point an OpenAI client's base URL at /v1/tenants/{tenant}",
        tag="openai",
        action="agent:invoke",
        resource="body",
        body=api.ChatBody,
        answer=dict[str, Any],
        streams=True,
        headers=IDEMPOTENT,
    ),
    Operation(
        method="GET",
        path="/v1/models",
        name="models",
        summary="Agents of the default tenant that offer the protocol `openai` as models, by name, in pages",
        tag="openai",
        action="catalogue:read",
        answer=api.ModelList,
        query=MODELS,
    ),
    Operation(
        method="GET",
        path=TENANT + "/models",
        name="tenant_models",
        summary="The same for a tenant",
        tag="openai",
        action="catalogue:read",
        answer=api.ModelList,
        query=MODELS,
    ),
    Operation(
        method="GET",
        path="/v1/models/agent/{agent}",
        name="model",
        summary="One agent as a model",
        tag="openai",
        action="catalogue:read",
        answer=api.ModelCard,
    ),
    Operation(
        method="GET",
        path=TENANT + "/models/agent/{agent}",
        name="tenant_model",
        summary="The same for a tenant",
        tag="openai",
        action="catalogue:read",
        answer=api.ModelCard,
    ),
    Operation(
        method="GET",
        path="/openapi.json",
        name="openapi",
        summary="This document",
        tag="platform",
        action="api:read",
        resource="own",
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
        also=((503, "It takes none yet, or none any more"),),
        key=False,
    ),
    Operation(
        method="GET",
        path="/metrics",
        name="metrics",
        summary="Metrics for Prometheus",
        tag="platform",
        action="platform:read",
        media="text/plain",
    ),
)


def _node(
    path: str,
    name: str,
    summary: str,
    answer: Any,
    action: str = "platform:read",
    **more: Any,
) -> Operation:
    return Operation(
        method="GET",
        path=path,
        name=name,
        summary=summary,
        tag="platform",
        action=action,
        owner="node",
        answer=answer,
        **more,
    )


NODE = (
    _node("/v1/cells", "list_cells", "Cells and how many hosts each has", list[CellRow]),
    _node("/v1/hosts", "list_hosts", "Running hosts", list[HostRow]),
    _node("/v1/incidents", "incidents", "Hosts that died, and which agents are suspects", list[IncidentRow]),
    _node("/v1/top", "top", "What hosts use", Top),
    _node(
        *("/v1/logs", "logs", "Log lines of the platform's processes and hosts, one JSON object a line"),
        *(None, "log:read"),
        media="application/x-ndjson",
        query=(
            ("agent", "string", "only lines of this agent"),
            ("request", "string", "only lines of this request or call"),
            ("process", "string", "only lines of this process: `gateway`, `control-plane`, `hosts` or a host's id"),
            ("level", "string", "only lines at this level"),
            ("lines", whole(1, 10_000, 100), "most lines"),
            ("follow", "boolean", "whether to go on with lines as they are written"),
        ),
    ),
)
OPERATIONS = (
    *(SERVED + STATE + TASKS + EVENTS + IDENTITY + AUDIT + HOOKS + CATALOGUE + CHANGES),
    *(ROLLOUTS + SOURCES + TRIALS + UPKEEP + CONDITIONS + JAEGIS + EVIDENCE + NODE),
)


class Found(NamedTuple):
    """The operation and the values of its path's segments in braces; without one, the methods that the path takes."""

    operation: Operation | None
    values: dict[str, str]
    methods: tuple[str, ...]


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

    def find(self, method: str, raw_path: str) -> Found:
        """What is at a path as it was sent.

        It is decoded first: OpenAI's clients encode the slash in a model's name. Of two paths that match, the first in
        the table that has the method is meant: an agent may be named as an operation.
        """
        if (exact := self._exact.get(raw_path)) is not None:
            return Found(exact.get(method), {}, tuple(exact))
        given = unquote(raw_path).split("/")
        methods: list[str] = []
        for segments, operations in self._patterns.get(len(given), ()):
            pairs = list(zip(segments, given, strict=True))
            if all(value if wanted.startswith("{") else wanted == value for wanted, value in pairs):
                if (operation := operations.get(method)) is not None:
                    values = {wanted[1:-1]: value for wanted, value in pairs if wanted.startswith("{")}
                    return Found(operation, values, ())
                methods += [one for one in operations if one not in methods]
        return Found(None, {}, tuple(methods))


def path_of(operation: Operation, values: Mapping[str, str]) -> str:
    """The operation's path with `values`, encoded: what is passed on is a published path, however it was spelt."""
    path = operation.path
    for name, value in values.items():
        path = path.replace("{" + name + "}", quote(value, safe=":"))
    return path
