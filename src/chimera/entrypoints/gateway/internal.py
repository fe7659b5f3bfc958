"""The listener for hosts: revisions, bundles, models, agents as tools, credentials, state.

A host shows its token, which says its name and cell. Everything it asks for is on behalf of a call in flight on it: the
header Chimera-Call names the call, except for a revision and its bundle, which several calls may wait for at once; they
are given to a host on which a call of that revision is in flight. So a token alone gives nothing.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from aiohttp import web

from chimera.entrypoints.gateway.http import (
    ENCODER,
    BoundedServer,
    decoded,
    internal_error,
    json_response,
    openai_error,
    problem_response,
    read_body,
)
from chimera.entrypoints.gateway.internal_state import InternalState
from chimera.entrypoints.gateway.streams import EventStream, data_event
from chimera.gateway import tokens
from chimera.gateway.audit import AuditTrail, denial
from chimera.gateway.calls import CallTable, InFlightCall
from chimera.gateway.credentials import Credentials, may_call, may_write
from chimera.gateway.documents import Documents
from chimera.gateway.errors import Forbidden, InvalidRequest, NotFound, Unauthenticated, UnknownCall
from chimera.gateway.eventing.messages import Messages
from chimera.gateway.functions import Asking, Functions
from chimera.gateway.guard import LOOPBACK_NAMES, check_host
from chimera.gateway.identity.principal import Principal
from chimera.gateway.invoke import Incoming, Invoker
from chimera.gateway.models import ModelGateway
from chimera.gateway.policy.authorise import Asked, Authoriser, agent_principal
from chimera.gateway.policy.resources import facts_of_route
from chimera.gateway.ports import HostIdentities, HostPool, RevisionSource
from chimera.gateway.routes import RouteTable
from chimera.gateway.settings import GatewaySettings
from chimera.gateway.state.answers import Answers
from chimera.gateway.state.runs import NO_STATE, Wanted
from chimera.immune.audit.model import AuditRecord, Decision
from chimera.kernel.clock import Clock
from chimera_host.contract.call import HEADER_CALL, HEADER_DEADLINE, HEADER_TRACEPARENT, Message
from chimera_host.contract.function import ASK_DECODER, PATH_FUNCTION, FunctionAsk
from chimera_host.contract.problem import ProblemError
from chimera_host.contract.state import HEADER_IDEMPOTENCY
from chimera_host.contract.token import PATH_TOKEN, FreshToken
from chimera_host.trace import current_trace, parse

PREFIX = "/internal/v1/"
MOST_NAMES = 16
BODY_BYTES = 64 * 1024**2
KNOWN_TOKENS = 4_096
MESSAGES = "/messages"
REVISIONS, BUNDLES, AGENTS, INVOKE = PREFIX + "revisions/", PREFIX + "bundles/", PREFIX + "agents/", "/invoke"
STATE = PREFIX + "state/"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class AgentToolBody(msgspec.Struct, frozen=True, kw_only=True):
    """A call of an agent by an agent."""

    message: str


class MessageBody(msgspec.Struct, frozen=True, kw_only=True):
    """A message of an agent to an agent."""

    message: str
    reply: bool = True


class CredentialsBody(msgspec.Struct, frozen=True, kw_only=True):
    """The references that a tool needs."""

    names: tuple[str, ...]


_chats = msgspec.json.Decoder(dict[str, Any])
_messages = msgspec.json.Decoder(AgentToolBody)
_letters = msgspec.json.Decoder(MessageBody)
_references = msgspec.json.Decoder(CredentialsBody)


class InternalApi:
    """Answers hosts."""

    def __init__(
        self,
        *,
        secret: bytes,
        revisions: RevisionSource,
        documents: Documents,
        calls: CallTable,
        invoker: Invoker,
        routes: RouteTable,
        pool: HostPool,
        authoriser: Authoriser,
        audit: AuditTrail,
        models: ModelGateway,
        answers: Answers,
        state: InternalState,
        credentials: Credentials,
        messages: Messages,
        functions: Functions,
        settings: GatewaySettings,
        clock: Clock,
        identities: HostIdentities | None = None,
        names: frozenset[str] = frozenset(),
    ) -> None:
        """Put the parts together; `secret` signs the tokens of hosts.

        `identities` vouches for pods; `names` are what a Host header may say beside the address of the listener.
        """
        self._identities = identities
        self._names = LOOPBACK_NAMES | names
        self._secret = secret
        self._revisions = revisions
        self._documents = documents
        self._calls = calls
        self._invoker = invoker
        self._routes = routes
        self._pool = pool
        self._authoriser = authoriser
        self._audit = audit
        self._models = models
        self._answers = answers
        self._state = state
        self._credentials = credentials
        self._written = messages
        self._functions = functions
        self._settings = settings
        self._clock = clock
        self._known: OrderedDict[str, tokens.HostClaims] = OrderedDict()
        self.draining = False

    def server(self) -> BoundedServer:
        """The server for aiohttp's runner."""
        return BoundedServer(self.handle, settings=self._settings.http, body_bytes=BODY_BYTES)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path = request.path
        try:
            if path in ("/livez", "/readyz"):
                if self.draining and path == "/readyz":
                    return web.Response(status=503, text="draining\n")
                return web.Response(text="ok\n")
            self._check_headers(request)
            if path == PATH_TOKEN and request.method == "POST" and self._identities is not None:
                token = _shown(request)
                if not tokens.is_token(token):
                    return await self._introduce(self._identities, token)
            claims = self._claims(request)
            if (trace := parse(request.headers.get(HEADER_TRACEPARENT))) is not None:
                current_trace.set(trace)
            return await self._dispatch(request, path, claims)
        except ProblemError as error:
            if (entry := denial(error, at=self._clock.wall())) is not None:
                await self._audit.refused(entry)
            return problem_response(error, request=request.headers.get(HEADER_CALL))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            return problem_response(internal_error(error), request=request.headers.get(HEADER_CALL))

    def _check_headers(self, request: web.BaseRequest) -> None:
        headers = request.headers
        if "Origin" in headers:
            raise Forbidden("no page may call the internal API")
        if request.transport is not None and request.transport.get_extra_info("sockname"):
            name = request.transport.get_extra_info("sockname")
            if isinstance(name, tuple):  # a Unix socket's is text: nobody but this machine's user reaches it
                check_host(headers.get("Host"), self._names | {str(name[0])})

    def _claims(self, request: web.BaseRequest) -> tokens.HostClaims:
        token = _shown(request)
        now = self._clock.wall()
        known = self._known.get(token)
        leeway = self._settings.identity.clock_leeway
        if known is not None and known.expires + leeway > now:
            return known
        claims = tokens.verify(self._secret, token, now=now, leeway=leeway)
        self._known[token] = claims
        if len(self._known) > KNOWN_TOKENS:
            self._known.popitem(last=False)
        return claims

    async def _dispatch(self, request: web.BaseRequest, path: str, host: tokens.HostClaims) -> web.StreamResponse:
        if request.method == "POST" and path == PREFIX + "chat/completions":
            return await self._chat(request, self._call(request, host))
        if request.method == "GET" and path.startswith(REVISIONS):
            digest = self._own_revision(_digest(path.removeprefix(REVISIONS)), host)
            return _content(await self._revisions.document(digest), "application/json", path)
        if request.method == "GET" and path.startswith(BUNDLES):
            digest = await self._own_bundle(_digest(path.removeprefix(BUNDLES)), host)
            return _content(await self._revisions.bundle(digest), "application/gzip", path)
        if request.method == "POST" and path.startswith(AGENTS) and path.endswith(INVOKE):
            agent = path.removeprefix(AGENTS).removesuffix(INVOKE)
            return await self._agent(request, self._call(request, host), agent)
        if request.method == "POST" and path.startswith(AGENTS) and path.endswith(MESSAGES):
            agent = path.removeprefix(AGENTS).removesuffix(MESSAGES)
            return await self._message(request, self._call(request, host), agent)
        if request.method == "POST" and path == PATH_TOKEN:
            return self._renew(host)
        if request.method == "POST" and path == PREFIX + "credentials":
            return await self._give(request, self._call(request, host))
        if request.method == "POST" and path == PATH_FUNCTION:
            return await self._function(request, self._call(request, host))
        if path.startswith(STATE):
            return await self._state.answer(request, path.removeprefix(STATE), self._call(request, host))
        raise NotFound(f"the internal API has no {request.method[:20]} {path[:200]}")

    def _call(self, request: web.BaseRequest, host: tokens.HostClaims) -> InFlightCall:
        name = request.headers.get(HEADER_CALL)
        if name is None:
            raise Unauthenticated("the request names no call", next_step=f"send the header {HEADER_CALL}")
        return self._calls.named(name, host=host.host, cell=host.cell)

    def _own_revision(self, digest: str, host: tokens.HostClaims) -> str:
        if digest not in self._calls.revisions_on(host.host, cell=host.cell):
            raise _not_running("revision", digest, host)
        return digest

    async def _own_bundle(self, digest: str, host: tokens.HostClaims) -> str:
        for revision in self._calls.revisions_on(host.host, cell=host.cell):
            source = (await self._documents.get(revision)).source
            if source is not None and source.bundle == digest:
                return digest
        raise _not_running("bundle", digest, host)

    async def _body(self, request: web.BaseRequest, decoder: "msgspec.json.Decoder[Any]") -> Any:
        return decoded(decoder, await read_body(request, self._settings.http, BODY_BYTES))

    def _left(self, request: web.BaseRequest, call: InFlightCall) -> float:
        """Seconds left: the least of what the host gives and what its call has."""
        left = call.deadline - asyncio.get_running_loop().time()
        given = request.headers.get(HEADER_DEADLINE)
        if given is not None:
            try:
                wanted = float(given)
            except ValueError:
                wanted = -1.0
            if not 0 <= wanted < float("inf"):
                raise InvalidRequest(f"{HEADER_DEADLINE} {given[:40]!r} is no number of seconds")
            left = min(left, wanted)
        return max(0.001, left)

    async def _chat(self, request: web.BaseRequest, call: InFlightCall) -> web.StreamResponse:
        body = await self._body(request, _chats)
        left = self._left(request, call)
        call.effects += 1
        key = request.headers.get(HEADER_IDEMPOTENCY)
        if not body.get("stream"):
            return json_response(await self._complete(call, key, body, left))
        http = self._settings.http
        async with EventStream(request, {}, comment=http.stream_comment, idle=http.stream_idle) as stream:
            try:
                async with aclosing(self._chunks(call, key, body, left)) as chunks:
                    async for chunk in chunks:
                        await stream.send(data_event(ENCODER.encode(chunk)))
                return await stream.end(data_event(b"[DONE]"))
            except ConnectionError:
                return stream.abandon()
            except ProblemError as error:
                if not stream.started:
                    raise
                return await stream.end(data_event(ENCODER.encode({"error": openai_error(error)})))

    async def _complete(self, call: InFlightCall, key: str | None, body: dict[str, Any], left: float) -> dict[str, Any]:
        """A whole answer; with a key of the call's run, one that is paid once."""
        if key is None or call.opened is None:
            return await self._models.complete(call, body, left)
        asked = {**body, "model": call.route.model}
        return await self._answers.whole(call.opened, key, asked, lambda: self._models.complete(call, body, left))

    def _chunks(
        self, call: InFlightCall, key: str | None, body: dict[str, Any], left: float
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The same as a stream."""
        if key is None or call.opened is None:
            return self._models.stream(call, body, left)
        asked = {**body, "model": call.route.model}
        return self._answers.chunks(call.opened, key, asked, lambda: self._models.stream(call, body, left))

    async def _agent(self, request: web.BaseRequest, call: InFlightCall, agent: str) -> web.Response:
        _effects_allowed(call, "agent")
        body: AgentToolBody = await self._body(request, _messages)
        left = self._left(request, call)
        document = await self._documents.get(call.route.revision)
        if not may_call(document, agent):
            raise await self._not_a_tool(call, agent)
        principal = await self._authorise(call, agent)
        call.effects += 1
        answered = await self._invoker.run(
            Incoming(
                tenant=call.route.tenant,
                agent=agent,
                messages=(Message(role="user", content=body.message),),
                protocol="agent",
                state=_child(call, request.headers.get(HEADER_IDEMPOTENCY)),
                within=left,
                trace=parse(request.headers.get(HEADER_TRACEPARENT)) or call.trace,
                parent=call,
                actor=principal.actor,
            )
        )
        return json_response({"output": answered.response.output})

    async def _message(self, request: web.BaseRequest, call: InFlightCall, agent: str) -> web.Response:
        _effects_allowed(call, "message")
        body: MessageBody = await self._body(request, _letters)
        document = await self._documents.get(call.route.revision)
        if not may_write(document, agent, reply=body.reply):
            raise await self._not_a_tool(call, agent)
        principal = await self._authorise(call, agent, "message")
        call.effects += 1
        key = request.headers.get(HEADER_IDEMPOTENCY)
        sent = await self._written.send(call, agent, body.message, reply=body.reply, key=key, actor=principal.actor)
        return json_response({"id": sent})

    async def _not_a_tool(self, call: InFlightCall, agent: str) -> Forbidden:
        """The refusal of an agent that isn't among the tools, once the audit log has it."""
        error = Forbidden(
            f"agent {call.route.agent} doesn't list agent {agent[:100]!r} as a tool",
            next_step="add it to `tools` of its definition",
            agent=call.route.agent,
        )
        told = {"reasons": ["tools"]}
        await self._audit.refused(self._entry(call, "agent:invoke", f"agents/{agent[:100]}", "deny", error.code, told))
        return error

    def _renew(self, host: tokens.HostClaims) -> web.Response:
        """A fresh token for a host that is known to run; one that isn't gets no longer life out of an old token."""
        running = any(one.host == host.host for one in self._pool.endpoints(host.cell))
        if not (running or self._calls.on_host(host.host)):
            raise Forbidden(f"no host {host.host[:100]} of cell {host.cell[:100]} runs here")
        life = self._settings.identity.token_life
        fresh = tokens.mint(self._secret, host=host.host, cell=host.cell, expires=self._clock.wall() + life)
        return json_response(FreshToken(token=fresh, expires_in=life))

    async def _introduce(self, identities: HostIdentities, token: str) -> web.Response:
        """The first token of a pod, and its key, for what its cluster says of it."""
        known = await identities.identify(token)
        life = self._settings.identity.token_life
        fresh = tokens.mint(self._secret, host=known.host, cell=known.cell, expires=self._clock.wall() + life)
        key = tokens.host_key(self._secret, host=known.host, unique=known.unique)
        return json_response(FreshToken(token=fresh, expires_in=life, host=known.host, cell=known.cell, host_key=key))

    async def _authorise(self, call: InFlightCall, agent: str, protocol: str = "agent") -> Principal:
        """An agent's call is a call like any other: policies say whether this agent may, on top of its own tools."""
        route = call.route
        principal = agent_principal(route, await self._routes.cell(route.cell))
        asked = Asked(protocol=protocol, depth=call.depth + 1, caller=facts_of_route(route))
        self._authoriser.check_agent(principal, route.tenant, agent, asked)
        return principal

    async def _give(self, request: web.BaseRequest, call: InFlightCall) -> web.Response:
        _effects_allowed(call, "credential")
        body: CredentialsBody = await self._body(request, _references)
        document = await self._documents.get(call.route.revision)
        call.effects += 1
        resource, told = f"agents/{call.route.agent}", {"names": [name[:200] for name in body.names[:MOST_NAMES]]}
        try:
            found = await self._credentials.resolve(document, body.names)
        except ProblemError as error:
            await self._audit.refused(self._entry(call, "credential:read", resource, "deny", error.code, told))
            raise
        await self._audit.durable(
            self._audit.decided(self._entry(call, "credential:read", resource, "allow", "done", told))
        )
        return json_response(found)

    async def _function(self, request: web.BaseRequest, call: InFlightCall) -> web.Response:
        """Ask the function that the call's agent stands for, which has effects that nobody here can know."""
        body: FunctionAsk = await self._body(request, ASK_DECODER)
        document = await self._documents.get(call.route.revision)
        left = self._left(request, call)
        call.effects += 1
        if (script := call.root.script) is not None:
            return json_response({"output": script.next().text or ""})
        _effects_allowed(call, "function")
        trace = parse(request.headers.get(HEADER_TRACEPARENT)) or call.trace
        key = request.headers.get(HEADER_IDEMPOTENCY) if call.opened is not None else None
        asking = Asking(call=call.call, left=left, key=key, traceparent=trace.header())
        try:
            return json_response({"output": await self._functions.ask(document, body.messages, asking)})
        except ProblemError as error:
            error.agent = call.route.agent
            raise

    def _entry(
        self, call: InFlightCall, action: str, resource: str, decision: Decision, outcome: str, detail: dict[str, Any]
    ) -> AuditRecord:
        """An entry of the audit log about what the agent of `call` asks for."""
        return AuditRecord(
            at=self._clock.wall(),
            tenant=call.route.tenant,
            actor=f"agent:{call.route.agent}",
            action=action,
            resource=resource,
            decision=decision,
            outcome=outcome,
            call=call.call,
            detail=detail,
        )


def _effects_allowed(call: InFlightCall, what: str) -> None:
    """Refuse what has an effect outside of a test whose tools are scripted: its host asks for none of it."""
    if call.is_scripted:
        raise Forbidden(
            f"agent {call.route.agent} asked for {what} in a test that answers for its tools",
            next_step="make it an integration test",
            agent=call.route.agent,
        )


def _child(call: InFlightCall, key: str | None) -> Wanted:
    """The run of a call that a run makes: asked for again by the same step, it gives the same answer."""
    if key is None or call.opened is None:
        return NO_STATE
    run = call.opened.run
    return Wanted(actor=f"run:{run.run}", key=key, subject=run.subject)


def _shown(request: web.BaseRequest) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def _digest(text: str) -> str:
    if _DIGEST.fullmatch(text) is None:
        raise InvalidRequest(f"{text[:100]!r} is no digest", next_step="use sha256: and 64 hexadecimal digits")
    return text


def _not_running(what: str, digest: str, host: tokens.HostClaims) -> UnknownCall:
    return UnknownCall(
        f"no call in flight on host {host.host} is of {what} {digest[:19]}",
        next_step="ask for it while a call of its agent runs on this host",
    )


def _content(data: bytes | None, media: str, path: str) -> web.Response:
    if data is None:
        raise NotFound(f"nothing is stored at {path[:200]}", next_step="apply the agent again")
    return web.Response(body=data, content_type=media)
