"""Cells, hosts and routes as values.

A `RuntimeClass` is what agents must share to live in one cell; `CellSpec` is a cell as the substrate gets it; an
`Endpoint` is one running host. A `Route` is everything the gateway needs to know of an agent to take a call.
"""

from typing import Literal

from msgspec import Struct

from chimera.agents.subscriptions import TakenEvents
from chimera_host.contract.agent import FrameworkName

RuntimeKind = Literal["python", "node", "image"]
BROKEN = frozenset({"unreachable", "crashed"})
"""Kinds of reports after which a host takes no call until somebody has looked at it."""
NODE_HEAP_SHARE = 0.75
"""Of a Node host's memory, what V8's heap may take; its own code, buffers and stacks take the rest."""


class ResourceClass(Struct, frozen=True, kw_only=True):
    """What one host of a cell may use. CPU in millicores, memory in bytes, open files as a count."""

    name: str
    cpu_millicores: int
    memory_bytes: int
    open_files: int = 4096


class RuntimeClass(Struct, frozen=True, kw_only=True):
    """What all agents of a cell share.

    `isolation` is the domain that agents may not be mixed across: the tenant for declarative agents, tenant and owner
    for agents with code, tenant and agent for dedicated ones. `requirements` is the digest of a hash-locked
    requirements file, which makes an environment of its own; `image` names a custom image.
    """

    tenant: str
    framework: FrameworkName
    runtime: RuntimeKind
    isolation: str
    resources: ResourceClass
    requirements: str | None = None
    image: str | None = None


class CellSpec(Struct, frozen=True, kw_only=True):
    """A cell as desired: its class and the bounds of its scale. Times in seconds."""

    cell: str
    runtime_class: RuntimeClass
    min_hosts: int = 0
    max_hosts: int = 1000
    target: float = 10.0
    idle_timeout: float = 300.0


class Endpoint(Struct, frozen=True, kw_only=True):
    """One host that takes calls: where it listens and the key it wants.

    Where hosts of several revisions of a cell take calls, `side` is its revision, and `weight` the share of the cell's
    calls that all hosts of that side together get.
    """

    host: str
    cell: str
    url: str
    key: str
    side: str = ""
    weight: int = 100


Side = Literal["live", "green", "kept"]
WHOLE_WEIGHT = 10_000
"""The weight of a green side that gets all calls."""


class Withdrawn(Struct, frozen=True, kw_only=True):
    """A revision that was taken back: no call begins on it; with `cancelled`, those that run on it are ended."""

    revision: str
    cancelled: bool = False


class Route(Struct, frozen=True, kw_only=True):
    """An agent as the gateway sees it. `sequence` grows with every change; `status` other than live takes no calls.

    `max_tokens_per_day` and `max_usd_per_day` are the budget, `calls_per_minute` the rate of calls; None is no limit.
    `subscriptions` are events that start it, those behind the journal's place `events_since`.
    `unservable` says why this home can't run the agent (a custom image on one machine) and what to do.

    An agent that is rolled out, or was, has other revisions beside the live one, each a route of its own in `others`:
    its green side with a `weight` in basis points, and one that is kept warm until `until` (seconds since the epoch).
    `withdrawn` are those that were taken back, the newest first.
    """

    tenant: str
    agent: str
    revision: str
    cell: str
    framework: FrameworkName
    sequence: int
    status: Literal["live", "deleted"] = "live"
    concurrency: int = 10
    protocols: tuple[str, ...] = ("http", "sse", "openai")
    model: str = "default"
    description: str = ""
    max_tokens_per_day: int | None = None
    max_usd_per_day: float | None = None
    calls_per_minute: int | None = None
    unservable: str | None = None
    tags: tuple[str, ...] = ()
    subscriptions: tuple[TakenEvents, ...] = ()
    events_since: int = 0
    side: Side = "live"
    weight: int = 0
    rollout: str | None = None
    until: float | None = None
    others: tuple["Route", ...] = ()
    withdrawn: tuple[Withdrawn, ...] = ()
