"""Taking agents back to what they were, one or thousands in one transaction.

What to go back to is worked out from what is read first; the transaction asks again whether it is still so. What was
live is withdrawn: gateways give it no call from the moment they read that, and end what runs where that is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.facts import AgentFacts, Unservable
from chimera.adapters.storage.schema.catalogue import history
from chimera.adapters.storage.schema.delivery import change_item
from chimera.adapters.storage.schema.sides import GREEN
from chimera.adapters.storage.sequence import hold_sequence
from chimera.adapters.storage.sides.pointing import Target, Why, agents_of, joined, sides_of
from chimera.adapters.storage.sides.store import SideStorage
from chimera.agents.api import BackAgent
from chimera.agents.catalogue import ChangedMeanwhile, HistoryEntry, NoEarlierRevision, OwnedByResource, earlier
from chimera.delivery.errors import UnknownChange
from chimera.gateway.errors import AgentNotFound
from chimera.kernel.clock import Clock
from chimera.platform.cells import unservable_here
from chimera_host.contract.problem import ProblemError


@dataclass(frozen=True, kw_only=True, slots=True)
class Want:
    """What an agent is to be (None: out of service), and what it was when that was decided: live, and green."""

    agent: str
    to: str | None
    live: str | None
    green: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What became of a rollback; `refused` says by agent what was wrong."""

    agents: tuple[BackAgent, ...]
    unchanged: int
    refused: dict[str, ProblemError]
    sequence: int


class Rollbacks:
    """Rollbacks on one database."""

    def __init__(
        self,
        database: Database,
        *,
        max_hosts: int,
        clock: Clock | None = None,
        unservable: Unservable = unservable_here,
    ) -> None:
        """Compile the statements; the options are those of `Catalogue`."""
        self._database = database
        self._sides = SideStorage(database, max_hosts=max_hosts, clock=clock, unservable=unservable)

    async def agents(self, tenant: str, names: Sequence[str], *, to: str | None, by: str, now: bool) -> Done:
        """Take agents back to the revision `to`, or the one before; a green side goes first."""
        wants, refused = await self._database.read(lambda connection: _wants(connection, tenant, names, to))
        return await self._back(tenant, wants, refused, by=by, now=now)

    async def change(self, tenant: str, change: str, *, by: str, now: bool) -> Done:
        """Take back what a change request made live, or is making; agents that have moved on since are refused."""
        wants, refused = await self._database.read(lambda connection: _wants_of_change(connection, tenant, change))
        return await self._back(tenant, wants, refused, by=by, now=now, change=change)

    async def _back(
        self,
        tenant: str,
        wants: Sequence[Want],
        refused: dict[str, ProblemError],
        *,
        by: str,
        now: bool,
        change: str | None = None,
    ) -> Done:
        facts = await self._sides.facts(tenant, [one.to for one in wants if one.to != one.live])
        why = Why(by=by, change=change, withdraw=True, cancel=now, detail={})

        def job(connection: Connection) -> Done:
            return self._point(connection, tenant, wants, refused, facts, why)

        return await self._database.write(job)

    def _point(
        self,
        connection: Connection,
        tenant: str,
        wants: Sequence[Want],
        before: dict[str, ProblemError],
        facts: dict[str, AgentFacts],
        why: Why,
    ) -> Done:
        sequence = hold_sequence(connection)
        names = [one.agent for one in wants]
        rows = {row.name: row for row in agents_of(connection, tenant, names) if row.status == "live"}
        greens = {row.agent: row for row in sides_of(connection, tenant, names, GREEN)}
        refused, unchanged = dict(before), 0
        targets: list[Target] = []
        ended: list[Row[tuple[object, ...]]] = []
        for one in wants:
            live, green = rows.get(one.agent), greens.get(one.agent)
            now = (live.revision if live else None, green.revision if green else None)
            if now != (one.live, one.green):
                refused[one.agent] = ChangedMeanwhile(f"agent {one.agent} was changed meanwhile", next_step="try again")
            elif one.to != one.live and live is not None and live.owner is not None:
                refused[one.agent] = _owned(one.agent, live.owner)
            elif one.to is not None and one.to != one.live and one.to not in facts:
                refused[one.agent] = NoEarlierRevision(
                    f"the revision {one.to[:19]} of agent {one.agent} was removed (`retention.revisions_days`)",
                    next_step="apply its definition again",
                )
            elif one.to != one.live:
                targets.append(Target(agent=one.agent, revision=one.to, facts=facts[one.to] if one.to else None))
            elif green is not None:
                ended.append(green)
            else:
                unchanged += 1
        done = [BackAgent(agent=one.agent, revision=one.revision, before=_live(rows, one.agent)) for one in targets]
        done += [BackAgent(agent=row.agent, revision=_live(rows, row.agent), before=row.revision) for row in ended]
        if targets:
            sequence, _ = self._sides.pointing.point(connection, tenant, targets, why, sequence)
        if ended:
            sequence = self._sides.end(connection, tenant, ended, why, sequence)
        return Done(agents=tuple(done), unchanged=unchanged, refused=refused, sequence=sequence)


