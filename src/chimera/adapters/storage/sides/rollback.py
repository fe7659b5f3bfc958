"""Taking agents back to what they were, one or thousands in one transaction.

What to go back to is worked out from what is read first; the transaction asks again whether it is still so. What was
live is withdrawn: gateways give it no call from the moment they read that, and end what runs where that is asked for.
A change's rollout, if one is under way, is aborted by the same transaction: it would go on with what it has not begun.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.facts import AgentFacts, Unservable
from chimera.adapters.storage.rollouts.store import abort_of_change
from chimera.adapters.storage.schema.catalogue import history
from chimera.adapters.storage.schema.delivery import change_item
from chimera.adapters.storage.schema.sides import GREEN
from chimera.adapters.storage.sequence import hold_sequence
from chimera.adapters.storage.sides.pointing import Target, Why, agents_of, joined, sides_of
from chimera.adapters.storage.sides.store import SideStorage
from chimera.adapters.storage.sides.taken_back import Done, TakenBack
from chimera.agents.api import BackAgent
from chimera.agents.catalogue import (
    ChangedMeanwhile,
    HistoryEntry,
    NoEarlierRevision,
    OwnedByResource,
    earlier,
    is_named,
)
from chimera.delivery.errors import UnknownChange
from chimera.delivery.rollout.model import Summary
from chimera.gateway.errors import AgentNotFound
from chimera.kernel.clock import Clock, SystemClock
from chimera.platform.cells import unservable_here
from chimera_host.contract.problem import ProblemError


@dataclass(frozen=True, kw_only=True, slots=True)
class Want:
    """What an agent is to be (None: out of service), and what it was when that was decided: live, and green.

    `removal`: what is taken back is that it goes out of service. `spared`: the green side is a later change's.
    """

    agent: str
    to: str | None
    live: str | None
    green: str | None
    removal: bool = False
    spared: bool = False


Wants = tuple[list[Want], dict[str, ProblemError]]
"""What is to be, and which agents can't be taken back."""


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
        self._clock = clock or SystemClock()
        self._taken_back = TakenBack(database)
        self._sides = SideStorage(database, max_hosts=max_hosts, clock=clock, unservable=unservable)

    async def agents(
        self,
        tenant: str,
        names: Sequence[str],
        *,
        to: str | None,
        by: str,
        now: bool,
        expect: str | None = None,
        key: str | None = None,
    ) -> Done:
        """Take agents back to the revision `to`, or the one before; a green side goes first.

        Those of which something else than `expect` would be taken back are refused.
        """

        def look(connection: Connection) -> Wants:
            wants, refused = _wants(connection, tenant, names, to)
            return (wants, refused) if expect is None else _expected(wants, refused, to, expect)

        return await self._back(tenant, look, by=by, now=now, key=key)

    async def change(self, tenant: str, change: str, *, by: str, now: bool, key: str | None = None) -> Done:
        """Take back what a change request made live, or is making; agents that have moved on since are refused."""

        def look(connection: Connection) -> Wants:
            return _wants_of_change(connection, tenant, change)

        return await self._back(tenant, look, by=by, now=now, change=change, key=key)

    async def done(self, tenant: str, key: str) -> Done | None:
        """What became of the rollback that was asked for with this key, if it was done."""
        return await self._database.read(lambda connection: self._taken_back.find(connection, tenant, key))

    async def _back(
        self,
        tenant: str,
        look: Callable[[Connection], Wants],
        *,
        by: str,
        now: bool,
        change: str | None = None,
        key: str | None = None,
    ) -> Done:
        def known(connection: Connection) -> Done | None:
            return None if key is None else self._taken_back.find(connection, tenant, key)

        found = await self._database.read(lambda connection: known(connection) or look(connection))
        if isinstance(found, Done):
            return found
        wants, refused = found
        facts = await self._sides.facts(tenant, [one.to for one in wants if one.to != one.live])
        why = Why(by=by, change=change, withdraw=True, cancel=now, detail={})

        def job(connection: Connection) -> Done:
            sequence = hold_sequence(connection)  # of two who ask at once with one key, one sees what the other did
            if (before := known(connection)) is not None:
                return before
            going = [] if change is None else self._abort(connection, tenant, change, by)
            done = self._point(connection, tenant, wants, refused | _late(wants, going), facts, why, sequence)
            # What was refused as a whole did nothing, and is asked anew.
            if key is not None and (done.agents or done.stood):
                self._taken_back.keep(connection, tenant, key, done, self._clock.wall())
            return done

        return await self._database.write(job)

    def _abort(self, connection: Connection, tenant: str, change: str, by: str) -> Sequence[Summary]:
        now = self._database.now(connection)
        return abort_of_change(connection, tenant, change, by=by, reason="its change was taken back", now=now)

    def _point(
        self,
        connection: Connection,
        tenant: str,
        wants: Sequence[Want],
        before: dict[str, ProblemError],
        facts: dict[str, AgentFacts],
        why: Why,
        sequence: int,
    ) -> Done:
        names = [one.agent for one in wants]
        rows = {row.name: row for row in agents_of(connection, tenant, names) if row.status == "live"}
        greens = {row.agent: row for row in sides_of(connection, tenant, names, GREEN)}
        refused = dict(before)
        stood: list[BackAgent] = []
        targets: list[Target] = []
        ended: list[Row[tuple[object, ...]]] = []
        for one in wants:
            if one.agent in before:
                continue
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
            elif green is not None and not one.spared:
                ended.append(green)
            else:
                stood.append(_back(one.agent, live, live.revision if live else None))
        done = [
            BackAgent(
                agent=one.agent,
                revision=one.revision,
                before=rows[one.agent].revision if one.agent in rows else None,
                version=one.facts.version if one.facts else None,
            )
            for one in targets
        ]
        done += [_back(row.agent, rows.get(row.agent), row.revision) for row in ended]
        if targets:
            sequence, _ = self._sides.pointing.point(connection, tenant, targets, why, sequence)
        if ended:
            sequence = self._sides.end(connection, tenant, ended, why, sequence)
        return Done(agents=tuple(done), stood=tuple(stood), refused=refused, sequence=sequence)


