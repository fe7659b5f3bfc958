"""What the gateway tells of sides, for whoever rolls agents out."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from chimera.delivery.sides.model import Seen
from chimera.kernel.leases import Lease


class Loads(Struct, frozen=True, kw_only=True):
    """On how many hosts an agent's live revision was found, on how many of as many green is loaded, and why not."""

    tenant: str
    agent: str
    revision: str
    wanted: int
    holding: int
    problem: str | None = None


class Noticed(Struct, frozen=True, kw_only=True, array_like=True):
    """What was seen of a side of an agent of `tenant` that `rollout` works on."""

    tenant: str
    rollout: str
    seen: Seen


class SideStore(Protocol):
    """Where gateways write it down."""

    async def loaded(self, loads: Sequence[Loads], *, held: Lease) -> None:
        """Say what was loaded ahead; of sides that are gone nothing is kept."""


class ObservationStore(Protocol):
    """Where what was seen goes, window by window."""

    async def add(self, gateway: str, noticed: Sequence[Noticed]) -> int:
        """Keep a window of this gateway; its place, which `Seen.window` is when it is read."""
