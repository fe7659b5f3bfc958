"""Chimera's kinds as the operator reads them: lean, since there are thousands of agents.

An Agent's spec stays the bytes that came, copied out of the page or event that they came in; annotations, of which
`kubectl apply` keeps a second copy of everything, and managed fields are never built.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from chimera.adapters.substrates.knative.objects import Condition, Identity, Meta, Resource
from chimera.adapters.substrates.knative.resources.crds import GROUP, VERSION, Asked

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
    change: str = ""
    rollout: str = ""
    conditions: tuple[Told, ...] = ()


class Labelled(Identity, frozen=True, kw_only=True, rename="camel"):
    """With the labels by which it is selected."""

    labels: dict[str, str] = msgspec.field(default_factory=dict)


class Definition(Struct, frozen=True, kw_only=True):
    """An Agent or AgentTemplate; `spec` is JSON."""

    metadata: Labelled = Labelled()
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


class Selected(Struct, frozen=True, kw_only=True, rename="camel"):
    """Which Agents of its namespace a Rollout governs: those named, and those with all these labels; else all."""

    names: frozenset[str] = frozenset()
    match_labels: dict[str, str] = {}


class RolloutSpec(Struct, frozen=True, kw_only=True):
    """What a person asks of a Rollout. `policy` are settings other than the platform's, as the API takes them."""

    agents: Selected = Selected()
    policy: dict[str, Any] = {}
    state: Asked = "Running"
    attempt: int = 0


class RolloutStatus(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The status of a Rollout. All numbers but `selected` and `waiting` are those of its newest rollout."""

    observed_generation: int = 0
    phase: str = ""
    tenant: str = ""
    rollout: str = ""
    started_at: str = ""
    ended_at: str = ""
    agents: int = 0
    moved: int = 0
    wave: int = 0
    waves: int = 0
    taken_back: int = 0
    low_evidence: int = 0
    selected: int = 0
    waiting: int = 0
    conditions: tuple[Told, ...] = ()


class Rollout(Struct, frozen=True, kw_only=True):
    """A Rollout."""

    metadata: Identity = Identity()
    spec: RolloutSpec = RolloutSpec()
    status: RolloutStatus = RolloutStatus()

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.metadata.namespace, self.metadata.name


class RevisionStatus(Struct, frozen=True, kw_only=True, rename="camel"):
    """How many pods a Knative Revision has."""

    actual_replicas: int = 0


class Revision(Struct, frozen=True, kw_only=True):
    """A Knative Revision."""

    metadata: Meta = Meta()
    status: RevisionStatus = RevisionStatus()


AGENTS = Resource(GROUP, VERSION, "agents", "Agent", Definition)
TEMPLATES = Resource(GROUP, VERSION, "agenttemplates", "AgentTemplate", Definition)
ROLLOUTS = Resource(GROUP, VERSION, "rollouts", "Rollout", Rollout)
CELLS = Resource(GROUP, VERSION, "cells", "Cell", Cell)
REVISIONS = Resource("serving.knative.dev", "v1", "revisions", "Revision", Revision)