def _wants(
    connection: Connection, tenant: str, names: Sequence[str], to: str | None
) -> tuple[list[Want], dict[str, ProblemError]]:
    keys = [(tenant, name) for name in names]
    h = history.c
    past: dict[str, list[HistoryEntry]] = {}
    query = joined(connection, history, (h.tenant, h.agent), keys).order_by(h.agent, h.sequence.desc())
    for row in connection.execute(query):
        entry = HistoryEntry(sequence=row.sequence, revision=row.revision, version=None, at=row.at, by=row.by)
        past.setdefault(row.agent, []).append(entry)
    live = {row.name: row.revision for row in agents_of(connection, tenant, names) if row.status == "live"}
    greens = {row.agent: row.revision for row in sides_of(connection, tenant, names, GREEN)}
    wants, refused = [], dict[str, ProblemError]()
    for name in dict.fromkeys(names):
        green = greens.get(name)
        if name not in past:
            refused[name] = AgentNotFound(f"there is no agent {name!r}", next_step="see `chimera get agents`")
            continue
        try:
            back = live.get(name) if green is not None and to is None else earlier(name, past[name], to)
        except NoEarlierRevision as error:
            refused[name] = error
            continue
        wants.append(Want(agent=name, to=back, live=live.get(name), green=green))
    return wants, refused


def _wants_of_change(connection: Connection, tenant: str, change: str) -> tuple[list[Want], dict[str, ProblemError]]:
    i = change_item.c
    its = (i.tenant == tenant) & (i.change == change)
    items = connection.execute(select(i.agent, i.revision, i.before).where(its)).all()
    if not items:
        raise UnknownChange(f"there is no change {change[:40]!r}", next_step="list them with `chimera change list`")
    names = [item.agent for item in items]
    live = {row.name: row.revision for row in agents_of(connection, tenant, names) if row.status == "live"}
    greens = {row.agent: row.revision for row in sides_of(connection, tenant, names, GREEN)}
    wants, refused = [], dict[str, ProblemError]()
    for item in items:
        blue, green = live.get(item.agent), greens.get(item.agent)
        if blue == item.revision:
            wants.append(Want(agent=item.agent, to=item.before, live=blue, green=green))
        elif blue == item.before:
            wants.append(Want(agent=item.agent, to=blue, live=blue, green=green))
        else:
            refused[item.agent] = ChangedMeanwhile(
                f"agent {item.agent} was changed after the change {change}", next_step="take it back by its name"
            )
    return wants, refused


def _live(rows: dict[str, Row[tuple[object, ...]]], name: str) -> str | None:
    row = rows.get(name)
    return None if row is None else str(row.revision)


def _owned(name: str, owner: str) -> OwnedByResource:
    return OwnedByResource(
        f"the agent {name!r} belongs to the resource Agent {owner!r}, which alone changes it",
        next_step="change it there",
    )
