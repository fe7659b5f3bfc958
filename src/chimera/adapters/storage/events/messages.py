"""Messages between agents (`MessageStore`): each stored with its fact and its entry of the audit log."""

from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, select

from chimera.adapters.storage.agent_changes import last_event
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.bus import BusRows
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.removing import delete_keys
from chimera.adapters.storage.schema.eventing import message as table
from chimera.events.model import Fact
from chimera.gateway.eventing.messages import AgentMessage, Said
from chimera.immune.audit.model import AuditRecord
from chimera.kernel.ids import new_id

_ENCODER = msgspec.json.Encoder()
_SAID = msgspec.json.Decoder(Said)


class MessageRows:
    """The statement that keeps messages, compiled for a database."""

    def __init__(self, database: Database, *, keep: float) -> None:
        """Keep them for `keep` seconds."""
        self._keep = keep
        self._bus = BusRows(database)
        self._put = database.prepared_insert(table, database.insert(table).on_conflict_do_nothing())

    def put(self, connection: Connection, made: AgentMessage, by: str, now: float) -> bool:
        """Keep it and tell of it, in the caller's transaction; False where it was sent before."""
        row = {
            "tenant": made.tenant,
            "message": made.message,
            "sender": made.sender,
            "receiver": made.receiver,
            "content": _ENCODER.encode(made.said),
            "created": made.created,
            "expires": now + self._keep,
            "subject": made.subject,
        }
        if self._put.run(connection, **row) != 1:
            return False
        # Who gets it may be the tenant's first agent that takes any, and not be live yet.
        self._bus.open(connection, made.tenant, last_event(connection), now)
        resource = f"agents/{made.receiver}/messages/{made.message}"
        data: dict[str, Any] = {"message": made.message, "sender": made.sender, "receiver": made.receiver, "by": by}
        if made.said.reply is not None:
            data["reply"] = True
        if made.said.answers is not None:
            data["answers"] = made.said.answers
        record = journal(connection)
        record.fact(
            Fact(
                id=new_id("evt"),
                type="message.sent",
                tenant=made.tenant,
                subject=resource,
                at=now,
                data=data,
                causes=made.said.causes(),
            )
        )
        record.audit(
            AuditRecord(
                at=now,
                tenant=made.tenant,
                actor=by,
                action="agent:message",
                resource=resource,
                decision="allow",
                outcome="sent",
                call=made.call,
                detail={"sender": made.sender, "answers": made.said.answers or ""},
            )
        )
        return True


class MessageStorage:
    """The messages of one database."""

    def __init__(self, database: Database, *, keep: float) -> None:
        """Keep them for `keep` seconds."""
        self._database = database
        self._rows = MessageRows(database, keep=keep)
        mine = (table.c.tenant == bindparam("the_tenant")) & (table.c.message == bindparam("the_message"))
        self._get = database.prepared(select(table).where(mine))

    async def send(self, message: AgentMessage, by: str) -> bool:
        """See `MessageStore`."""
        return await self._database.write(
            lambda connection: self._rows.put(connection, message, by, self._database.now(connection))
        )

    async def get(self, tenant: str, message: str) -> AgentMessage | None:
        """See `MessageStore`."""
        values = {"the_tenant": tenant, "the_message": message}
        row = await self._database.read(lambda connection: self._get.one(connection, **values), quick=True)
        if row is None:
            return None
        named = dict(zip(table.c.keys(), row, strict=True))
        return AgentMessage(
            tenant=tenant,
            message=message,
            sender=named["sender"],
            receiver=named["receiver"],
            said=_SAID.decode(named["content"]),
            created=named["created"],
            subject=named["subject"],
        )


def erase_messages(connection: Connection, tenant: str, subject: str) -> None:
    """Remove all messages of conversations that were for a person."""
    connection.execute(delete(table).where((table.c.tenant == tenant) & (table.c.subject == subject)))


def expire_messages(connection: Connection, now: float, limit: int) -> int:
    """Remove messages whose time is over, `limit` at most; how many rows that were."""
    old = select(table.c.tenant, table.c.message).where(table.c.expires <= now).order_by(table.c.expires).limit(limit)
    rows = connection.execute(old).all()
    return delete_keys(connection, (table.c.tenant, table.c.message), rows) if rows else 0
