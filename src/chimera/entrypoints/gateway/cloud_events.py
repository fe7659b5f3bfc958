"""CloudEvents as they come in over HTTP, in the structured or the binary form (the HTTP binding, 1.0.2)."""

from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web

from chimera.entrypoints.gateway.http import decoded
from chimera.events.cloudevents import STRUCTURED
from chimera.gateway.errors import InvalidRequest
from chimera.gateway.eventing.errors import InvalidEvent
from chimera.gateway.eventing.happening import Happening, checked, of_structured

PREFIX = "ce-"
_OBJECTS = msgspec.json.Decoder(dict[str, Any])


def read_event(request: web.BaseRequest, tenant: str, body: bytes) -> Happening:
    """The event of a request. Raises `InvalidEvent`."""
    kind = request.content_type
    if kind == STRUCTURED:
        return of_structured(tenant, _object(body))
    attributes = {
        name.lower().removeprefix(PREFIX): unquote(value)
        for name, value in request.headers.items()
        if name.lower().startswith(PREFIX)
    }
    if not attributes:
        raise InvalidEvent(
            "the request holds no CloudEvent",
            next_step=f"send it as {STRUCTURED}, or its attributes as headers {PREFIX}…",
        )
    json = binary = None
    if body:
        attributes["datacontenttype"] = request.headers.get("Content-Type", "application/json")
        if kind == "application/json" or kind.endswith("+json"):
            json = _checked_json(body)
        else:
            binary = body
    return checked(Happening(tenant=tenant, attributes=attributes, json=json, binary=binary))


def _object(body: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = decoded(_OBJECTS, body)
    except InvalidRequest as error:
        raise InvalidEvent(error.detail, next_step=error.next_step) from None
    return found


def _checked_json(body: bytes) -> bytes:
    try:
        msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InvalidEvent("its data says that it is JSON, and is none", next_step="mend it, or its type") from None
    return body
