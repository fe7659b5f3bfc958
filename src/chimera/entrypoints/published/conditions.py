"""The operations on conditions, which the control plane serves and the gateway passes on."""

from msgspec import Struct

from chimera.entrypoints.published.operation import Operation
from chimera.entrypoints.published.parameters import page
from chimera.platform.condition_keeper import Judged


class ConditionPage(Struct, frozen=True, kw_only=True):
    """Subjects with their conditions; `next` is the name to go on after, where there are more."""

    subjects: list[Judged]
    next: str | None = None


CONDITIONS = (
    Operation(
        method="GET",
        path="/v1/conditions",
        name="list_conditions",
        summary="What is known of the trouble of each cell, and of the home, with cause and next step",
        tag="platform",
        action="platform:read",
        owner="control-plane",
        answer=ConditionPage,
        query=(("subject", "string", "only this one: `cells/CELL`, or `home`"), *page("subjects")),
    ),
)
