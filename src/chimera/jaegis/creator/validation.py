"""Whether definitions fit the whole ecosystem: names, agents, servers, events and models that they name.

What a definition says by itself (its schema, its integration points, the template that it extends, the platform's own
types of events) was judged when it was compiled. Here it is held against all live agents and all others of the same
change at once: the ecosystem is looked at as it would be once the change is live, so that a change may bring two agents
that name each other, and can't take one away that another still calls.

What the live revision has already is not this change's fault: it is told, and doesn't block.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from msgspec import Struct

from chimera.events.cloudevents import TYPE_PREFIX
from chimera.jaegis.creator.circles import circles
from chimera.jaegis.creator.lookalikes import Lookalikes
from chimera.jaegis.creator.model import Misfit
from chimera.jaegis.creator.settings import CreatorSettings
from chimera.jaegis.ecosystem import Ecosystem, Member, Mention

CALLS, WRITES, REPLACED = "calls", "writes to", "is replaced by"
_CAPABILITY = "capability:"
_MOST_SHOWN = 3


class Judged(Struct, frozen=True, kw_only=True):
    """What is judged: the agents of a change, those it takes out, and the ecosystems before and after it."""

    members: tuple[Member, ...]
    gone: tuple[str, ...]
    before: Ecosystem
    after: Ecosystem

    def old(self, name: str) -> Member | None:
        """An agent's live revision."""
        return self.before.members.get(name)


def validate(
    members: Sequence[Member],
    gone: Sequence[str],
    ecosystem: Ecosystem,
    settings: CreatorSettings,
    *,
    models: frozenset[str] | None = None,
    owner: str | None = None,
) -> list[Misfit]:
    """All that doesn't fit.

    `models` are those that agents may name, where they are known. `owner` is the resource whose change it is.
    """
    after = ecosystem.after({**{one.name: one for one in members}, **dict.fromkeys(gone)})
    judged = Judged(members=tuple(members), gone=tuple(gone), before=ecosystem, after=after)
    rules = (
        *(_owned(judged, owner), _names(judged), _mentions(judged), _left_behind(judged)),
        *(_circles(judged, CALLS), _circles(judged, REPLACED), _capabilities(judged)),
        *(_servers(judged, settings.mcp_servers), _events(judged, settings.event_types), _models(judged, models)),
    )
    return list(chain.from_iterable(rules))


def _owned(judged: Judged, owner: str | None) -> Iterator[Misfit]:
    for name in (*(one.name for one in judged.members), *judged.gone):
        old = judged.old(name)
        if old is not None and old.owner is not None and old.owner != owner:
            namespace, _, resource = old.owner.partition("/")
            yield Misfit(
                agent=name,
                code="owned",
                detail=f"it belongs to the resource Agent {resource} in the namespace {namespace}",
                next_step="change the resource, or choose another name",
                blocking=True,
            )


def _names(judged: Judged) -> Iterator[Misfit]:
    new = [one for one in judged.members if judged.old(one.name) is None]
    if not new:
        return
    known = Lookalikes(name for name in judged.before.names if name not in judged.gone)
    among = Lookalikes(one.name for one in new)
    for one in new:
        near = known.of(one.name) or among.other(one.name)
        if near is not None:
            yield Misfit(
                agent=one.name,
                code="look-alike",
                detail=f"its name is easily taken for {near}",
                next_step="choose a name that says what sets it apart",
                path="metadata.name",
            )


def _mentions(judged: Judged) -> Iterator[Misfit]:
    members = judged.after.members
    names: Lookalikes | None = None
    for one in judged.members:
        old = judged.old(one.name)
        known = set() if old is None else {(mention.agent, mention.how) for mention in old.mentions}
        for mention in one.mentions:
            blocking = (mention.agent, mention.how) not in known
            target = members.get(mention.agent)
            if target is None:
                names = names or Lookalikes(members)
                near = names.of(mention.agent)
                yield Misfit(
                    agent=one.name,
                    code="unknown-agent",
                    detail=f"it {mention.how} {mention.agent}, and there is no such agent",
                    next_step=f"did you mean {near}?"
                    if near
                    else f"bring {mention.agent} in the same change, or before",
                    path=mention.path,
                    blocking=blocking,
                )
                continue
            yield from _target(one, mention, target, blocking)


def _target(one: Member, mention: Mention, target: Member, blocking: bool) -> Iterator[Misfit]:
    if mention.how == WRITES and "events" not in target.protocols:
        yield Misfit(
            agent=one.name,
            code="not-reachable",
            detail=f"it writes to {target.name}, which is not reached by events",
            next_step=f"add `events` to the protocols of {target.name}, or call it as a tool of type agent",
            path=mention.path,
            blocking=blocking,
        )
    leaving = next((other for other in target.mentions if other.how == REPLACED), None)
    if leaving is not None and leaving.agent != one.name:
        yield Misfit(
            agent=one.name,
            code="leaving",
            detail=f"it {mention.how} {target.name}, which is to be replaced by {leaving.agent}",
            next_step=f"name {leaving.agent}",
            path=mention.path,
        )


