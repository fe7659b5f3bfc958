"""What else is written where a task that an event started ends, in the transaction that ends it.

A task that ended badly leaves its event as a dead letter. A message that wants a reply gets one however its task ends.
"""

import msgspec
from sqlalchemy import Connection, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.letters import LetterRows
from chimera.adapters.storage.events.messages import MessageRows
from chimera.adapters.storage.schema.tasks import task as table
from chimera.events.settings import EventSettings
from chimera.gateway.api import InvokeAnswer
from chimera.gateway.eventing.messages import reply_of
from chimera.gateway.eventing.ports import AgentLetter
from chimera.gateway.tasks.model import StartedBy, Task, TaskRequest
from chimera.kernel.ids import new_id

_RESULT = msgspec.json.Decoder(InvokeAnswer)
_REQUEST = msgspec.json.Decoder(TaskRequest)


class EndedTasks:
    """The ends of tasks that events started."""

    def __init__(self, database: Database, *, letter_keep: float, most: int = EventSettings().message_bytes) -> None:
        """Keep dead letters and replies for `letter_keep` seconds; a reply has `most` bytes."""
        self._most = most
        self._letters = LetterRows(database, keep=letter_keep)
        self._messages = MessageRows(database, keep=letter_keep)

    def told(self, connection: Connection, made: Task, now: float, result: bytes | None = None) -> None:
        """The task has changed to `made`, with this result where it has one."""
        origin = made.origin
        if origin is None or not made.is_finished:
            return
        if made.state in ("failed", "expired"):
            self._letters.put(connection, [_letter(connection, made, origin, now)])
        if origin.reply is not None:
            failed = made.state != "succeeded"
            text = _why(made) if failed or result is None else _RESULT.decode(result).output
            answer = reply_of(
                origin.reply,
                tenant=made.tenant,
                sender=made.agent,
                task=made.task,
                hops=origin.hops,
                text=cut(text, self._most),
                failed=failed,
                now=now,
            )
            self._messages.put(connection, answer, f"agent:{made.agent}", now)


def _letter(connection: Connection, made: Task, origin: StartedBy, now: float) -> AgentLetter:
    mine = (table.c.tenant == made.tenant) & (table.c.task == made.task)
    request = _REQUEST.decode(connection.execute(select(table.c.request).where(mine)).scalar_one())
    return AgentLetter(
        tenant=made.tenant,
        letter=new_id("dl"),
        agent=made.agent,
        subscription=origin.subscription,
        event=request.event or {},
        reason=_why(made),
        died=now,
        task=made.task,
        attempts=made.attempts,
        replays=origin.replays,
        first=made.started,
    )


def _why(made: Task) -> str:
    if made.state == "cancelled":
        return "it was cancelled"
    problem = made.problem
    return "its deadline has passed" if problem is None else f"{problem.code}: {problem.title}"


def cut(text: str, most: int) -> str:
    """The text, or its beginning in `most` bytes."""
    data = text.encode()
    return text if len(data) <= most else data[:most].decode(errors="ignore")
