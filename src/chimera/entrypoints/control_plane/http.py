"""What every handler of the control plane shares: bodies, answers, problem documents, metrics.

The gateway has authenticated the caller and says in `Chimera-Principal` who that is; the socket is open to this user
alone. Every answer to a change carries `Chimera-Sequence`, the number of the last change in it, so that the gateway
can catch up before it passes the answer on.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from chimera.entrypoints.published.parameters import DEFAULT_PAGE, LARGEST_PAGE
from chimera.gateway.identity.principal import Principal, decode_header, system
from chimera.kernel.ids import is_name
from chimera_host.contract.problem import PROBLEM_MEDIA_TYPE, ProblemError

log = logging.getLogger(__name__)

HEADER_SEQUENCE = "Chimera-Sequence"
HEADER_PRINCIPAL = "Chimera-Principal"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_BODY = 256 * 1024 * 1024
_INLINE_BODY = 64 * 1024
LOCAL = system("local")
"""Who calls without the gateway: a process of this machine's user, which the socket lets in."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")


class BadRequest(ProblemError):
    """The request's body or parameters are wrong."""

    code = "invalid-request"
    status = 400
    title = "The request is not valid"


class UnknownPath(ProblemError):
    """Nothing is served at this path, or not by this method."""

    code = "not-found"
    status = 404
    title = "There is nothing here"


class MethodNotAllowed(ProblemError):
    """The address exists, but not with this method."""

    code = "method-not-allowed"
    status = 405
    title = "Not with this method"


class Metrics:
    """Requests by path pattern and status, and the catalogue's size."""

    def __init__(self) -> None:
        """Start at zero."""
        self.registry = CollectorRegistry(auto_describe=True)
        self.requests = Counter(
            "chimera_control_plane_requests",
            "Requests by method, path pattern and status.",
            ("method", "path", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "chimera_control_plane_request_seconds", "Time of a request.", ("path",), registry=self.registry
        )
        self.agents = Gauge(
            "chimera_control_plane_agents", "Live agents by framework.", ("framework",), registry=self.registry
        )
        self.changes = Gauge(
            "chimera_control_plane_changes", "Change requests in flight by state.", ("state",), registry=self.registry
        )
        self.rollouts = Gauge(
            "chimera_control_plane_rollouts", "Rollouts by state.", ("state",), registry=self.registry
        )
        self.sequence = Gauge(
            "chimera_control_plane_sequence", "Number of the catalogue's newest change.", registry=self.registry
        )
        self.database_bytes = Gauge(
            "chimera_control_plane_database_bytes", "Size of the database.", registry=self.registry
        )

    def exposition(self, status: dict[str, Any], changes: dict[str, int], rollouts: dict[str, int]) -> bytes:
        """The page for Prometheus; `status` is the catalogue's, `changes` counts those in flight by state.

        `rollouts` counts all that are kept by state.
        """
        self.rollouts.clear()
        for state, count in rollouts.items():
            self.rollouts.labels(state).set(count)
        self.changes.clear()
        for state, count in changes.items():
            self.changes.labels(state).set(count)
        self.agents.clear()
        for framework, count in status["agents_by_framework"].items():
            self.agents.labels(framework).set(count)
        self.sequence.set(status["sequence"])
        self.database_bytes.set(status["database_bytes"])
        return generate_latest(self.registry)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer every error with a problem document, and count."""
        began = time.monotonic()
        try:
            response = await handler(request)
        except ProblemError as error:
            response = problem(request, error)
        except web.HTTPException as error:
            response = problem(request, _of_http(request, error))
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        except ConnectionError:
            # The gateway tells its caller what is wrong with the body; here nobody waits for the answer.
            response = problem(request, BadRequest("the body broke off", next_step="send all of it"))
        except Exception:
            log.exception("request failed", extra={"path": request.path, "method": request.method})
            response = problem(
                request, ProblemError("the control plane failed", next_step="see the control plane's log")
            )
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else "other"
        self.requests.labels(request.method, path, str(response.status)).inc()
        self.seconds.labels(path).observe(time.monotonic() - began)
        return response


def problem(request: web.Request, error: ProblemError) -> web.Response:
    """The problem document of `error`."""
    headers = {"Retry-After": str(max(1, round(error.retry_after)))} if error.retry_after else {}
    body = msgspec.json.encode(error.problem(instance=request.path))
    return web.Response(status=error.status, body=body, content_type=PROBLEM_MEDIA_TYPE, headers=headers)


def answer(value: Any, *, status: int = 200, sequence: int | None = None) -> web.Response:
    """`value` as JSON."""
    headers = {HEADER_SEQUENCE: str(sequence)} if sequence is not None else None
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json", headers=headers
    )


async def body_of(request: web.Request, kind: type[T], *, default: T | None = None) -> T:
    """The body as `kind`; an empty one is `default` where there is one. Large ones are read in a thread."""
    data = await request.read()
    if not data and default is not None:
        return default
    if len(data) <= _INLINE_BODY:
        return _decode(data, kind)
    return await asyncio.to_thread(_decode, data, kind)


PAGE = ("after", "limit")
"""The parameters of every list in pages."""


def page_size(request: web.Request, known: Sequence[str]) -> int:
    """How many rows a page may have; refuses that, and parameters that aren't among `known`."""
    if unknown := sorted(set(request.query) - set(known)):
        raise BadRequest(f"unknown parameter {unknown[0]!r}", next_step=f"use {', '.join(known)}")
    text = request.query.get("limit", str(DEFAULT_PAGE))
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 1 <= limit <= LARGEST_PAGE:
        raise BadRequest(f"limit={text[:20]!r} is no page size", next_step=f"use a number from 1 to {LARGEST_PAGE}")
    return limit


def tenant_of(request: web.Request) -> str:
    """The tenant in the path."""
    tenant = request.match_info["tenant"]
    if not is_name(tenant):
        raise BadRequest(f"{tenant!r} is not a tenant's name", next_step="use lower-case letters, digits and hyphens")
    return tenant


def principal_of(request: web.Request) -> Principal:
    """Who calls, as the gateway says; on this socket nobody else can say anything."""
    shown = request.headers.get(HEADER_PRINCIPAL)
    if shown is None:
        return LOCAL
    try:
        return decode_header(shown)
    except ValueError as error:
        raise BadRequest(f"{HEADER_PRINCIPAL} names no principal", next_step="call through the gateway") from error


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(
            f"the body is not what was expected: {error}", next_step="see the API's description at /openapi.json"
        ) from None


def _of_http(request: web.Request, error: web.HTTPException) -> ProblemError:
    if error.status == HTTPStatus.NOT_FOUND:
        return UnknownPath(f"nothing is served at {request.path!r}", next_step="see /openapi.json")
    if isinstance(error, web.HTTPMethodNotAllowed):
        takes = ", ".join(sorted(error.allowed_methods))
        return MethodNotAllowed(f"{request.path!r} takes no {request.method}", next_step=f"it takes {takes}")
    found = ProblemError(f"{error.reason}: {request.method} {request.path}", next_step="see /openapi.json")
    found.status, found.title = error.status, error.reason
    found.code = "payload-too-large" if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else "invalid-request"
    return found
