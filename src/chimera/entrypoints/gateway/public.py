"""The public listener: guard, find the operation, answer it or pass it on to its owner; nothing else is served.

The order is fixed: Host and Origin first, then who asks, then whether they may, then anything that costs. A request
that fails gets a problem document, whatever failed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from aiohttp import web

from chimera.entrypoints.gateway import openapi
from chimera.entrypoints.gateway.audit import AuditHandlers
from chimera.entrypoints.gateway.audit_operations import AUDIT
from chimera.entrypoints.gateway.calls import CallHandlers, Values, page_limit
from chimera.entrypoints.gateway.event_operations import EVENTS
from chimera.entrypoints.gateway.events import EventHandlers
from chimera.entrypoints.gateway.hooks import HOOKS, HookHandlers
from chimera.entrypoints.gateway.http import (
    HEADER_REQUEST,
    PRINCIPAL,
    BoundedServer,
    check_json,
    internal_error,
    json_response,
    problem_response,
    request_id,
)
from chimera.entrypoints.gateway.identity import IdentityHandlers
from chimera.entrypoints.gateway.identity_operations import IDENTITY
from chimera.entrypoints.gateway.operations import OPERATIONS, SERVED, Matcher, path_of
from chimera.entrypoints.gateway.proxy import Proxy
from chimera.entrypoints.gateway.state import StateHandlers
from chimera.entrypoints.gateway.state_operations import STATE
from chimera.entrypoints.gateway.task_operations import TASKS
from chimera.entrypoints.gateway.tasks import TaskHandlers
from chimera.entrypoints.published.operation import JSON, Operation
from chimera.gateway import api
from chimera.gateway.admission import Admission
from chimera.gateway.audit import AuditTrail, decision_record, denial, unauthenticated
from chimera.gateway.errors import (
    AgentNotFound,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Unauthenticated,
)
from chimera.gateway.guard import check_host, check_origin
from chimera.gateway.identity.authenticate import Authenticator
from chimera.gateway.identity.errors import (
    IdentityUnavailable,
    IssuerUnavailable,
    NotAllowed,
    TenantSuspended,
    TooManyFailures,
)
from chimera.gateway.identity.principal import ALL_TENANTS, Principal
from chimera.gateway.metrics import MEDIA_TYPE, GatewayMetrics
from chimera.gateway.policy.authorise import Asked, Authoriser
from chimera.gateway.policy.model import PLATFORM, Resource
from chimera.gateway.policy.resources import resource_of
from chimera.gateway.routes import RouteTable, check_offered
from chimera.gateway.settings import HttpSettings
from chimera.kernel.ids import DEFAULT_TENANT, is_name
from chimera_host.contract.problem import ProblemError

_ASKED = {"openai": Asked(protocol="openai")}
_OTHERWISE = Asked()
REFUSALS = (NotAllowed, TenantSuspended, TooManyFailures, IssuerUnavailable, IdentityUnavailable)

Handler = Callable[[web.BaseRequest, Values, str], Awaitable[web.StreamResponse]]


class Passed(Protocol):
    """Who answers the operations of one owner: another process, or a part of this one in its place."""

    async def pass_on(self, request: web.BaseRequest, request_id: str, path: str) -> web.StreamResponse:
        """The answer to `request`, asked at the encoded `path`."""


class Allowed(NamedTuple):
    """An operation that a principal may do on a resource."""

    principal: Principal
    operation: Operation
    resource: Resource


@dataclass(frozen=True, kw_only=True, slots=True)
class Guards:
    """What a request must show: a Host of `hosts`, no Origin but its own by `scheme`, who asks, and that they may."""

    authenticator: Authenticator
    authoriser: Authoriser
    hosts: frozenset[str]
    scheme: str


class PublicApi:
    """Answers the public listener."""

    def __init__(
        self,
        *,
        guards: Guards,
        calls: CallHandlers,
        identity: IdentityHandlers,
        state: StateHandlers,
        tasks: TaskHandlers,
        events: EventHandlers,
        hooks: HookHandlers,
        routes: RouteTable,
        admission: Admission,
        metrics: GatewayMetrics,
        control_plane: Proxy,
        node: Passed,
        audit: AuditTrail,
        audit_log: AuditHandlers,
        settings: HttpSettings,
    ) -> None:
        """Put the parts together."""
        self._guards = guards
        self._calls = calls
        self._identity = identity
        self._state = state
        self._tasks = tasks
        self._events = events
        self._hooks = hooks
        self._routes = routes
        self._admission = admission
        self._metrics = metrics
        self._control_plane = control_plane
        self._node = node
        self._audit = audit
        self._audit_log = audit_log
        self._settings = settings
        self._matcher = Matcher(OPERATIONS)
        handlers = self._named_handlers()
        answered = SERVED + STATE + TASKS + EVENTS + IDENTITY + AUDIT + HOOKS
        self._handlers = {operation.name: handlers.pop(operation.name) for operation in answered}
        if handlers:
            raise AssertionError(f"not published: {', '.join(handlers)}")
        self._document = b""
        self.draining = False

    def server(self) -> BoundedServer:
        """The server for aiohttp's runner."""
        return BoundedServer(self.handle, settings=self._settings, body_bytes=self._settings.body_bytes)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        name = request_id(request)
        path = request.rel_url.raw_path
        allowed: Allowed | None = None
        try:
            found = self._matcher.find(request.method, path)
            operation = found.operation
            principal = None
            if operation is None or operation.key:
                principal = request[PRINCIPAL] = await self._authenticated(request)
            _check_target(request.raw_path)
            if operation is None:
                raise _absent(request.method, path, found.methods)
            if principal is not None and operation.resource != "body":
                allowed = Allowed(principal, operation, self._authorise(principal, operation, found.values))
            response = await self._answer(operation, request, found.values, name)
            self._tell(allowed, str(response.status), name)
            return response
        except REFUSALS as error:
            self._metrics.refused.labels(error.code).inc()
            if (entry := denial(error, at=self._audit.now(), request=name)) is not None:
                await self._audit.refused(entry)
            return _refused(request, error, name, path)
        except Unauthenticated as error:
            self._metrics.refused.labels(error.code).inc()
            response = _refused(request, error, name, path)
            shown = "Authorization" in request.headers
            if shown:
                at, address = self._audit.now(), request.remote or ""
                await self._audit.refused(unauthenticated(at=at, request=name, outcome=error.code, address=address))
            response.headers["WWW-Authenticate"] = self._identity.challenge(request, shown=shown)
            return response
        except ProblemError as error:
            self._tell(allowed, error.code, name)
            return _refused(request, error, name, path)
        except (ConnectionError, asyncio.CancelledError):
            self._tell(allowed, "cancelled", name)
            raise
        except Exception as error:
            self._tell(allowed, "internal", name)
            return _refused(request, internal_error(error), name, path)

    async def _authenticated(self, request: web.BaseRequest) -> Principal:
        headers, guards = request.headers, self._guards
        host = headers.get("Host")
        check_host(host, guards.hosts)
        check_origin(headers.get("Origin"), host or "", guards.scheme)
        return await guards.authenticator.authenticate(headers.get("Authorization"), request.remote or "")

    def _tell(self, allowed: "Allowed | None", outcome: str, request: str) -> None:
        """Record an operation that was allowed, and what came of it; a call of an agent has entries of its own."""
        if allowed is None or allowed.operation.action == "agent:invoke":
            return
        if allowed.operation.method == "GET" and not self._audit.records_reads:
            return
        self._audit.outcome(
            decision_record(
                allowed.principal,
                allowed.operation.action,
                allowed.resource,
                at=self._audit.now(),
                decision="allow",
                outcome=outcome,
                request=request,
                detail={"operation": allowed.operation.name},
            )
        )

    def _authorise(self, principal: Principal, operation: Operation, values: Values) -> Resource:
        authoriser = self._guards.authoriser
        if operation.resource == "own":
            everywhere = principal.tenant == ALL_TENANTS
            resource = PLATFORM if everywhere else Resource(kind="Tenant", tenant=principal.tenant)
        else:
            resource = resource_of(operation.action, values, authoriser.facts_of)
        authoriser.check(principal, operation.action, resource, _ASKED.get(operation.tag, _OTHERWISE))
        return resource

    async def _answer(
        self, operation: Operation, request: web.BaseRequest, values: Values, name: str
    ) -> web.StreamResponse:
        _check_names(values)
        if operation.body is not None and operation.takes == JSON:
            check_json(request)
        match operation.owner:
            case "gateway":
                return await self._handlers[operation.name](request, values, name)
            case "control-plane":
                return await self._control_plane.pass_on(request, name, path_of(operation, values))
            case "node":
                return await self._node.pass_on(request, name, path_of(operation, values))

    def _named_handlers(self) -> dict[str, Handler]:
        return {
            "invoke": self._calls.invoke,
            "chat": self._calls.chat,
            "tenant_chat": self._calls.chat,
            "models": self._models,
            "tenant_models": self._models,
            "model": self._model,
            "tenant_model": self._model,
            "openapi": self._openapi,
            "livez": self._livez,
            "readyz": self._readyz,
            "metrics": self._exposition,
            **self._state.handlers(),
            **self._tasks.handlers(),
            **self._events.handlers(),
            **self._identity.handlers(),
            **self._audit_log.handlers(),
            **self._hooks.handlers(),
        }

    async def _model(self, _: web.BaseRequest, values: Values, name: str) -> web.Response:
        route = self._routes.find(values.get("tenant", DEFAULT_TENANT), values["agent"])
        check_offered(route, "openai")
        return json_response(api.model_card(route), headers={HEADER_REQUEST: name})

    async def _openapi(self, _: web.BaseRequest, __: Values, name: str) -> web.Response:
        self._document = self._document or openapi.encoded()
        return web.Response(body=self._document, content_type=JSON, headers={HEADER_REQUEST: name})

    async def _livez(self, _: web.BaseRequest, __: Values, ___: str) -> web.Response:
        return web.Response(text="ok\n")

    async def _models(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        tenant = values.get("tenant", DEFAULT_TENANT)
        limit = page_limit(request.query.get("limit"), self._settings.page)
        after = request.query.get("after")
        routes, more = self._routes.page(
            tenant, after=after.removeprefix(api.MODEL_PREFIX) if after is not None else None, limit=limit
        )
        cards = [api.model_card(route) for route in routes]
        page = api.ModelList(
            data=cards,
            has_more=more,
            first_id=cards[0].id if cards else None,
            last_id=cards[-1].id if cards else None,
        )
        return json_response(page, headers={HEADER_REQUEST: name})

    async def _readyz(self, _: web.BaseRequest, __: Values, ___: str) -> web.Response:
        if self.draining:
            return web.Response(status=503, text="draining\n")
        if not self._routes.loaded:
            return web.Response(status=503, text="reading routes\n")
        return web.Response(text="ready\n")

    async def _exposition(self, _: web.BaseRequest, __: Values, ___: str) -> web.Response:
        return self._page()

    async def metrics_page(self, request: web.BaseRequest) -> web.Response:
        """The same page at a listener of its own, for whoever the network lets there; it takes no key."""
        if request.path != "/metrics" or request.method not in ("GET", "HEAD"):
            return web.Response(status=404, text="only GET /metrics is here\n")
        return self._page()

    def _page(self) -> web.Response:
        metrics = self._metrics
        metrics.in_flight.set(self._admission.in_flight)
        metrics.held.set(self._admission.held)
        metrics.routes.set(len(self._routes))
        metrics.sequence.set(self._routes.sequence)
        metrics.audit_waiting.set(self._audit.waiting)
        return web.Response(body=metrics.exposition(), headers={"Content-Type": MEDIA_TYPE})


def _check_target(raw_path: str) -> None:
    try:
        raw_path.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            f"the path is not UTF-8: {raw_path[:200]!r}", next_step="write other characters as %XX, in UTF-8"
        ) from None
    if "%00" in raw_path:  # nothing has such a name, and PostgreSQL takes it in no text
        raise InvalidRequest(f"the path or query holds NUL: {raw_path[:200]!r}", next_step="leave %00 out")


