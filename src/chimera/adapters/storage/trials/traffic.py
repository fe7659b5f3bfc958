"""Earlier traffic in the database: what sessions and tasks hold anyway, read for a replay (`Traffic`).

What is looked at of an agent is bounded, however much it has: `TASKS` newest tasks, found by an index, and of its
sessions a few stretches that begin at places spread over their names, since no index has their times, and one more
would cost every save of every session. Names and sizes are read first, contents of those alone that are drawn.

One agent costs five short queries; agents are read in batches, so that a large change doesn't hold a reader for long.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select

from chimera.adapters.storage.changes.policies import read_policy_row
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.schema.state import session
from chimera.adapters.storage.schema.tasks import task
from chimera.delivery.policy import ReplayPolicy
from chimera.delivery.staging.ports import Wanted
from chimera.delivery.staging.sampling import Earlier, between, draw, size_of, turns_of
from chimera.gateway.tasks.model import TaskRequest
from chimera.immune.audit.model import AuditRecord
from chimera.kernel.clock import Clock
from chimera_host.contract.call import SessionState

TASKS = 200
"""Newest tasks of an agent that are looked at."""
STRETCHES, STRETCH = 4, 16
"""Stretches of an agent's sessions that are looked at, and how many each has."""
SPARE = 2
"""Sessions and tasks that are read for each input that is wanted: some hold none, or the same."""
BATCH = 25
"""Agents that are read by one look at the database."""
AROUND = 8_192
"""Bytes of a task's request beside what was said."""
ANSWERED = 8
"""A conversation is read where it has at most so many times the bytes of what may be replayed of it."""
BY = "system:staging"

_STATE = msgspec.json.Decoder(SessionState)
_REQUEST = msgspec.json.Decoder(TaskRequest)


class StoredTraffic:
    """The port `Traffic`, on one database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Read `database`."""
        self._database = database
        self._clock = clock

    async def allowed(self, tenant: str) -> ReplayPolicy:
        """See `Traffic`."""
        stored = await self._database.read(lambda connection: read_policy_row(connection, tenant))
        return stored.policy.replay

    async def earlier(self, tenant: str, agents: Sequence[str], wanted: Wanted) -> Mapping[str, Sequence[Earlier]]:
        """See `Traffic`."""
        found: dict[str, Sequence[Earlier]] = {}
        for first in range(0, len(agents), BATCH):
            some = agents[first : first + BATCH]
            found |= await self._database.read(partial(_of_agents, tenant=tenant, agents=some, wanted=wanted))
        return found

    async def is_kept(self, tenant: str, one: Earlier) -> bool:
        """See `Traffic`."""
        return await self._database.read(lambda connection: _is_kept(connection, tenant, one))

    async def told(self, tenant: str, change: str, counts: Mapping[str, int]) -> None:
        """See `Traffic`."""
        entry = AuditRecord(
            at=self._clock.wall(),
            tenant=tenant,
            actor=BY,
            action="change:replay",
            resource=f"changes/{change}",
            outcome="done",
            detail=dict(counts),
        )
        await self._database.write(lambda connection: journal(connection).audit(entry))


def _of_agents(
    connection: Connection, *, tenant: str, agents: Sequence[str], wanted: Wanted
) -> dict[str, Sequence[Earlier]]:
    found: dict[str, Sequence[Earlier]] = {}
    for agent in agents:
        some = [*_of_tasks(connection, tenant, agent, wanted), *_of_sessions(connection, tenant, agent, wanted)]
        found[agent] = draw(some, wanted.want, wanted.seed)
    return found


# -- tasks -----------------------------------------------------------------------------------------------------------


def _of_tasks(connection: Connection, tenant: str, agent: str, wanted: Wanted) -> list[Earlier]:
    """What tasks without a session asked; of those in one, the session has the conversation."""
    c = task.c
    its = (c.tenant == tenant) & (c.agent == agent)
    columns = (c.task, c.state, c.session, c.subject, c.expires, func.length(c.request).label("size"))
    rows = connection.execute(select(*columns).where(its).order_by(c.task.desc()).limit(TASKS)).all()
    names = [
        row.task
        for row in rows
        if row.state in ("succeeded", "failed")
        and row.session is None
        and row.size <= 2 * wanted.most_bytes + AROUND
        and _may(row, wanted)
    ]
    chosen = _chosen(names, wanted)
    query = select(c.task, c.subject, c.request).where((c.tenant == tenant) & c.task.in_(chosen))
    found = []
    for row in connection.execute(query):
        messages = _REQUEST.decode(row.request).messages
        if messages and size_of(messages) <= wanted.most_bytes:
            found.append(Earlier(agent=agent, kind="task", name=row.task, messages=messages, subject=row.subject))
    return found


# -- sessions --------------------------------------------------------------------------------------------------------


def _of_sessions(connection: Connection, tenant: str, agent: str, wanted: Wanted) -> list[Earlier]:
    c = session.c
    its = (c.tenant == tenant) & (c.agent == agent)
    ends = connection.execute(select(func.min(c.session), func.max(c.session)).where(its)).one()
    if ends[0] is None:
        return []
    names: dict[str, None] = {}
    for number in range(STRETCHES):
        place: str = ends[0]  # the first stretch begins with the first name, so of few sessions none is overlooked
        if number:
            place = between(ends[0], ends[1], (number + _chance(wanted.seed, agent)) / STRETCHES)
        columns = (c.session, c.subject, c.expires, c.bytes)
        query = select(*columns).where(its & (c.session >= place)).order_by(c.session).limit(STRETCH)
        for row in connection.execute(query):
            if _may(row, wanted) and row.bytes <= ANSWERED * wanted.most_bytes:
                names[row.session] = None
    chosen = _chosen(list(names), wanted)
    found: list[Earlier] = []
    for name, subject, state in connection.execute(
        select(c.session, c.subject, c.state).where(its & c.session.in_(chosen))
    ):
        found += turns_of(agent, name, _STATE.decode(state).messages, subject, wanted.most_bytes)
    return found


def _may(row: Any, wanted: Wanted) -> bool:
    """Whether a row may be copied: it isn't a person's where those stay out, and doesn't end before its copy."""
    return (row.subject is None or wanted.people) and (row.expires is None or row.expires > wanted.kept_until)


def _chosen(names: Sequence[str], wanted: Wanted) -> list[str]:
    return sorted(names, key=lambda name: _digest(wanted.seed, name))[: SPARE * wanted.want]


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()


def _chance(*parts: str) -> float:
    """A number from 0 to below 1 that `parts` decide."""
    return int.from_bytes(_digest(*parts)[:4], "big") / 2**32


def _is_kept(connection: Connection, tenant: str, one: Earlier) -> bool:
    if one.kind == "task":
        its = (task.c.tenant == tenant) & (task.c.task == one.name)
        return connection.execute(select(task.c.task).where(its)).first() is not None
    its = (session.c.tenant == tenant) & (session.c.agent == one.agent) & (session.c.session == one.name)
    state = connection.execute(select(session.c.state).where(its)).scalar()
    return state is not None and _STATE.decode(state).messages[: one.place + 1] == one.messages
