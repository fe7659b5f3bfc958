"""Stored answers in the database (`AnswerStore`): a row for each key and request of a run."""

from sqlalchemy import Connection, bindparam, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.removing import delete_first
from chimera.adapters.storage.schema.state import stored_answer
from chimera.adapters.storage.state.runs import RunStorage
from chimera.gateway.state.model import StoredRun


class AnswerStorage:
    """The store of answers on one database."""

    def __init__(self, database: Database, runs: RunStorage) -> None:
        """Compile the statements for `database`; `runs` says whether a run is still worked on."""
        self._database = database
        self._runs = runs
        columns = stored_answer.c
        self._find = database.prepared(
            select(columns.answer).where(
                (columns.tenant == bindparam("the_tenant"))
                & (columns.run == bindparam("the_run"))
                & (columns.key == bindparam("the_key"))
                & (columns.digest == bindparam("the_digest"))
                & (columns.expires > bindparam("now"))
            )
        )
        self._keep = database.prepared_insert(
            stored_answer, database.upsert(stored_answer, ["tenant", "run", "key", "digest"])
        )

    async def find(self, tenant: str, run: str, key: str, digest: bytes, now: float) -> bytes | None:
        """See `AnswerStore`."""
        return await self._database.read(
            lambda connection: self.find_in(connection, tenant, run, key, digest, now), quick=True
        )

    async def keep(self, run: StoredRun, key: str, digest: bytes, answer: bytes, *, now: float, life: float) -> None:
        """See `AnswerStore`."""

        def job(connection: Connection) -> None:
            self._runs.working_in(connection, run, life)
            self.keep_in(connection, run, key, digest, answer, now, life)

        await self._database.write(job)

    def find_in(
        self, connection: Connection, tenant: str, run: str, key: str, digest: bytes, now: float
    ) -> bytes | None:
        """The stored answer."""
        row = self._find.one(connection, the_tenant=tenant, the_run=run, the_key=key, the_digest=digest, now=now)
        return None if row is None else bytes(row[0])

    def keep_in(
        self, connection: Connection, run: StoredRun, key: str, digest: bytes, answer: bytes, now: float, life: float
    ) -> None:
        """Store an answer."""
        self._keep.run(
            connection,
            tenant=run.tenant,
            run=run.run,
            key=key,
            digest=digest,
            answer=answer,
            created=now,
            expires=now + life,
        )


def expire_answers(connection: Connection, now: float, limit: int) -> int:
    """Remove answers that ended before `now`, `limit` at most; how many that were."""
    ended = stored_answer.c.expires
    return delete_first(connection, stored_answer, ended <= now, ended, limit)
