"""Pointing agents to other revisions, thousands in one transaction, by a few statements for all of them.

It is what a rollout's end and a rollback do. What an apply does beside (source digests, batches) has no part in it: the
revision is stored, and its facts were worked out before the transaction began.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, select

from chimera.adapters.storage.agent_changes import history_row, last_event, tell_agent
from chimera.adapters.storage.batches import EVENTS, BatchStatements
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.bus import BusRows
from chimera.adapters.storage.facts import AgentFacts, Unservable, agent_columns, cell_columns, facts_of
from chimera.adapters.storage.removing import delete_keys, rows_of
from chimera.adapters.storage.schema.catalogue import agent, cell, history, revision
from chimera.adapters.storage.schema.sides import GREEN, KEPT, WITHDRAWN, side
from chimera.adapters.storage.sequence import write_sequence
from chimera.agents.compile import read_canonical
from chimera.kernel.clock import Clock

FORGOTTEN = 90 * 86_400.0
"""Seconds for which it is known that a revision was taken back."""
_FACTS = tuple(column.name for column in side.c if column.name in agent.c and column.name not in ("tenant", "revision"))
"""Columns that an agent's row and a side's share: what is known of a revision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Why:
    """Who points agents elsewhere, and what becomes of the revision that was live.

    It is kept warm for `keep` seconds, or withdrawn (with `cancel` its calls are ended). `detail` is told with the
    fact.
    """

    by: str
    change: str | None = None
    keep: float | None = None
    withdraw: bool = False
    cancel: bool = False
    detail: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """An agent and the revision that it is to have, with its facts; None takes it out of service.

    One that is taken back so keeps its conversations, which nobody asked to erase. `owner` is whose a new agent is; one
    that is live stays whose it is.
    """

    agent: str
    revision: str | None
    facts: AgentFacts | None = None
    owner: str | None = None


class Pointing:
    """The statements, compiled once for a database."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        max_hosts: int,
        unservable: Unservable,
        batches: BatchStatements | None = None,
    ) -> None:
        """Compile them; `max_hosts` and `unservable` as for `Catalogue`."""
        self._clock = clock
        self._max_hosts = max_hosts
        self._unservable = unservable
        self._batches = batches or BatchStatements(database, clock)
        self._bus = BusRows(database)
        self._put_agent = database.prepared_insert(agent, database.upsert(agent, ("tenant", "name")))
        self._put_cell = database.prepared_insert(cell, database.upsert(cell, ("id",)))
        self._put_history = database.prepared_insert(history)
        self._put_side = database.prepared_insert(side, database.upsert(side, ("tenant", "agent", "revision")))

    # -- read ahead ---------------------------------------------------------------------------------------------------

    def facts(self, canonical: Mapping[str, bytes]) -> dict[str, AgentFacts]:
        """The facts of revisions by digest, from their canonical forms. For a thread: a thousand take 60 ms."""
        return {
            digest: facts_of(read_canonical(data), max_hosts=self._max_hosts, unservable=self._unservable)
            for digest, data in canonical.items()
        }

    # -- in a transaction ---------------------------------------------------------------------------------------------

    def point(
        self, connection: Connection, tenant: str, targets: Sequence[Target], why: Why, sequence: int
    ) -> tuple[int, dict[str, str | None]]:
        """Point agents to their targets, holding the `sequence`; the sequence then, and what was live before."""
        now = self._clock.wall()
        rows = {row.name: row for row in agents_of(connection, tenant, [one.agent for one in targets])}
        live = {name: row for name, row in rows.items() if row.status == "live"}
        pointed = [one for one in targets if one.facts is not None and one.revision is not None]
        sequence = self._write(connection, tenant, pointed, rows, why, sequence)
        gone = [one.agent for one in targets if one.revision is None and one.agent in live]
        ended = [one.agent for one in pointed] + (gone if why.withdraw else [])
        greens = sides_of(connection, tenant, ended, GREEN) if why.withdraw else []
        beside = [(tenant, name) for name in ended]
        delete_keys(connection, (side.c.tenant, side.c.agent), beside, side.c.role.in_((GREEN, KEPT)))
        same = [(tenant, one.agent, one.revision) for one in pointed]
        delete_keys(connection, (side.c.tenant, side.c.agent, side.c.revision), same)
        to = {one.agent: one.revision for one in pointed}
        self.put_withdrawn(connection, [row for row in greens if row.revision != to.get(row.agent)], why, now)
        if why.keep is not None or why.withdraw:
            before = [live[name] for name in ended if name in live]
            self._put_side.run_many(connection, [_side_of(row, why, now) for row in before])
        write_sequence(connection, sequence)
        if gone:
            owners = {one.agent: one.owner for one in targets if one.owner is not None}
            _, sequence = self._batches.delete_agents(
                connection, tenant, gone, why.by, owners, change=why.change, erase=not why.withdraw
            )
        return sequence, {one.agent: live[one.agent].revision if one.agent in live else None for one in targets}

    def _write(
        self,
        connection: Connection,
        tenant: str,
        pointed: Sequence[Target],
        rows: Mapping[str, Row[Any]],
        why: Why,
        sequence: int,
    ) -> int:
        now, last = self._clock.wall(), last_event(connection)
        agents, changes, cells = [], [], {}
        for one in pointed:
            facts, before = one.facts, rows.get(one.agent)
            assert facts is not None and one.revision is not None
            sequence += 1
            live = before if before is not None and before.status == "live" else None
            since = None
            if EVENTS in facts.protocols.split():
                since = live.events_since if live is not None and live.events_since is not None else last
            cells[facts.cell.cell] = cell_columns(tenant, facts.cell)
            agents.append(
                {
                    **agent_columns(facts),
                    "tenant": tenant,
                    "name": one.agent,
                    "revision": one.revision,
                    "status": "live",
                    "sequence": sequence,
                    "source": "",
                    "compiler": "",
                    "file": None if before is None else before.file,
                    "owner": one.owner if live is None else live.owner,
                    "created": now if live is None else live.created,
                    "updated": now,
                    "events_since": since,
                }
            )
            changes.append(history_row(tenant, one.agent, sequence, one.revision, now, why.by, why.change))
            told = {"revision": one.revision, "version": facts.version, "batch": "", **why.detail}
            if why.change is not None:
                told["change"] = why.change
            if live is not None:
                told["before"] = live.revision
            if one.owner is not None:
                told["owner"] = one.owner
            what = "agent.created" if live is None else "agent.updated"
            tell_agent(connection, what, tenant, one.agent, now, why.by, told, sequence)
        self._put_cell.run_many(connection, cells.values())
        self._put_agent.run_many(connection, agents)
        self._put_history.run_many(connection, changes)
        if any(row["events_since"] is not None for row in agents):
            self._bus.open(connection, tenant, last, now)
        return sequence

    def put_sides(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows of `side`."""
        self._put_side.run_many(connection, rows)

    def put_withdrawn(self, connection: Connection, greens: Sequence[Row[Any]], why: Why, now: float) -> None:
        """Write green sides, whose rows these are, as taken back."""
        back = {"role": WITHDRAWN, "weight": 0, "since": now, "until": now + FORGOTTEN, "cancelled": int(why.cancel)}
        self.put_sides(connection, [{**row._mapping, **back} for row in greens])

    def put_cells(self, connection: Connection, tenant: str, facts: Sequence[AgentFacts]) -> None:
        """See to it that the cells of `facts` are there."""
        cells = {one.cell.cell: cell_columns(tenant, one.cell) for one in facts}
        self._put_cell.run_many(connection, cells.values())


