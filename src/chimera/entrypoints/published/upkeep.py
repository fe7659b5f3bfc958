"""The operations on upkeep, which the control plane serves and the gateway passes on."""

from chimera.entrypoints.published.operation import of_control_plane
from chimera.platform.upkeep.model import UpkeepAnswer, UpkeepAsk, UpkeepStatus

_operation = of_control_plane("platform")

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
