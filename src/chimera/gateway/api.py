"""The bodies of the public API, as types: what comes in is decoded into them, what goes out is encoded from them.

The OpenAPI document is generated from the same types. A call is `{"input": "…"}` or `{"messages": […]}`.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from chimera.gateway.errors import InvalidRequest
from chimera.gateway.invoke import Answered
from chimera.platform.model import Route
from chimera_host.contract.call import Message, Timings

Subject = Annotated[str, Meta(min_length=1, max_length=200)]
Seconds = Annotated[float, Meta(gt=0, le=600)]
MAX_MESSAGES = 10_000
MODEL_PREFIX = "agent/"


class InvokeBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A call of an agent: `input` is short for one message of the user.

    `session` names the conversation to go on with; it begins with its first use. `subject` names the person whom it is
    for: what is kept of it can be found and erased by that. With `resume` the call goes on with the session's
    unfinished work, whatever its messages, which may be left out then. `deadline` is the seconds that the caller gives
    the call. With `stream`, or if the request accepts text/event-stream, the answer is a stream of events.
    """

    input: str | None = None
    messages: Annotated[tuple[Message, ...], Meta(max_length=MAX_MESSAGES)] | None = None
    session: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")] | None = None
    subject: Subject | None = None
    resume: bool = False
    deadline: Seconds | None = None
    stream: bool = False

    def said(self) -> tuple[Message, ...]:
        """The messages, in either form."""
        if self.resume and self.input is None and self.messages is None:
            return ()
        if (self.input is None) == (self.messages is None):
            raise InvalidRequest("a call has either `input` or `messages`", next_step='send {"input": "your question"}')
        if self.input is not None:
            return (Message(role="user", content=self.input),)
        messages = self.messages or ()
        if not messages or messages[-1].role != "user":
            raise InvalidRequest("the last of `messages` must be of the user", next_step='end with a "user" message')
        return messages


class TokenUsage(Struct, frozen=True, kw_only=True):
    """Tokens that a call used, with all agents that it called."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class InvokeAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer of an agent. `run` names the work that it came of, where that outlives the call."""

    output: str
    agent: str
    tenant: str
    revision: str
    call: str
    usage: TokenUsage
    session: str | None = None
    messages: tuple[Message, ...] = ()
    timings: Timings = Timings()
    model_calls: int = 0
    tool_calls: int = 0
    run: str | None = None


class TextPart(Struct, frozen=True, kw_only=True):
    """One part of a message's content; agents take text."""

    type: str
    text: str | None = None


class ChatMessage(Struct, frozen=True, kw_only=True):
    """A message as OpenAI clients send it; `developer` is taken as `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    name: str | None = None


class StreamOptions(Struct, frozen=True, kw_only=True):
    """OpenAI's options of a stream."""

    include_usage: bool = False


class ChatBody(Struct, frozen=True, kw_only=True):
    """An OpenAI chat-completions request. `model` is `agent/<name>`.

    The agent's definition says how its model is used, so sampling parameters are taken and have no effect. Several
    answers (`n`) and the caller's own tools would change what the agent is, and are refused. `user` names the person
    whom the call is for.
    """

    model: str
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    user: Subject | None = None

    def agent(self) -> str:
        """The name of the agent."""
        if not self.model.startswith(MODEL_PREFIX):
            raise InvalidRequest(
                f"{self.model[:200]!r} is no agent's model name", next_step="use agent/<name>; see GET /v1/models"
            )
        return self.model.removeprefix(MODEL_PREFIX)

    def said(self) -> tuple[Message, ...]:
        """The messages as agents take them."""
        if self.n not in (None, 1):
            raise InvalidRequest("an agent gives one answer", next_step="leave out `n`")
        if self.tools or self.functions:
            raise InvalidRequest(
                "an agent has its own tools and takes none of the caller", next_step="leave out `tools`"
            )
        if self.messages[-1].role != "user":
            raise InvalidRequest("the last of `messages` must be of the user", next_step='end with a "user" message')
        return tuple(
            Message(
                role="system" if message.role == "developer" else message.role,
                content=_text(message.content),
                name=message.name,
            )
            for message in self.messages
        )


class ModelCard(Struct, frozen=True, kw_only=True):
    """An agent as OpenAI's API lists models."""

    id: str
    created: int
    owned_by: str
    object: Literal["model"] = "model"
    description: str = ""


class ModelList(Struct, frozen=True, kw_only=True):
    """A page of agents; the next begins `after` the last id."""

    data: list[ModelCard]
    has_more: bool
    first_id: str | None
    last_id: str | None
    object: Literal["list"] = "list"


def answer_of(answered: Answered, session: str | None) -> InvokeAnswer:
    """What a caller gets."""
    response, call = answered.response, answered.call
    return InvokeAnswer(
        output=response.output,
        agent=call.route.agent,
        tenant=call.route.tenant,
        revision=response.revision,
        call=call.call,
        usage=usage_of(answered),
        session=session,
        messages=response.messages,
        timings=response.timings,
        model_calls=response.model_calls,
        tool_calls=response.tool_calls,
        run=None if call.opened is None else call.opened.name,
    )


def usage_of(answered: Answered) -> TokenUsage:
    """Tokens of a call."""
    prompt, completion = answered.call.prompt_tokens, answered.call.completion_tokens
    return TokenUsage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def model_card(route: Route) -> ModelCard:
    """An agent as a model."""
    return ModelCard(id=MODEL_PREFIX + route.agent, created=0, owned_by=route.tenant, description=route.description)


def chat_completion(answered: Answered, created: int) -> dict[str, Any]:
    """The answer as an OpenAI chat completion."""
    message = {"role": "assistant", "content": answered.response.output, "refusal": None}
    return {
        **_frame(answered.call.call, MODEL_PREFIX + answered.call.route.agent, created, "chat.completion"),
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": msgspec.structs.asdict(usage_of(answered)),
    }


def chat_chunk(call: str, model: str, created: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    """One chunk of an OpenAI stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    return {**_frame(call, model, created, "chat.completion.chunk"), "choices": [choice]}


def usage_chunk(answered: Answered, call: str, model: str, created: int) -> dict[str, Any]:
    """The last chunk of an OpenAI stream whose caller asked for usage."""
    frame = _frame(call, model, created, "chat.completion.chunk")
    return {**frame, "choices": [], "usage": msgspec.structs.asdict(usage_of(answered))}


def _frame(call: str, model: str, created: int, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{call}", "object": kind, "created": created, "model": model}


def _text(content: str | list[TextPart] | None) -> str:
    if isinstance(content, str):
        return content
    for part in content or ():
        if part.type != "text" or part.text is None:
            raise InvalidRequest(f"agents take text, not {part.type!r}", next_step="send parts of type text")
    return "".join(part.text or "" for part in content or ())
