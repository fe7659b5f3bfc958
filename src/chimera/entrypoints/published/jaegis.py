"""The operations of JAEGIS, which the control plane serves and the gateway passes on."""

from chimera.agents import api
from chimera.entrypoints.published.operation import TENANT, Operation
from chimera.jaegis.api import Qualities

JAEGIS = (
    Operation(
        method="POST",
        path=TENANT + "/quality",
        name="assess",
        summary="The quality of definitions beside all live agents, and what of them doesn't fit; nothing is kept",
        tag="jaegis",
        action="catalogue:read",
        owner="control-plane",
        body=api.Definitions,
        answer=Qualities,
    ),
)
