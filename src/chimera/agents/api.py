"""The bodies of the catalogue's API, as types: what comes in is decoded into them, what goes out is encoded from them.

The published OpenAPI document is generated from the same types, so that what it says is what the control plane takes
and gives. Bounds that depend on the platform (how many items at once) are the handlers'.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from chimera.agents.catalogue import Applied, HistoryEntry, Pin
from chimera.agents.compile import CanonicalDefinition
from chimera.agents.diff import Change, Kind
from chimera.agents.errors import Fault

_LARGEST = 2**63 - 1
Sequence = Annotated[int, Meta(ge=0, le=_LARGEST)]
"""A number of the catalogue's changes, as the database counts them."""

# -- definitions on their way in -----------------------------------------------------------------------------------


class Item(Struct, frozen=True, kw_only=True):
    """One definition: `text` (YAML) or `definition` (data, by the schema of ADaC v2.0).

    `source` is the client's digest of what it read; `file` names the file in faults; `bundle` is the digest of the
    source folder's bundle, which was put before.
    """

    source: Annotated[str, Meta(max_length=64)] = ""
    file: Annotated[str, Meta(max_length=4096)] | None = None
    text: str | None = None
    definition: dict[str, Any] | None = None
    bundle: str | None = None


class ItemResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of an item: its name and revision, or its faults; warnings in both cases."""

    position: int
    name: str | None = None
    revision: str | None = None
    faults: tuple[Fault, ...] = ()
    warnings: tuple[Fault, ...] = ()


class Sources(Struct, frozen=True):
    """Digests of source texts (`chimera.agents.catalogue.source_digest`)."""

    sources: list[str]


class LiveSources(Struct, frozen=True, kw_only=True):
    """Of these sources, those that live agents were applied from, with the agents' names; and the sequence."""

    live: dict[str, str]
    sequence: int


class OpenedBatch(Struct, frozen=True, kw_only=True):
    """The id of a batch."""

    batch: str


class Chunk(Struct, frozen=True, kw_only=True):
    """A part of a batch; `first` is the position of its first item in the whole batch."""

    items: list[Item]
    first: Annotated[int, Meta(ge=0, le=_LARGEST)] = 0


class ChunkResults(Struct, frozen=True, kw_only=True):
    """Items with faults or warnings; those that aren't named are well."""

    results: list[ItemResult]


class Commit(Struct, frozen=True, kw_only=True):
    """How to end a batch.

    With `keep_going` the good definitions become live without the faulty ones. `expect` is the sequence that `check`
    answered: an agent of the batch that was changed after it refuses the batch.
    """

    keep_going: bool = False
    expect: Sequence | None = None


class Apply(Struct, frozen=True, kw_only=True):
    """A whole small batch at once."""

    items: list[Item]
    keep_going: bool = False
    expect: Sequence | None = None


class AppliedAtOnce(Applied, frozen=True, kw_only=True):
    """What a small apply changed, in numbers of agents, and its items with faults or warnings."""

    results: list[ItemResult]


class KeptBundle(Struct, frozen=True, kw_only=True):
    """A source bundle as it is kept: its digest, and its requirements file's where it has one."""

    digest: str
    requirements: str | None


class Definitions(Struct, frozen=True, kw_only=True):
    """Definitions to look at; nothing is kept."""

    items: list[Item]


class Validated(Struct, frozen=True, kw_only=True):
    """Whether all are valid, and what became of each."""

    valid: bool
    results: list[ItemResult]


