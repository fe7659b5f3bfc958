"""The bodies of JAEGIS' operations of the API, as types."""

from msgspec import Struct

from chimera.agents.errors import Fault
from chimera.jaegis.creator.model import Misfit
from chimera.jaegis.quality.model import Assessment


class AgentQuality(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is said of one definition: its faults, or its quality and what of it doesn't fit the ecosystem."""

    file: str | None = None
    faults: tuple[Fault, ...] = ()
    quality: Assessment | None = None
    misfits: tuple[Misfit, ...] = ()


class Qualities(Struct, frozen=True, kw_only=True):
    """One for each definition, in their order; `live` is how many live agents they were held against."""

    agents: list[AgentQuality]
    live: int
