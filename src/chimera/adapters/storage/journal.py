"""The journal: facts and entries of the audit log, recorded in the transaction that made them true.

Inside a job, `journal(connection).fact(…)` and `.audit(…)` collect. Right before the commit all that the transaction's
jobs collected is appended under one lock, the row of `journal_head`, which is held until the commit. So places (`seq`)
have no gaps and are in the order of the commits: a reader with a cursor misses nothing, and any number of processes
share one order of facts and one chain of audit entries. Nobody asks for another lock while he holds this one, so it
takes part in no deadlock; it is held for one append and one flush of the disk, whatever the jobs before it took.

A job that fails leaves nothing in the journal.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, select, update

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.schema.journal import audit_entry, event, journal_head
from chimera.events import catalogue
from chimera.events.model import Fact
from chimera.immune.audit.chain import link
from chimera.immune.audit.model import AuditRecord, canonical

_KEY = "chimera-journal"
_HEAD = "journal"


class Journal:
    """What the jobs of one transaction have recorded so far."""

    def __init__(self) -> None:
        """Start empty."""
        self._facts: list[Fact] = []
        self._entries: list[AuditRecord] = []

    def fact(self, fact: Fact) -> None:
        """Record a fact; it is told to subscribers once the transaction is committed.

        Raises `ValueError` for one that is not as the catalogue of facts says.
        """
        catalogue.check(fact)
        self._facts.append(fact)

    def audit(self, record: AuditRecord) -> None:
        """Record an entry of the audit log."""
        self._entries.append(record)

    def mark(self) -> tuple[int, int]:
        """How much there is, for `rewind`."""
        return len(self._facts), len(self._entries)

    def rewind(self, mark: tuple[int, int]) -> None:
        """Forget what was recorded after `mark`."""
        del self._facts[mark[0] :]
        del self._entries[mark[1] :]

    def append(self, connection: Connection, statements: "JournalStatements") -> None:
        """Write everything behind the last place of the journal; the caller commits next."""
        if self._facts or self._entries:
            statements.append(connection, self._facts, self._entries)
        self.rewind((0, 0))


class JournalStatements:
    """The statements of the journal, compiled for a database."""

    def __init__(self, database: Database) -> None:
        """Compile them."""
        head = journal_head.c
        mine = head.name == _HEAD
        self._lock = database.prepared(
            select(head.event_seq, head.audit_seq, head.audit_hash).where(mine).with_for_update()
        )
        self._advance = database.prepared(
            update(journal_head)
            .where(mine)
            .values(event_seq=bindparam("events"), audit_seq=bindparam("entries"), audit_hash=bindparam("last_hash"))
        )
        self._put_event = database.prepared_insert(event)
        self._put_entry = database.prepared_insert(audit_entry)

    def append(self, connection: Connection, facts: list[Fact], entries: list[AuditRecord]) -> None:
        """Give each its place, and each entry its hash."""
        found = self._lock.one(connection)
        assert found is not None, "the migration makes the head"
        events, audited, last = found
        if facts:
            self._put_event.run_many(
                connection, [_event_row(seq, fact) for seq, fact in enumerate(facts, start=events + 1)]
            )
        rows = []
        for seq, given in enumerate(entries, start=audited + 1):
            entry, record = canonical(given)
            last = link(last, seq, record)
            rows.append(
                {
                    "seq": seq,
                    "tenant": entry.tenant,
                    "at": entry.at,
                    "actor": entry.actor,
                    "action": entry.action,
                    "entry": record,
                    "hash": last,
                }
            )
        if rows:
            self._put_entry.run_many(connection, rows)
        self._advance.run(connection, events=events + len(facts), entries=audited + len(entries), last_hash=last)


def journal(connection: Connection) -> Journal:
    """The journal of the transaction that a write job runs in; raises `RuntimeError` anywhere else."""
    found = connection.info.get(_KEY)
    if not isinstance(found, Journal):
        raise RuntimeError("only a job of Database.write has a journal")
    return found


@contextmanager
def recording(connection: Connection) -> Iterator[Journal]:
    """An empty journal for the connection's transaction."""
    made = connection.info[_KEY] = Journal()
    try:
        yield made
    finally:
        connection.info.pop(_KEY, None)


def _event_row(seq: int, fact: Fact) -> dict[str, Any]:
    return {
        "seq": seq,
        "id": fact.id,
        "tenant": fact.tenant,
        "type": fact.type,
        "subject": fact.subject,
        "at": fact.at,
        "data": msgspec.json.encode(fact.data),
        "traceparent": fact.traceparent,
        "causes": None if fact.causes is None else msgspec.json.encode(fact.causes),
    }
