"""What became of rollbacks, by the keys that they were asked for with.

It is written in the rollback's own transaction, so one is there if and only if the other was done.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.removing import delete_first
from chimera.adapters.storage.schema.sides import taken_back
from chimera.agents.api import BackAgent
from chimera_host.contract.problem import Problem, ProblemError, RemoteProblem

KEPT = 86_400.0
"""Seconds for which a key gives its rollback's answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What became of a rollback: agents taken back, those that stood so already, and by agent what was wrong."""

    agents: tuple[BackAgent, ...]
    stood: tuple[BackAgent, ...]
    refused: Mapping[str, ProblemError]
    sequence: int


class _Kept(Struct, frozen=True, kw_only=True):
    agents: tuple[BackAgent, ...]
    stood: tuple[BackAgent, ...]
    refused: dict[str, Problem]
    sequence: int


_KEPT = msgspec.json.Decoder(_Kept)


class TakenBack:
    """The statements, compiled once for a database."""

    def __init__(self, database: Database) -> None:
        """Compile them."""
        self._put = database.prepared_insert(taken_back)

    def find(self, connection: Connection, tenant: str, key: str) -> Done | None:
        """What became of the rollback of a key, if there was one."""
        its = (taken_back.c.tenant == tenant) & (taken_back.c.key == key)
        data = connection.execute(select(taken_back.c.done).where(its)).scalar()
        if data is None:
            return None
        kept = _KEPT.decode(data)
        refused = {agent: RemoteProblem(problem) for agent, problem in kept.refused.items()}
        return Done(agents=kept.agents, stood=kept.stood, refused=refused, sequence=kept.sequence)

    def keep(self, connection: Connection, tenant: str, key: str, done: Done, now: float) -> None:
        """Keep what became of one."""
        refused = {agent: error.problem() for agent, error in done.refused.items()}
        kept = _Kept(agents=done.agents, stood=done.stood, refused=refused, sequence=done.sequence)
        self._put.run(connection, tenant=tenant, key=key, done=msgspec.json.encode(kept), expires=now + KEPT)


def expire_taken_back(connection: Connection, now: float, limit: int) -> int:
    """Remove those whose time is over, `limit` at most; how many."""
    ends = taken_back.c.expires
    return delete_first(connection, taken_back, ends <= now, ends, limit)