def _left_behind(judged: Judged) -> Iterator[Misfit]:
    gone = {name for name in judged.gone if judged.old(name) is not None}
    if not gone:
        return
    needed: dict[str, list[str]] = {}
    for one in judged.after.members.values():
        for mention in one.mentions:
            if mention.agent in gone:
                needed.setdefault(mention.agent, []).append(f"{one.name} {mention.how} it")
    for name, who in sorted(needed.items()):
        yield Misfit(
            agent=name,
            code="still-needed",
            detail=f"it can't be taken out: {_listed(sorted(who))}",
            next_step="change those agents in the same change, or before",
            blocking=True,
        )


def _circles(judged: Judged, how: str) -> Iterator[Misfit]:
    following = {
        one.name: [mention.agent for mention in one.mentions if mention.how == how]
        for one in judged.after.members.values()
    }
    for circle in circles(following, [one.name for one in judged.members]):
        round_trip = " → ".join((*circle, circle[0]))
        old = judged.before.members
        was_there = all(
            any(mention.how == how and mention.agent == after for mention in old[name].mentions)
            for name, after in zip(circle, (*circle[1:], circle[0]), strict=True)
            if name in old
        ) and all(name in old for name in circle)
        what = "agents call each other in a circle" if how == CALLS else "agents replace each other in a circle"
        yield Misfit(
            agent=circle[0],
            code="circle",
            detail=f"{what}: {round_trip}",
            next_step="take one of these out; an agent may write to one that calls it (a tool of type message)"
            if how == CALLS
            else "name an agent that stays",
            blocking=not was_there,
        )


def _capabilities(judged: Judged) -> Iterator[Misfit]:
    """A capability that nobody has and that is nearly one that others have is likely that one, misspelt."""
    used = {tag for one in judged.before.members.values() for tag in one.tags if tag.startswith(_CAPABILITY)}
    fresh = [
        (one.name, tag) for one in judged.members for tag in one.tags if tag.startswith(_CAPABILITY) and tag not in used
    ]
    if not fresh:
        return
    known = Lookalikes(tag.removeprefix(_CAPABILITY) for tag in used)
    for name, tag in fresh:
        near = known.of(tag.removeprefix(_CAPABILITY))
        if near is not None:
            yield Misfit(
                agent=name,
                code="capability",
                detail=f"no agent has the tag {tag}, and others have {_CAPABILITY}{near}",
                next_step=f"use {_CAPABILITY}{near}, if that is meant",
                path="metadata.tags",
            )


def _servers(judged: Judged, allowed: Sequence[str]) -> Iterator[Misfit]:
    used = {server.place for one in judged.before.members.values() for server in one.servers}
    for one in judged.members:
        for server in one.servers:
            if server.place not in used and not _matches(server.place, allowed):
                yield Misfit(
                    agent=one.name,
                    code="mcp-server",
                    detail=f"no live agent uses the MCP server {server.place[:200]!r}",
                    next_step="let a person look, or name it in the setting `creator.mcp_servers`",
                    path=server.path,
                )


def _events(judged: Judged, known: Sequence[str]) -> Iterator[Misfit]:
    used = {name for one in judged.before.members.values() for name in one.event_types}
    for one in judged.members:
        for name in one.event_types:
            if name.startswith(TYPE_PREFIX) or name in used or _matches(name.removesuffix("*"), known):
                continue
            yield Misfit(
                agent=one.name,
                code="event-type",
                detail=f"no live agent is started by events of the type {name!r}, and nothing says that they are sent",
                next_step="let a person look, or name it in the setting `creator.event_types`",
                path="subscriptions",
            )


def _models(judged: Judged, models: frozenset[str] | None) -> Iterator[Misfit]:
    if models is None:
        return
    for one in judged.members:
        old = judged.old(one.name)
        if one.model not in models:
            yield Misfit(
                agent=one.name,
                code="unknown-model",
                detail=f"it uses the model {one.model!r}, which is not in the settings",
                next_step=f"use {_listed(sorted(models))}, or set it up as [model.{one.model}]",
                path="model.name",
                blocking=old is None or old.model != one.model,
            )


def _matches(text: str, patterns: Iterable[str]) -> bool:
    return any(text.startswith(one[:-1]) if one.endswith("*") else text == one for one in patterns)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_SHOWN])
    return f"{shown} and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else shown
