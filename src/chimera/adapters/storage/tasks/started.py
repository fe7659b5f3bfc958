"""What else is written where a task that an event started ends, in the transaction that ends it."""

import msgspec
from sqlalchemy import Connection, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.letters import LetterRows
from chimera.adapters.storage.schema.tasks import task as table
from chimera.gateway.eventing.ports import AgentLetter
from chimera.gateway.tasks.model import StartedBy, Task, TaskRequest
from chimera.kernel.ids import new_id

_REQUEST = msgspec.json.Decoder(TaskRequest)


class EndedTasks:
    """The ends of tasks that events started."""

    def __init__(self, database: Database, *, letter_keep: float) -> None:
        """Keep dead letters for `letter_keep` seconds."""
        self._letters = LetterRows(database, keep=letter_keep)

    def told(self, connection: Connection, made: Task, now: float, result: bytes | None = None) -> None:
        """The task has changed to `made`; where it has ended badly, its event is a dead letter of the agent."""
        if made.origin is None or made.state not in ("failed", "expired"):
            return
        self._letters.put(connection, [_letter(connection, made, made.origin, now)])


def _letter(connection: Connection, made: Task, origin: StartedBy, now: float) -> AgentLetter:
    mine = (table.c.tenant == made.tenant) & (table.c.task == made.task)
    request = _REQUEST.decode(connection.execute(select(table.c.request).where(mine)).scalar_one())
    problem = made.problem
    reason = "its deadline has passed" if problem is None else f"{problem.code}: {problem.title}"
    return AgentLetter(
        tenant=made.tenant,
        letter=new_id("dl"),
        agent=made.agent,
        subscription=origin.subscription,
        event=request.event or {},
        reason=reason,
        died=now,
        task=made.task,
        attempts=made.attempts,
        replays=origin.replays,
        first=made.started,
    )
