"""One call of an agent: what the gateway sends to a host, what the host answers, whole or as events.

`POST /v1/invoke` takes an `InvokeRequest` as JSON. Without `stream` the answer is an `InvokeResponse`, or a problem
document (RFC 9457). With it the answer is server-sent events, each `event:` one of `EventName` and each `data:` the
JSON of that event's structure; the last one is `done` or `error`. Closing the connection cancels the call, and so
does `DELETE /v1/calls/{call}`. Times are seconds, sizes bytes.
"""

from typing import Any, Literal

import msgspec
from msgspec import Struct

from chimera_host.contract.state import RunState
from chimera_host.contract.trial import Trial

HEADER_CALL = "Chimera-Call"
HEADER_DEADLINE = "Chimera-Deadline"
HEADER_TRACEPARENT = "traceparent"

EventName = Literal["delta", "tool", "done", "error"]
FRAMEWORK_VALUES = frozenset({"langgraph"})
"""Values of a session that its framework keeps. A host of another revision takes them over, or begins anew without."""


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One chat message: text said by a role. Tool traffic inside a call is not part of a session's messages."""

    role: Literal["system", "user", "assistant"]
    content: str
    name: str | None = None


class SessionState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a session carries from call to call: the conversation so far, and whatever the agent's code keeps."""

    messages: tuple[Message, ...] = ()
    values: dict[str, Any] = {}


class InvokeRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call. `messages` are the caller's new messages, the last one from the user; `session` what came before.

    `deadline` is the seconds left for the whole call when it was sent. `call` names the call to the gateway's
    internal API: model and tool calls made on its behalf carry it in the `Chimera-Call` header. `run` names the work
    that outlives the call, where its steps are kept (`chimera_host.contract.state`); `resume` what it goes on from.
    `platform_url` is the internal API of the gateway that made the call, where there are several: it alone knows it.
    `trial` says that the call tests its agent.
    """

    call: str
    tenant: str
    agent: str
    revision: str
    messages: tuple[Message, ...]
    deadline: float
    session: SessionState | None = None
    session_id: str | None = None
    stream: bool = False
    model_override: str | None = None
    run: str | None = None
    resume: RunState | None = None
    platform_url: str | None = None
    trial: Trial | None = None
    contract: int = 1


class Timings(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a call's time went in the host, in seconds of wall time. `loaded` is True if this call loaded the agent."""

    load: float = 0.0
    run: float = 0.0
    model: float = 0.0
    tools: float = 0.0
    loaded: bool = False


class InvokeResponse(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer. `session` is the state to save, present if the request carried one.

    `threads` names the graph threads that the session's next call goes on from: their newest checkpoints are kept, and
    those of all others removed, in the transaction that saves the session. None says nothing: all threads are kept.
    """

    output: str
    call: str
    agent: str
    revision: str
    host: str
    messages: tuple[Message, ...] = ()
    session: SessionState | None = None
    threads: tuple[str, ...] | None = None
    timings: Timings = Timings()
    model_calls: int = 0
    tool_calls: int = 0


class Delta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of the answer's text (event `delta`); `source` names the participant, task or node it comes from."""

    text: str
    source: str | None = None


class ToolEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool call's start or end (event `tool`), without its arguments and answer."""

    tool: str
    phase: Literal["start", "end", "error"]
    seconds: float | None = None


class LoadedReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`GET /v1/loaded`: what a host holds; of its `loaded` agents those used last, with what they cost."""

    host: str
    framework: str
    loaded: int
    agents: list[dict[str, Any]]
    in_flight: int
    resident_bytes: int
    limit_bytes: int
    evictions: int


class LoadRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`POST /v1/load`: have an agent loaded before its first call, where there is room. Answered 204, or a problem.

    One that is loaded counts as used. With `make_room` it takes the place of what was used least, as a call would. What
    is loaded of what was asked for, `GET /v1/loaded` says.
    `platform_url` is where its revision is asked for, as in a call.
    """

    tenant: str
    agent: str
    revision: str
    platform_url: str | None = None
    make_room: bool = False


ENCODER = msgspec.json.Encoder()
LOAD_DECODER = msgspec.json.Decoder(LoadRequest)
REQUEST_DECODER = msgspec.json.Decoder(InvokeRequest)
RESPONSE_DECODER = msgspec.json.Decoder(InvokeResponse)
