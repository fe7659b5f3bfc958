"""Calls over HTTP: JSON whole, or server-sent events."""

from typing import Any

import msgspec
from aiohttp import web

from chimera.entrypoints.gateway.http import (
    ENCODER,
    HEADER_REQUEST,
    decoded,
    internal_error,
    json_response,
    openai_error,
    principal_of,
    read_body,
)
from chimera.entrypoints.gateway.streams import EventStream, data_event, event
from chimera.entrypoints.published.parameters import LATEST
from chimera.gateway import api
from chimera.gateway.errors import InvalidRequest
from chimera.gateway.hosts import SinkClosed
from chimera.gateway.invoke import Answered, Incoming, Invoker
from chimera.gateway.policy.authorise import Asked, Authoriser
from chimera.gateway.settings import HttpSettings
from chimera.gateway.state.runs import NO_STATE, Wanted
from chimera.kernel.clock import Clock
from chimera.kernel.ids import DEFAULT_TENANT
from chimera_host.contract.call import HEADER_CALL, HEADER_TRACEPARENT
from chimera_host.contract.problem import ProblemError
from chimera_host.contract.state import HEADER_IDEMPOTENCY
from chimera_host.trace import parse

HEADER_REPLAYED = "Idempotent-Replayed"
HEADER_REVISION, HEADER_SIDE = "Chimera-Revision", "Chimera-Side"

_invoke_bodies = msgspec.json.Decoder(api.InvokeBody)
_chat_bodies = msgspec.json.Decoder(api.ChatBody)
_deltas = msgspec.json.Decoder(dict[str, Any])

Values = dict[str, str]


class CallHandlers:
    """Handlers of the operations that call agents."""

    def __init__(self, invoker: Invoker, authoriser: Authoriser, settings: HttpSettings, clock: Clock) -> None:
        """Call agents through `invoker`; ask `authoriser` where the body names the agent."""
        self._invoker = invoker
        self._authoriser = authoriser
        self._settings = settings
        self._clock = clock

    async def invoke(self, request: web.BaseRequest, values: Values, request_id: str) -> web.StreamResponse:
        """POST …/agents/{agent}/invoke."""
        data = await read_body(request, self._settings, self._settings.body_bytes)
        body: api.InvokeBody = decoded(_invoke_bodies, data)
        streams = body.stream or "text/event-stream" in request.headers.get("Accept", "")
        incoming = Incoming(
            tenant=values["tenant"],
            agent=values["agent"],
            messages=body.said(),
            protocol="sse" if streams else "http",
            state=_wanted(request, body),
            within=body.deadline,
            trace=parse(request.headers.get(HEADER_TRACEPARENT)),
            request=request_id,
            actor=principal_of(request).actor,
        )
        if not streams:
            answered = await self._invoker.run(incoming)
            return json_response(api.answer_of(answered, body.session), headers=_headers(answered, request_id))
        async with self._events(request, request_id) as stream:

            async def relay(name: bytes, data: bytes) -> None:
                await stream.send(b"event: " + name + b"\ndata: " + data + b"\n\n")

            try:
                answered = await self._invoker.run(incoming, relay)
                return await stream.end(event("done", ENCODER.encode(api.answer_of(answered, body.session))))
            except (SinkClosed, ConnectionError, TimeoutError):  # nobody reads
                return stream.abandon()
            except Exception as error:
                problem = _late(stream, error)
                return await stream.end(event("error", ENCODER.encode(problem.problem(request=request_id))))

    async def chat(self, request: web.BaseRequest, values: Values, request_id: str) -> web.StreamResponse:
        """POST …/chat/completions."""
        data = await read_body(request, self._settings, self._settings.body_bytes)
        body: api.ChatBody = decoded(_chat_bodies, data)
        tenant, agent = values.get("tenant", DEFAULT_TENANT), body.agent()
        self._authoriser.check_agent(principal_of(request), tenant, agent, Asked(protocol="openai"))
        incoming = Incoming(
            tenant=tenant,
            agent=agent,
            messages=body.said(),
            protocol="openai",
            state=_wanted(request, body),
            trace=parse(request.headers.get(HEADER_TRACEPARENT)),
            request=request_id,
            actor=principal_of(request).actor,
        )
        created = int(self._clock.wall())
        if not body.stream:
            answered = await self._invoker.run(incoming)
            return json_response(api.chat_completion(answered, created), headers=_headers(answered, request_id))
        async with self._events(request, request_id) as stream:
            writer = _ChunkWriter(stream, request_id, body.model, created)
            try:
                answered = await self._invoker.run(incoming, writer.take)
                usage = body.stream_options is not None and body.stream_options.include_usage
                return await stream.end(writer.tail(answered, usage=usage))
            except (SinkClosed, ConnectionError, TimeoutError):  # nobody reads
                return stream.abandon()
            except Exception as error:
                problem = _late(stream, error)
                return await stream.end(data_event(ENCODER.encode({"error": openai_error(problem)})))

    def _events(self, request: web.BaseRequest, request_id: str) -> EventStream:
        return EventStream(
            request,
            {HEADER_REQUEST: request_id},
            comment=self._settings.stream_comment,
            idle=self._settings.stream_idle,
        )


