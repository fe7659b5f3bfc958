"""The live agents of a tenant as JAEGIS sees them: what each says it is for, and whom it names.

A snapshot is made from the catalogue and never changes; `Ecosystems` keeps the newest one of each tenant and brings it
up to date by the catalogue's sequence, so that a change of one agent costs one agent's reading. The index of their
texts is made from the snapshot when somebody asks for it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol

from msgspec import Struct

from chimera.agents.compile import CanonicalDefinition
from chimera.jaegis.duplicates import Index
from chimera.jaegis.words import telling
from chimera.kernel.clock import Clock
from chimera_host.contract.tools import AgentTool, McpTool, MessageTool

PAGE = 250
"""Definitions that are read at once: each takes ten times what is kept of it."""
TENANTS_KEPT = 16
KEPT_FOR = 3_600.0
"""Seconds after which a snapshot is read anew: what is deleted leaves a trace in the catalogue for days alone."""


class Mention(Struct, frozen=True, kw_only=True):
    """Another agent that a definition names: as a tool that it calls or writes to, or as the one that replaces it."""

    agent: str
    how: str
    path: str
    reply: bool = False


class Server(Struct, frozen=True, kw_only=True):
    """An MCP server that a definition names: its address, or the command that starts it."""

    name: str
    place: str
    path: str


class Member(Struct, frozen=True, kw_only=True):
    """One agent of the ecosystem. `terms` are the telling words of its description and functions."""

    name: str
    revision: str
    terms: tuple[str, ...]
    tags: tuple[str, ...]
    protocols: tuple[str, ...]
    model: str
    mentions: tuple[Mention, ...] = ()
    servers: tuple[Server, ...] = ()
    event_types: tuple[str, ...] = ()
    owner: str | None = None


def member_of(value: CanonicalDefinition, revision: str, owner: str | None = None) -> Member:
    """What the ecosystem knows of a definition; `owner` is the resource of a cluster that it comes from."""
    agent = value.agent
    mentions, servers = [], []
    for index, tool in enumerate(agent.tools):
        if isinstance(tool, AgentTool):
            mentions.append(Mention(agent=tool.agent, how="calls", path=f"tools[{index}].agent"))
        elif isinstance(tool, MessageTool):
            path = f"tools[{index}].agent"
            mentions.append(Mention(agent=tool.agent, how="writes to", path=path, reply=tool.reply))
        elif isinstance(tool, McpTool):
            place = tool.url or " ".join(tool.command or ())
            servers.append(Server(name=tool.name, place=place, path=f"tools[{index}]"))
    if value.retirement is not None and value.retirement.replaced_by is not None:
        path = "retirement.replaced_by"
        mentions.append(Mention(agent=value.retirement.replaced_by, how="is replaced by", path=path))
    texts = (agent.description, *agent.primary_functions)
    return Member(
        name=agent.name,
        revision=revision,
        terms=tuple(term for text in texts for term in telling(text)),
        tags=value.tags,
        protocols=value.protocols,
        model=agent.model.name,
        mentions=tuple(mentions),
        servers=tuple(servers),
        event_types=tuple(name for one in value.subscriptions for name in one.types),
        owner=owner,
    )


class Ecosystem:
    """The live agents of one tenant at one time."""

    def __init__(self, members: Mapping[str, Member], sequence: int = 0) -> None:
        """Know `members` by name, as they were at a sequence of the catalogue."""
        self.members = members
        self.sequence = sequence

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names, in the order of the index."""
        return tuple(sorted(self.members))

    @cached_property
    def index(self) -> Index:
        """The texts of all members."""
        return Index([self.members[name].terms for name in self.names])

    def after(self, changed: Mapping[str, Member | None], sequence: int | None = None) -> "Ecosystem":
        """The ecosystem with some members new or changed, and those that are None taken out."""
        members = {**self.members, **{name: one for name, one in changed.items() if one is not None}}
        for name, one in changed.items():
            if one is None:
                members.pop(name, None)
        return Ecosystem(members, self.sequence if sequence is None else sequence)


class LiveRevision(Struct, frozen=True, kw_only=True):
    """A changed agent as the catalogue tells it; without a canonical form it is live no more."""

    name: str
    sequence: int
    revision: str
    value: CanonicalDefinition | None
    owner: str | None = None


class LiveAgents(Protocol):
    """The catalogue, as the ecosystem reads it."""

    async def changed_since(self, tenant: str, sequence: int, limit: int) -> Sequence[LiveRevision]:
        """Agents of a tenant that were changed after a sequence, in its order, deleted ones too."""


class Ecosystems:
    """The newest snapshot of each tenant that was asked for lately."""

    def __init__(self, live: LiveAgents, clock: Clock, *, kept: int = TENANTS_KEPT) -> None:
        """Read `live`; keep the snapshots of so many tenants."""
        self._live = live
        self._clock = clock
        self._kept = kept
        self._known: OrderedDict[str, tuple[float, Ecosystem]] = OrderedDict()
        self._reading: dict[str, asyncio.Lock] = {}

    async def of(self, tenant: str) -> Ecosystem:
        """The ecosystem of a tenant as it is now."""
        async with self._reading.setdefault(tenant, asyncio.Lock()):
            made, known = self._known.get(tenant, (0.0, Ecosystem({})))
            now = self._clock.monotonic()
            if now - made > KEPT_FOR:
                made, known = now, Ecosystem({})
            changed: dict[str, Member | None] = {}
            sequence = known.sequence
            while rows := await self._live.changed_since(tenant, sequence, PAGE):
                changed.update(await asyncio.to_thread(_members, rows))
                sequence = rows[-1].sequence
            if changed:
                known = known.after(changed, sequence)
            self._known[tenant] = made, known
            self._known.move_to_end(tenant)
        while len(self._known) > self._kept:
            oldest, _ = self._known.popitem(last=False)
            if not self._reading[oldest].locked():
                del self._reading[oldest]
        return known


def _members(rows: Sequence[LiveRevision]) -> dict[str, Member | None]:
    return {row.name: None if row.value is None else member_of(row.value, row.revision, row.owner) for row in rows}
