"""Agents that stand for a function elsewhere: what it is asked, and what its answer means.

The address comes from the agent's document, never from its host, and the credential goes to the function alone. What is
sent is the contract `chimera_host.contract.function`. Nothing is tried again here: whoever called knows whether that is
safe, and an `Idempotency-Key` goes along where the call has a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from chimera.events.cloudevents import time_of
from chimera.gateway.credentials import Credentials
from chimera.gateway.errors import FunctionFailed, FunctionUnavailable, InvalidRequest
from chimera.gateway.ports import FunctionCaller, FunctionRequest, FunctionResponse
from chimera.kernel.clock import Clock
from chimera_host.contract.agent import AgentDocument
from chimera_host.contract.behaviour import FunctionEndpoint
from chimera_host.contract.call import HEADER_CALL, HEADER_DEADLINE, HEADER_TRACEPARENT, Message
from chimera_host.contract.function import EVENT_TYPE, FunctionCall, answer_of
from chimera_host.contract.state import HEADER_IDEMPOTENCY

PASSING = frozenset({408, 425, 429, 502, 503, 504})
"""Answers of a function, or of what stands before it, that another time may not be given."""
SHOWN = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Asking:
    """On whose behalf a function is called; `left` is the seconds that the call has."""

    call: str
    left: float
    key: str | None = None
    traceparent: str | None = None


class Functions:
    """Calls the functions that agents stand for."""

    def __init__(self, caller: FunctionCaller, credentials: Credentials, clock: Clock) -> None:
        """Call through `caller`."""
        self._caller = caller
        self._credentials = credentials
        self._clock = clock

    async def ask(self, document: AgentDocument, messages: Sequence[Message], asking: Asking) -> str:
        """What the agent's function answers to the conversation that ends with `messages`."""
        endpoint = endpoint_of(document)
        if endpoint is None:
            raise InvalidRequest(f"agent {document.name} stands for no function", agent=document.name)
        if not messages:
            raise InvalidRequest("a function is asked with at least one message", agent=document.name)
        secret = None
        if (reference := endpoint.credential) is not None:
            secret = (await self._credentials.resolve(document, (reference,)))[reference]
        request = request_of(document, endpoint, messages, asking, secret=secret, at=self._clock.wall())
        return output_of(document.name, endpoint, await self._caller.post(request))

    async def aclose(self) -> None:
        """Close connections."""
        await self._caller.aclose()


def endpoint_of(document: AgentDocument) -> FunctionEndpoint | None:
    """The function that the agent stands for."""
    function = document.behaviour.function
    return function.endpoint if function is not None else None


def request_of(
    document: AgentDocument,
    endpoint: FunctionEndpoint,
    messages: Sequence[Message],
    asking: Asking,
    *,
    secret: str | None,
    at: float,
) -> FunctionRequest:
    """What is sent."""
    timeout = min(endpoint.timeout_seconds, asking.left)
    headers = {
        "Content-Type": "application/json",
        HEADER_CALL: asking.call,
        HEADER_DEADLINE: f"{timeout:.3f}",
    }
    if asking.key is not None:
        headers[HEADER_IDEMPOTENCY] = asking.key
    if asking.traceparent is not None:
        headers[HEADER_TRACEPARENT] = asking.traceparent
    if secret is not None:
        headers["Authorization"] = f"Bearer {secret}"
    if endpoint.format == "cloudevents":
        headers |= {
            "ce-specversion": "1.0",
            # The same work asked for again is the same event.
            "ce-id": asking.key or asking.call,
            "ce-source": f"/v1/tenants/{quote(document.tenant)}/agents/{quote(document.name)}",
            "ce-type": EVENT_TYPE,
            "ce-time": time_of(at),
        }
    sent = FunctionCall(
        input=messages[-1].content,
        messages=tuple(messages),
        agent=document.name,
        tenant=document.tenant,
        call=asking.call,
    )
    return FunctionRequest(
        url=endpoint.url, headers=headers, body=_ENCODER.encode(sent), timeout=timeout, most=endpoint.max_output_bytes
    )


def output_of(agent: str, endpoint: FunctionEndpoint, answer: FunctionResponse) -> str:
    """The text of the answer; raises what another answer means."""
    if answer.status == 200:
        try:
            return answer_of(answer.body, answer.content_type)
        except ValueError as error:
            raise FunctionFailed(
                f"the function of agent {agent} answered what is no answer: {error}",
                next_step="answer a JSON object with a text `output`, or text/plain; see the guide on functions",
                agent=agent,
            ) from error
    said = answer.body[:SHOWN].decode(errors="replace").strip()
    detail = f"the function of agent {agent} answered {answer.status}" + (f": {said}" if said else "")
    if answer.status in PASSING:
        raise FunctionUnavailable(
            detail, next_step="try again later", retry_after=answer.retry_after or 1.0, agent=agent
        )
    if answer.status in (401, 403):
        step = "see whether it may be called, and `credential` of the agent's endpoint"
        if endpoint.credential is None:
            step = "name what it wants to be shown as `credential` of the agent's endpoint"
    elif 300 <= answer.status < 400:
        step = "name the address that it is at: redirects are not followed"
    else:
        step = "see the function's own log"
    raise FunctionFailed(detail, next_step=step, agent=agent)


_ENCODER = msgspec.json.Encoder()