class AgentDifference(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What applying one definition would change: by `state` its faults, or its changes and whether its version fits."""

    state: Literal["invalid", "new", "unchanged", "changed"]
    agent: str | None = None
    file: str | None = None
    faults: tuple[Fault, ...] = ()
    changes: tuple[Change, ...] = ()
    kind: Kind | None = None
    old_version: str | None = None
    new_version: str | None = None
    version_fits: bool | None = None
    advice: str | None = None


class Differences(Struct, frozen=True, kw_only=True):
    """One for each definition, in their order."""

    agents: list[AgentDifference]


# -- agents ----------------------------------------------------------------------------------------------------------


class AgentRow(Struct, frozen=True, kw_only=True):
    """A live agent as lists show it. `unservable` says why this home can't run it; times are seconds since 1970.

    `owner` is the resource `Agent` of a cluster that it comes from (`namespace/name`), which alone may change it; None
    for an agent that was applied through the API. `green` is the revision that is to be live, while the agent is rolled
    out, and `weight` the share of calls that it gets, in basis points (10,000: all).
    """

    tenant: str
    name: str
    revision: str
    version: str
    sequence: int
    framework: str
    cell: str
    description: str
    tags: list[str]
    protocols: list[str]
    model: str
    concurrency: int
    min_instances: int
    tokens_per_day: int | None
    usd_per_day: float | None
    calls_per_minute: int | None
    unservable: str | None
    file: str | None
    owner: str | None
    created: float
    updated: float
    green: str | None = None
    weight: int = 0


class AgentPage(Struct, frozen=True, kw_only=True):
    """A page of agents by name; the next one begins `after` the name in `next`, which is null on the last."""

    agents: list[AgentRow]
    next: str | None


class Limit(Struct, frozen=True, kw_only=True):
    """One limit of an agent, and who enforces it here."""

    limit: str
    value: float | int | None
    enforced_by: str


class AgentSide(Struct, frozen=True, kw_only=True):
    """A revision that an agent has beside its live one, since when and until when (seconds since 1970; None: open).

    `role` is `green` (it is to be live), `kept` (it was, and is kept warm) or `withdrawn` (it was taken back, and gets
    no call). `wanted` is on how many hosts the live revision was found loaded (None: nobody has looked yet), `holding`
    on how many of as many hosts this one is, and `problem` why not.
    """

    role: Literal["green", "kept", "withdrawn"]
    revision: str
    version: str
    cell: str
    framework: str
    rollout: str | None
    weight: int
    since: float
    until: float | None
    wanted: int | None
    holding: int
    problem: str | None


class AgentInFull(AgentRow, frozen=True, kw_only=True):
    """An agent with its canonical definition, its other sides, its limits and what to know before relying on it.

    `pin` is the commit that made its live revision live, where one did.
    """

    definition: CanonicalDefinition
    limits: list[Limit]
    notes: list[str]
    sides: list[AgentSide] = []
    pin: Pin | None = None


class History(Struct, frozen=True, kw_only=True):
    """The changes of an agent's live revision, the newest first."""

    revisions: list[HistoryEntry]


class Names(Struct, frozen=True):
    """Agents by name."""

    names: list[str]


class Deleted(Struct, frozen=True, kw_only=True):
    """How many agents were deleted."""

    deleted: int


class RollBack(Struct, frozen=True, kw_only=True):
    """What to go back to: a revision's digest or its beginning; by default the one before the live one.

    By default, an agent that is being rolled out loses its green side, and its live revision stays. With `now` calls
    that run on what is taken back are ended; else they may finish.

    `expect` names what is to be taken back, by its digest or its beginning: the green revision where that goes, else
    the live one, `none` where the agent is out of service. Where it is another by now, nothing is done.
    """

    revision: Annotated[str, Meta(max_length=80)] | None = None
    now: bool = False
    expect: Annotated[str, Meta(max_length=80)] | None = None


class RollBackMany(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which agents to take back: by name, those of a change request, or those that a selector finds (as in lists).

    With `now` calls that run on what is taken back are ended; else they may finish.
    """

    agents: list[str] = []
    change: Annotated[str, Meta(max_length=40)] | None = None
    selector: dict[str, str] = {}
    now: bool = False


class RefusedBack(Struct, frozen=True, kw_only=True):
    """An agent that was not taken back, with the reason."""

    agent: str
    reason: str


class RolledBackMany(Struct, frozen=True, kw_only=True):
    """The agents that were taken back, and how many stood so already; `revision` is None where one was new before."""

    agents: list["BackAgent"]
    unchanged: int
    refused: list[RefusedBack]
    sequence: int


class BackAgent(Struct, frozen=True, kw_only=True):
    """The revision of an agent that is live now, with its version, and the one that was taken back.

    None is no revision: the agent is, or was, out of service.
    """

    agent: str
    revision: str | None
    before: str | None
    version: str | None = None


class RolledBack(Struct, frozen=True, kw_only=True):
    """The revision that is live now, and the one that was taken back.

    None is no revision: the agent is, or was, out of service. `sequence` is that of the catalogue's newest change.
    """

    agent: str
    revision: str | None
    version: str | None
    before: str | None
    sequence: int


class CatalogueStatus(Struct, frozen=True, kw_only=True):
    """How the catalogue stands; `sequence` is the number of its newest change."""

    agents: int
    agents_by_framework: dict[str, int]
    revisions: int
    cells: int
    open_batches: int
    sequence: int
    database_bytes: int