class _ChunkWriter:
    """A host's events as OpenAI's chunks.

    The pieces of an OpenAI stream are one text. Participants, tasks and nodes are set apart by a blank line, and an
    agent whose answer isn't the end of what it streamed gets its answer added.
    """

    def __init__(self, stream: EventStream, call: str, model: str, created: int) -> None:
        self._stream = stream
        self._frame = (call, model, created)
        self._text: list[str] = []
        self._source: str | None = None

    async def take(self, name: bytes, data: bytes) -> None:
        """One event of the host."""
        if name != b"delta":
            return
        delta = _deltas.decode(data)
        text, source = str(delta.get("text") or ""), delta.get("source")
        if self._text and source != self._source:
            text = "\n\n" + text
        self._source = source
        await self._stream.send(self._piece(text))

    def tail(self, answered: Answered, *, usage: bool) -> bytes:
        """The end of the stream."""
        output, said = answered.response.output, "".join(self._text)
        rest = b""
        if not said.rstrip().endswith(output.strip()) or not said:
            rest = self._piece("\n\n" + output if said else output)
        parts = [rest, data_event(ENCODER.encode(api.chat_chunk(*self._frame, {}, "stop")))]
        if usage:
            parts.append(data_event(ENCODER.encode(api.usage_chunk(answered, *self._frame))))
        return b"".join(parts) + data_event(b"[DONE]")

    def _piece(self, text: str) -> bytes:
        delta = {"content": text} if self._text else {"role": "assistant", "content": text}
        self._text.append(text)
        return data_event(ENCODER.encode(api.chat_chunk(*self._frame, delta)))


def _late(stream: EventStream, error: Exception) -> ProblemError:
    """`error` as the last event of a stream that has begun; raised as it is where nothing was sent yet."""
    if not stream.started:
        raise error
    return error if isinstance(error, ProblemError) else internal_error(error)


def _wanted(request: web.BaseRequest, body: api.InvokeBody | api.ChatBody) -> Wanted:
    """What a call says of its session and run; nothing where it has neither, whose way is shorter."""
    key = request.headers.get(HEADER_IDEMPOTENCY)
    if isinstance(body, api.ChatBody):
        return NO_STATE if key is None else Wanted(actor=principal_of(request).actor, key=key, subject=body.user)
    if key is None and body.session is None and not body.resume:
        return NO_STATE
    if key is not None and body.resume:
        raise InvalidRequest(
            "`resume` goes on with the session's unfinished work, an Idempotency-Key with its own: not both",
            next_step="leave out `resume` to go on with the key's work, or the key to go on with the session's",
        )
    return Wanted(
        actor=principal_of(request).actor,
        key=key,
        session=body.session,
        subject=body.subject,
        resume=body.resume,
    )


def _headers(answered: Answered, request_id: str) -> dict[str, str]:
    route = answered.call.route
    headers = {HEADER_REQUEST: request_id, HEADER_CALL: answered.call.call}
    headers[HEADER_REVISION], headers[HEADER_SIDE] = answered.response.revision, route.side
    if answered.replayed:
        headers[HEADER_REPLAYED] = "true"
    return headers


def page_limit(text: str | None, default: int, most: int = 100_000) -> int:
    """The query parameter `limit`."""
    if text is None:
        return default
    if not (text.isdecimal() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
        raise InvalidRequest(f"limit must be a whole number from 1 to {most}", next_step=f"leave it out for {default}")
    return int(text)


def moment(text: str | None, name: str) -> float | None:
    """A query parameter that is a `TIME`: seconds since the epoch."""
    if text is None:
        return None
    try:
        value = float(text) if len(text) <= 32 else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value <= LATEST:
        raise InvalidRequest(
            f"{name} is {text[:40]!r}, which is no time", next_step="give seconds since the epoch, such as 1795487303"
        )
    return value
