"""One operation of the public API, as data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from chimera.entrypoints.published.parameters import Parameter

Owner = Literal["gateway", "control-plane", "node"]

JSON = "application/json"
TENANT = "/v1/tenants/{tenant}"
AGENT = TENANT + "/agents/{agent}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One method of one path. `name` is the handler's and the document's operation id.

    `body` and `answer` are the types of the bodies where `takes` and `media` are JSON. `query` and `headers` are
    parameters. `also` are other statuses of the same answer, and when they are given.
    `action` is what the caller must be allowed to do (`chimera.gateway.identity.actions`); `resource` says where the
    thing it is done to is named: in the path, in the body (then the handler asks), or it is the caller's own tenant.
    Only an operation without `key` has no action: it is open to everybody.
    """

    method: str
    path: str
    name: str
    summary: str
    tag: str
    action: str = ""
    resource: Literal["path", "body", "own"] = "path"
    owner: Owner = "gateway"
    body: Any = None
    body_required: bool = True
    takes: str = JSON
    answer: Any = None
    media: str = JSON
    streams: bool = False
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    status: int = 200
    also: tuple[tuple[int, str], ...] = ()
    key: bool = True


def of_control_plane(tag: str, *, action: str = "") -> Callable[..., Operation]:
    """What makes the operations of one part of the API that the control plane serves.

    Each needs `action`, unless it names another.
    """
    usual = action

    def make(
        method: str, path: str, name: str, summary: str, answer: Any, action: str = usual, **more: Any
    ) -> Operation:
        return Operation(
            method=method,
            path=path,
            name=name,
            summary=summary,
            tag=tag,
            action=action,
            owner="control-plane",
            answer=answer,
            **more,
        )

    return make
