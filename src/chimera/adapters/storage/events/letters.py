"""Dead letters of agents (`AgentLetterStore`)."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.reading import CHUNK
from chimera.adapters.storage.events.rows import note
from chimera.adapters.storage.removing import delete_keys
from chimera.adapters.storage.schema.eventing import agent_letter as table
from chimera.gateway.eventing.ports import AgentLetter

_ENCODER = msgspec.json.Encoder()
_EVENT = msgspec.json.Decoder(dict[str, Any])


class LetterRows:
    """The statement that keeps letters, compiled for a database."""

    def __init__(self, database: Database, *, keep: float) -> None:
        """Keep them for `keep` seconds."""
        self._keep = keep
        self._put = database.prepared_insert(table, database.insert(table).on_conflict_do_nothing())

    def put(self, connection: Connection, letters: Sequence[AgentLetter]) -> None:
        """Keep them, in the caller's transaction."""
        self._put.run_many(connection, [_row(one, self._keep) for one in letters])


class LetterStorage:
    """The letters of one database."""

    def __init__(self, database: Database, *, keep: float) -> None:
        """Keep them for `keep` seconds."""
        self._database = database
        self._rows = LetterRows(database, keep=keep)

    async def put(self, letters: Sequence[AgentLetter]) -> None:
        """See `AgentLetterStore`."""
        await self._database.write(lambda connection: self._rows.put(connection, letters))

    async def page(
        self, tenant: str, agent: str | None, subscription: str | None, after: str, limit: int
    ) -> Sequence[AgentLetter]:
        """See `AgentLetterStore`."""
        query = select(table).where((table.c.tenant == tenant) & (table.c.letter > after))
        if agent is not None:
            query = query.where(table.c.agent == agent)
        if subscription is not None:
            query = query.where(table.c.subscription == subscription)
        query = query.order_by(table.c.letter).limit(limit)
        return await self._database.read(
            lambda connection: [_letter(row) for row in connection.execute(query).mappings()]
        )

    async def some(self, tenant: str, letters: Sequence[str]) -> Sequence[AgentLetter]:
        """See `AgentLetterStore`."""

        def read(connection: Connection) -> list[AgentLetter]:
            found: list[AgentLetter] = []
            for start in range(0, len(letters), CHUNK):
                query = select(table).where(_these(tenant, letters[start : start + CHUNK])).order_by(table.c.letter)
                found += [_letter(row) for row in connection.execute(query).mappings()]
            return found

        return await self._database.read(read)

    async def remove(self, tenant: str, letters: Sequence[str], by: str, *, replayed: bool) -> int:
        """See `AgentLetterStore`."""

        def job(connection: Connection) -> int:
            done = 0
            for start in range(0, len(letters), CHUNK):
                some = _these(tenant, letters[start : start + CHUNK])
                done += connection.execute(delete(table).where(some)).rowcount
            if done:
                what = "dead-letter:replay" if replayed else "dead-letter:drop"
                detail = {"events": done, "first": min(letters), "last": max(letters)}
                note(connection, what, tenant, "dead-letters", self._database.now(connection), by, detail)
            return done

        return await self._database.write(job)


def expire_agent_letters(connection: Connection, now: float, limit: int) -> int:
    """Remove letters whose time is over, `limit` at most; how many rows that were."""
    old = select(table.c.tenant, table.c.letter).where(table.c.expires <= now).order_by(table.c.expires).limit(limit)
    rows = connection.execute(old).all()
    return delete_keys(connection, (table.c.tenant, table.c.letter), rows) if rows else 0


def _these(tenant: str, letters: Sequence[str]) -> Any:
    return (table.c.tenant == tenant) & table.c.letter.in_(letters)


def _row(one: AgentLetter, keep: float) -> dict[str, Any]:
    return {**msgspec.structs.asdict(one), "event": _ENCODER.encode(one.event), "expires": one.died + keep}


def _letter(row: Any) -> AgentLetter:
    return AgentLetter(**{**row, "event": _EVENT.decode(row["event"])})