def _check_names(values: Values) -> None:
    """No list is empty because of a name that nothing can have."""
    tenant, agent = values.get("tenant", DEFAULT_TENANT), values.get("agent")
    if tenant != ALL_TENANTS and not is_name(tenant):
        raise InvalidRequest(
            f"{tenant[:100]!r} is not a tenant's name", next_step="use lower-case letters, digits and hyphens"
        )
    if agent is not None and not is_name(agent):
        raise AgentNotFound(f"there is no agent {agent[:100]!r}", next_step="see `chimera get agents`")


def _absent(method: str, path: str, methods: tuple[str, ...]) -> GatewayError:
    if methods:
        return MethodNotAllowed(f"{path[:200]!r} takes no {method[:20]!r}", methods)
    if path.startswith("/v1/models/"):
        model = path.removeprefix("/v1/models/")
        return AgentNotFound(f"there is no model {model[:100]!r}", next_step="see GET /v1/models")
    return NotFound(f"nothing is at {path[:200]!r}", next_step="see GET /openapi.json")


def _refused(request: web.BaseRequest, error: ProblemError, name: str, path: str) -> web.Response:
    openai = path.endswith("/chat/completions") or "/models" in path
    response = problem_response(error, request=name, openai=openai)
    response.headers[HEADER_REQUEST] = name
    if not request.content.is_eof() and isinstance(error, GatewayError):
        response.force_close()  # don't read a body that nobody wants
    return response
