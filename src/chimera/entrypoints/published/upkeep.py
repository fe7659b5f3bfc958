"""The operations on upkeep, which the control plane serves and the gateway passes on."""

from typing import Any

from chimera.entrypoints.published.operation import Operation
from chimera.platform.upkeep.model import UpkeepAnswer, UpkeepAsk, UpkeepStatus


def _operation(method: str, path: str, name: str, summary: str, answer: Any, action: str, **more: Any) -> Operation:
    return Operation(
        method=method,
        path=path,
        name=name,
        summary=summary,
        tag="platform",
        action=action,
        owner="control-plane",
        answer=answer,
        **more,
    )


UPKEEP = (
    _operation(
        *("GET", "/v1/upkeep", "upkeep_status", "How much there is of each kind of rows, and what upkeep has removed"),
        UpkeepStatus,
        "platform:read",
    ),
    _operation(
        *("POST", "/v1/upkeep/run", "run_upkeep", "Have upkeep done now, or say what would go"),
        UpkeepAnswer,
        "platform:write",
        body=UpkeepAsk,
        body_required=False,
    ),
)