def canonical_of(connection: Connection, tenant: str, digests: Sequence[str]) -> dict[str, bytes]:
    """The canonical forms of revisions that are stored, by digest."""
    c = revision.c
    found = connection.execute(joined(connection, revision, (c.digest, c.tenant), [(d, tenant) for d in digests]))
    return {row.digest: row.canonical for row in found}


def agents_of(connection: Connection, tenant: str, names: Sequence[str]) -> Sequence[Row[Any]]:
    """The rows of agents by name, also of deleted ones."""
    keys = [(tenant, name) for name in names]
    return connection.execute(joined(connection, agent, (agent.c.tenant, agent.c.name), keys)).all()


def sides_of(connection: Connection, tenant: str, names: Sequence[str], *roles: str) -> Sequence[Row[Any]]:
    """The rows of agents' sides that have one of `roles`."""
    keys = [(tenant, name) for name in names]
    query = joined(connection, side, (side.c.tenant, side.c.agent), keys)
    return connection.execute(query.where(side.c.role.in_(roles))).all()


def joined(connection: Connection, table: Table, columns: Sequence[Any], keys: Sequence[Sequence[Any]]) -> Select[Any]:
    """The rows of a table whose `columns` are one of `keys`, found by its index, by one statement for all."""
    sent = rows_of(connection, columns, keys).subquery("wanted")
    return select(table).join_from(sent, table, _all(column == sent.c[column.name] for column in columns))


def _all(conditions: Any) -> Any:
    first, *rest = conditions
    for one in rest:
        first = first & one
    return first


def _side_of(row: Row[Any], why: Why, now: float) -> dict[str, Any]:
    """What was live, as a side."""
    return {
        **{name: getattr(row, name) for name in _FACTS},
        "tenant": row.tenant,
        "agent": row.name,
        "revision": row.revision,
        "role": WITHDRAWN if why.withdraw else KEPT,
        "rollout": why.detail.get("rollout"),
        "weight": 0,
        "since": now,
        "until": now + (FORGOTTEN if why.withdraw else why.keep or 0.0),
        "wanted": None,
        "holding": 0,
        "problem": None,
        "cancelled": int(why.cancel),
    }