def _wants(connection: Connection, tenant: str, names: Sequence[str], to: str | None) -> Wants:
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


def _expected(wants: Sequence[Want], before: dict[str, ProblemError], to: str | None, expect: str) -> Wants:
    """Those wants that take `expect` back; the others are refused."""
    kept, refused = [], dict(before)
    for one in wants:
        taken = one.green if one.green is not None and to is None else one.live
        if is_named(taken, expect):
            kept.append(one)
        else:
            what = "is out of service" if taken is None else f"is at {taken[:19]}"
            refused[one.agent] = ChangedMeanwhile(
                f"agent {one.agent} {what}, and not at {expect[:19]}: nothing was taken back",
                next_step=f"see `chimera get revisions {one.agent}`: it may be as it should be",
            )
    return kept, refused


def _wants_of_change(connection: Connection, tenant: str, change: str) -> Wants:
    i = change_item.c
    its = (i.tenant == tenant) & (i.change == change)
    items = connection.execute(select(i.agent, i.revision, i.before).where(its)).all()
    if not items:
        raise UnknownChange(f"there is no change {change[:40]!r}", next_step="list them with `chimera change list`")
    names = [item.agent for item in items]
    live = {row.name: row.revision for row in agents_of(connection, tenant, names) if row.status == "live"}
    greens = {row.agent: row for row in sides_of(connection, tenant, names, GREEN)}
    wants, refused = [], dict[str, ProblemError]()
    for item in items:
        blue, side = live.get(item.agent), greens.get(item.agent)
        green = None if side is None else side.revision
        theirs = green is not None and green != item.revision
        if blue == item.revision and theirs:
            refused[item.agent] = ChangedMeanwhile(
                f"rollout {greens[item.agent].rollout} makes a later change of agent {item.agent}",
                next_step="take that one back first, or wait for its end",
            )
        elif blue == item.revision:
            wants.append(Want(agent=item.agent, to=item.before, live=blue, green=green))
        elif blue == item.before:
            removal = item.revision is None
            wants.append(Want(agent=item.agent, to=blue, live=blue, green=green, removal=removal, spared=theirs))
        else:
            refused[item.agent] = ChangedMeanwhile(
                f"agent {item.agent} was changed after the change {change}", next_step="take it back by its name"
            )
    return wants, refused


def _late(wants: Sequence[Want], going: Sequence[Summary]) -> dict[str, ProblemError]:
    """Agents that a rollout takes out of service at this moment: no side of theirs could be ended before it does."""
    names = [one.agent for one in wants if one.removal] if going else []
    return {
        name: ChangedMeanwhile(
            f"agent {name} is being taken out of service at this moment, by rollout {going[0].rollout.id}",
            next_step="try again when it is done",
        )
        for name in names
    }


def _back(agent: str, live: Row[Any] | None, before: str | None) -> BackAgent:
    """An agent that is live as it was."""
    revision, version = (None, None) if live is None else (live.revision, live.version)
    return BackAgent(agent=agent, revision=revision, version=version, before=before)


def _owned(name: str, owner: str) -> OwnedByResource:
    return OwnedByResource(
        f"the agent {name!r} belongs to the resource Agent {owner!r}, which alone changes it",
        next_step="change it there",
    )
