"""The port `Sides` on the database, and what gateways write of loading ahead.

Whatever is asked for thousands of agents is one transaction and a few statements: what is known of the agents is read
by one, what becomes of them is decided here, and each table is written by one. Facts of revisions are worked out in a
thread before the transaction begins; revisions never change.

Each change of a side counts up its agent's sequence, by which gateways read it.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, update

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.facts import AgentFacts, Unservable, agent_columns
from chimera.adapters.storage.leases import check_lease
from chimera.adapters.storage.removing import delete_keys
from chimera.adapters.storage.schema.catalogue import agent
from chimera.adapters.storage.schema.sides import GREEN, KEPT, WITHDRAWN, side
from chimera.adapters.storage.sequence import hold_sequence, next_sequence, write_sequence
from chimera.adapters.storage.sides.observing import Observing
from chimera.adapters.storage.sides.pointing import (
    Pointing,
    Target,
    Why,
    agents_of,
    canonical_of,
    sides_of,
)
from chimera.adapters.storage.state.telling import note
from chimera.delivery.sides.model import WHOLE, Green, Observations, Standing
from chimera.gateway.sides.ports import Loads
from chimera.kernel.clock import Clock, SystemClock
from chimera.kernel.leases import Lease
from chimera.platform.cells import unservable_here

ACTOR = "system:rollouts"
_NAMED = 20
"""Agents that an entry of the audit log names of those it is about."""


class SideStorage:
    """Sides on one database."""

    def __init__(
        self,
        database: Database,
        *,
        max_hosts: int,
        clock: Clock | None = None,
        unservable: Unservable = unservable_here,
    ) -> None:
        """Compile the statements; `max_hosts` and `unservable` as for `Catalogue`."""
        self._database = database
        self._clock = clock or SystemClock()
        self._pointing = Pointing(database, self._clock, max_hosts=max_hosts, unservable=unservable)
        self._observing = Observing(database)
        its = (agent.c.tenant == bindparam("the_tenant")) & (agent.c.name == bindparam("the_agent"))
        self._bump = database.prepared(update(agent).where(its).values(sequence=bindparam("new_sequence")))
        green = (side.c.tenant == bindparam("the_tenant")) & (side.c.agent == bindparam("the_agent"))
        green &= side.c.role == GREEN
        self._weigh = database.prepared(update(side).where(green).values(weight=bindparam("new_weight")))
        loaded: dict[str, Any] = {name: bindparam(f"new_{name}") for name in ("wanted", "holding", "problem")}
        this = green & (side.c.revision == bindparam("the_revision"))
        self._loaded = database.prepared(update(side).where(this).values(loaded))

    # -- Sides --------------------------------------------------------------------------------------------------------

    async def look(self, tenant: str, agents: Sequence[str]) -> Mapping[str, Standing]:
        """See `Sides`."""
        return await self._database.read(lambda connection: self._look(connection, tenant, agents))

    async def set_green(self, tenant: str, greens: Sequence[Green], *, rollout: str, held: Lease) -> Mapping[str, str]:
        """See `Sides`."""
        facts = await self.facts(tenant, [one.revision for one in greens])

        def job(connection: Connection) -> dict[str, str]:
            return self._set_green(connection, tenant, greens, rollout, held, facts)

        return await self._database.write(job)

    async def set_weights(self, tenant: str, weights: Mapping[str, int], *, rollout: str, held: Lease) -> None:
        """See `Sides`."""
        wrong = [weight for weight in weights.values() if not 0 <= weight <= WHOLE]
        if wrong:
            raise ValueError(f"{wrong[0]} is no weight in basis points (0 to {WHOLE})")
        await self._database.write(
            lambda connection: self._set_weights(connection, tenant, weights, rollout=rollout, held=held)
        )

    async def finish(
        self,
        tenant: str,
        *,
        green: Sequence[Green] = (),
        blue: Sequence[Green] = (),
        rollout: str,
        change: str | None = None,
        keep: float,
        by: str,
        held: Lease,
        now: bool = False,
        tolerate: int | None = None,
    ) -> Mapping[str, str]:
        """See `Sides`."""
        facts = await self.facts(tenant, [*(one.revision for one in green), *(one.before for one in blue)])
        told = {"rollout": rollout}

        def job(connection: Connection) -> dict[str, str]:
            sequence = hold_sequence(connection)
            check_lease(connection, held)
            why = Why(by=by, change=change, keep=keep, detail=told)
            pairs = [(one, one.revision) for one in green]
            refused, sequence = self._point(connection, tenant, pairs, rollout, facts, why, sequence, tolerate)
            back = Why(by=by, change=change, withdraw=True, cancel=now, detail=told)
            pairs = [(one, one.before) for one in blue]
            more, _ = self._point(connection, tenant, pairs, rollout, facts, back, sequence)
            return refused | more

        return await self._database.write(job)

    async def observations(self, tenant: str, rollout: str, after: int, limit: int = 100) -> Observations:
        """See `Sides`."""
        return await self._observing.read(tenant, rollout, after, limit)

    async def observed(self) -> int:
        """See `Sides`."""
        return await self._observing.newest()

    # -- for gateways -------------------------------------------------------------------------------------------------

    async def loaded(self, loads: Sequence[Loads], *, held: Lease) -> None:
        """See `SideStore`."""

        def job(connection: Connection) -> None:
            check_lease(connection, held)
            rows = (
                {
                    "the_tenant": one.tenant,
                    "the_agent": one.agent,
                    "the_revision": one.revision,
                    "new_wanted": one.wanted,
                    "new_holding": one.holding,
                    "new_problem": one.problem,
                }
                for one in loads
            )
            self._loaded.run_many(connection, rows)

        await self._database.write(job)

    @property
    def pointing(self) -> Pointing:
        """What points agents to other revisions."""
        return self._pointing

    @property
    def observing(self) -> Observing:
        """Where gateways tell what they saw."""
        return self._observing

    # -- inside -------------------------------------------------------------------------------------------------------

    async def facts(self, tenant: str, digests: Iterable[str | None]) -> dict[str, AgentFacts]:
        """The facts of revisions that are stored."""
        wanted = sorted({one for one in digests if one is not None})
        data = await self._database.read(lambda connection: canonical_of(connection, tenant, wanted))
        return await asyncio.to_thread(self._pointing.facts, data)

    def _look(self, connection: Connection, tenant: str, names: Sequence[str]) -> dict[str, Standing]:
        live = {row.name: row.revision for row in agents_of(connection, tenant, names) if row.status == "live"}
        beside: dict[tuple[str, str], Row[Any]] = {
            (row.agent, row.role): row for row in sides_of(connection, tenant, names, GREEN, KEPT)
        }
        now = self._clock.wall()
        found = {}
        for name in names:
            green, kept = beside.get((name, GREEN)), beside.get((name, KEPT))
            if name not in live and green is None:
                continue
            if kept is not None and (kept.until or 0.0) <= now:
                kept = None
            found[name] = Standing(
                agent=name,
                blue=live.get(name),
                green=green and green.revision,
                weight=green.weight if green else 0,
                rollout=green and green.rollout,
                wanted=green and green.wanted,
                holding=green.holding if green else 0,
                problem=green and green.problem,
                kept=kept and kept.revision,
                kept_until=(kept.until or 0.0) if kept else 0.0,
            )
        return found

    def _set_green(
        self,
        connection: Connection,
        tenant: str,
        greens: Sequence[Green],
        rollout: str,
        held: Lease,
        facts: Mapping[str, AgentFacts],
    ) -> dict[str, str]:
        sequence = hold_sequence(connection)
        check_lease(connection, held)
        names = [one.agent for one in greens]
        rows = {row.name: row for row in agents_of(connection, tenant, names) if row.status == "live"}
        sides = sides_of(connection, tenant, names, GREEN, WITHDRAWN)
        beside = {row.agent: row for row in sides if row.role == GREEN}
        # Whoever took it back did so for good: this rollout doesn't bring it again.
        back = {(row.agent, row.revision) for row in sides if row.role == WITHDRAWN and row.rollout == rollout}
        stored = canonical_of(connection, tenant, [one.revision for one in greens if one.revision is not None])
        refused: dict[str, str] = {}
        fresh: list[tuple[Green, AgentFacts]] = []
        for one in greens:
            live, there = rows.get(one.agent), beside.get(one.agent)
            known = facts.get(one.revision or "") if one.revision in stored else None
            blue = None if live is None else live.revision
            if (why := _refusal(one, live, known)) is not None:
                refused[one.agent] = why
            elif there is not None and (there.rollout, there.revision) != (rollout, one.revision):
                refused[one.agent] = f"rollout {there.rollout} is at it"
            elif there is None and known is not None and blue != one.revision:
                if (one.agent, one.revision) in back:
                    refused[one.agent] = "this revision was taken back"
                else:
                    fresh.append((one, known))
        if not fresh:
            return refused
        self._pointing.put_cells(connection, tenant, [known for _, known in fresh])
        now = self._clock.wall()
        named = [one.agent for one, _ in fresh]
        self._pointing.put_sides(connection, [_green_row(tenant, one, known, rollout, now) for one, known in fresh])
        self._tell_gateways(connection, tenant, named, sequence)
        _note(connection, "side:set", tenant, rollout, now, named)
        return refused

    def _set_weights(
        self, connection: Connection, tenant: str, weights: Mapping[str, int], *, rollout: str, held: Lease
    ) -> None:
        sequence = hold_sequence(connection)
        check_lease(connection, held)
        found = sides_of(connection, tenant, list(weights), GREEN)
        changed = [one.agent for one in found if one.rollout == rollout and one.weight != weights[one.agent]]
        if not changed:
            return
        self._weigh.run_many(
            connection,
            ({"the_tenant": tenant, "the_agent": name, "new_weight": weights[name]} for name in changed),
        )
        self._tell_gateways(connection, tenant, changed, sequence)
        least, most = min(weights[name] for name in changed), max(weights[name] for name in changed)
        _note(connection, "side:weigh", tenant, rollout, self._clock.wall(), changed, least=least, most=most)

    def _point(
        self,
        connection: Connection,
        tenant: str,
        pairs: Sequence[tuple[Green, str | None]],
        rollout: str,
        facts: Mapping[str, AgentFacts],
        why: Why,
        sequence: int,
        tolerate: int | None = None,
    ) -> tuple[dict[str, str], int]:
        """End sides with the revisions of `pairs` live; who is refused, and the sequence then.

        Where more are refused than are tolerated none is ended.
        """
        if not pairs:
            return {}, sequence
        names = [one.agent for one, _ in pairs]
        rows = {row.name: row for row in agents_of(connection, tenant, names) if row.status == "live"}
        beside = {row.agent: row for row in sides_of(connection, tenant, names, GREEN)}
        refused: dict[str, str] = {}
        targets: list[Target] = []
        ended: list[Row[Any]] = []
        for one, to in pairs:
            live, there = rows.get(one.agent), beside.get(one.agent)
            blue = None if live is None else live.revision
            if (late := _late(one, to, live, there, rollout, wins=not why.withdraw)) is not None:
                refused[one.agent] = late
            elif to is not None and to not in facts:
                refused[one.agent] = "its revision isn't stored any more"
            elif blue != to:
                known = None if to is None else facts[to]
                targets.append(Target(agent=one.agent, revision=to, facts=known, owner=one.owner))
            elif there is not None:
                ended.append(there)
        if tolerate is not None and len(refused) > tolerate:
            return refused, sequence
        if targets:
            sequence, _ = self._pointing.point(connection, tenant, targets, why, sequence)
        if ended:  # no pointer moves
            sequence = self.end(connection, tenant, ended, why, sequence)
        return refused, sequence

    def end(self, connection: Connection, tenant: str, ended: Sequence[Row[Any]], why: Why, sequence: int) -> int:
        """End green sides, whose rows these are, without a pointer moving; the sequence then."""
        keys = [(tenant, row.agent, row.revision) for row in ended]
        delete_keys(connection, (side.c.tenant, side.c.agent, side.c.revision), keys, side.c.role == GREEN)
        now = self._clock.wall()
        if why.withdraw:
            self._pointing.put_withdrawn(connection, ended, why, now)
        names = [row.agent for row in ended]
        sequence = self._tell_gateways(connection, tenant, names, sequence)
        _note(connection, "side:drop", tenant, ended[0].rollout or "", now, names, by=why.by)
        return sequence

    def _tell_gateways(self, connection: Connection, tenant: str, names: Sequence[str], sequence: int) -> int:
        rows = [
            {"the_tenant": tenant, "the_agent": name, "new_sequence": place}
            for place, name in enumerate(names, start=sequence + 1)
        ]
        self._bump.run_many(connection, rows)
        write_sequence(connection, sequence + len(rows))
        return sequence + len(rows)


def expire_sides(connection: Connection, now: float, limit: int) -> int:
    """Remove sides whose time is over, `limit` at most; how many. Whoever keeps cells is told."""
    sequence = hold_sequence(connection)
    some = side.c.until.is_not(None) & (side.c.until <= now)
    keys = [(row.tenant, row.agent, row.revision) for row in connection.execute(side.select().where(some).limit(limit))]
    if keys:
        delete_keys(connection, (side.c.tenant, side.c.agent, side.c.revision), keys)
        next_sequence(connection, sequence)
    return len(keys)


def _refusal(one: Green, live: Row[Any] | None, known: AgentFacts | None) -> str | None:
    if live is not None and live.owner != one.owner:
        return _theirs(live)
    if one.revision is not None and known is None:
        return "its revision isn't stored"
    if (None if live is None else live.revision) not in (one.before, one.revision):
        return "it was changed meanwhile"
    return None if known is None else known.unservable


def _late(
    one: Green, to: str | None, live: Row[Any] | None, there: Row[Any] | None, rollout: str, *, wins: bool
) -> str | None:
    """Why an agent's sides can't end with `to` live: somebody else was there before. `wins`: with green."""
    blue = None if live is None else live.revision
    if there is not None and there.rollout != rollout:
        return f"rollout {there.rollout} is at it"
    if blue not in (one.before, one.revision):
        return "it was changed meanwhile"
    if wins and there is None and to is not None and blue != to:
        return "it was taken back meanwhile"
    if live is not None and live.owner != one.owner and blue != to:
        return _theirs(live)
    return None


def _theirs(live: Row[Any]) -> str:
    if live.owner is None:
        return "it was applied through the API, which alone changes it"
    return f"the resource {live.owner} alone changes it"


def _green_row(tenant: str, one: Green, facts: AgentFacts, rollout: str, now: float) -> dict[str, Any]:
    return {
        **agent_columns(facts),
        "tenant": tenant,
        "agent": one.agent,
        "revision": one.revision,
        "role": GREEN,
        "rollout": rollout,
        "weight": 0,
        "since": now,
        "until": None,
        # A new agent is loaded nowhere, so there is nothing to look for.
        "wanted": 0 if one.before is None else None,
        "holding": 0,
        "problem": None,
        "cancelled": 0,
    }


def _note(
    connection: Connection,
    what: str,
    tenant: str,
    rollout: str,
    at: float,
    names: Sequence[str],
    *,
    by: str = ACTOR,
    **detail: int,
) -> None:
    named = sorted(names)[:_NAMED]
    note(connection, what, tenant, f"rollouts/{rollout}", at, by, agents=len(names), named=named, **detail)
