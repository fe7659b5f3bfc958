"""A function that answers for an agent: what it is sent, and what it answers.

`POST` to its address with a `FunctionCall` as JSON. It answers 200 with a `FunctionAnswer` as JSON, or with a text
(`text/plain`). In the form `cloudevents` the same JSON is the data of a CloudEvent 1.0, sent in its binary form
(`ce-type: chimera.agent.call`); the answer may be an event, binary or structured, whose data is the answer, or be as
before.

Headers say the rest: `Chimera-Call`, `Chimera-Deadline` (the seconds left), `traceparent`, `Authorization: Bearer` with
the endpoint's credential, and `Idempotency-Key` where the call may be made again: two requests with the same key are
the same work. `chimera export function` writes functions of this contract.

Hosts don't call functions; they ask the gateway (`POST /internal/v1/function` with a `FunctionAsk`), which has the
address from the agent's document.
"""

from typing import Any

import msgspec
from msgspec import Struct

from chimera_host.contract.call import Message

PATH_FUNCTION = "/internal/v1/function"
EVENT_TYPE = "chimera.agent.call"
EVENT_MEDIA_TYPE = "application/cloudevents+json"


class FunctionCall(Struct, frozen=True, kw_only=True):
    """What a function is sent: the caller's last text, and the whole conversation that ends with it."""

    input: str
    messages: tuple[Message, ...] = ()
    agent: str = ""
    tenant: str = ""
    call: str = ""


class FunctionAnswer(Struct, frozen=True, kw_only=True):
    """What it answers."""

    output: str


class FunctionAsk(Struct, frozen=True, kw_only=True):
    """What a host asks the gateway for, on behalf of a call."""

    messages: tuple[Message, ...]


CALL_DECODER = msgspec.json.Decoder(FunctionCall)
ASK_DECODER = msgspec.json.Decoder(FunctionAsk)


def answer_of(data: bytes, content_type: str) -> str:
    """The text of a function's answer; raises ValueError with what is wrong with it."""
    media = content_type.partition(";")[0].strip().lower()
    try:
        if media == "text/plain":
            return data.decode()
        found: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"it is neither JSON nor a text: {error}") from error
    if media == EVENT_MEDIA_TYPE:
        found = found.get("data") if isinstance(found, dict) else None
    if isinstance(found, dict):
        found = found.get("output")
    if not isinstance(found, str):
        raise ValueError("it holds no text `output`")
    return found
