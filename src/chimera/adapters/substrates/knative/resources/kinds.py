"""Chimera's kinds as the operator reads them: lean, since there are thousands of agents.

An Agent's spec stays the bytes that came, copied out of the page or event that they came in; annotations, of which
`kubectl apply` keeps a second copy of everything, and managed fields are never built.
"""

import msgspec
from msgspec import Raw, Struct

from chimera.adapters.substrates.knative.objects import Condition, Identity, Meta, Resource
from chimera.adapters.substrates.knative.resources.crds import GROUP, VERSION

Key = tuple[str, str]
"""Namespace and name."""


class Told(Condition, frozen=True, kw_only=True, rename="camel"):
    """A condition that the operator wrote."""

    observed_generation: int = 0
    last_transition_time: str = ""


class AgentStatus(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The status of an Agent or AgentTemplate."""

    observed_generation: int = 0
    phase: str = ""
    tenant: str = ""
    revision: str = ""
    version: str = ""
    cell: str = ""
    conditions: tuple[Told, ...] = ()


class Definition(Struct, frozen=True, kw_only=True):
    """An Agent or AgentTemplate; `spec` is JSON."""

    metadata: Identity = Identity()
    spec: Raw = Raw(b"{}")
    status: AgentStatus = AgentStatus()

    def __post_init__(self) -> None:
        """Let go of the page that the spec came in."""
        msgspec.structs.force_setattr(self, "spec", self.spec.copy())

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.metadata.namespace, self.metadata.name


class CellSpecified(Struct, frozen=True, kw_only=True, rename="camel"):
    """What a person asks of a cell."""

    min_scale: int = 0


class CellStatus(Struct, frozen=True, kw_only=True, rename="camel"):
    """The status of a Cell."""

    observed_generation: int = 0
    phase: str = ""
    cell: str = ""
    tenant: str = ""
    framework: str = ""
    revision: str = ""
    agents: int = 0
    replicas: int = 0
    min_replicas: int = 0
    max_replicas: int = 0
    conditions: tuple[Told, ...] = ()


class Cell(Struct, frozen=True, kw_only=True):
    """A Cell."""

    metadata: Meta = Meta()
    spec: CellSpecified = CellSpecified()
    status: CellStatus = CellStatus()


class RevisionStatus(Struct, frozen=True, kw_only=True, rename="camel"):
    """How many pods a Knative Revision has."""

    actual_replicas: int = 0


class Revision(Struct, frozen=True, kw_only=True):
    """A Knative Revision."""

    metadata: Meta = Meta()
    status: RevisionStatus = RevisionStatus()


AGENTS = Resource(GROUP, VERSION, "agents", "Agent", Definition)
TEMPLATES = Resource(GROUP, VERSION, "agenttemplates", "AgentTemplate", Definition)
CELLS = Resource(GROUP, VERSION, "cells", "Cell", Cell)
REVISIONS = Resource("serving.knative.dev", "v1", "revisions", "Revision", Revision)
