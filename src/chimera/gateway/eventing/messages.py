"""Messages between agents: one tells another something, isn't kept waiting, and hears the reply as it hears events.

    the sender's tool -> message and fact in one transaction -> the bus -> a task of the receiver
    the receiver's task ends -> its reply and fact, in that transaction -> the bus -> a task of the sender, its session

What was said is kept beside the journal: the event names the message and holds nothing of it, so no reader of events
and no broker sees it. A message of a run's step is sent once, however often the step is done. A reply is there once,
since a task ends once. Both say which conversation they belong to (`correlationid`), which message they answer
(`causationid`) and who hears the reply (`replyto`).

A message is authorised as a call of the receiver by the sender, when it is sent and when its task begins. A reply was
asked for: it comes to the asker as its own doing. Both count as agents that events have started, so that two that thank
each other end.
"""

import hashlib

from msgspec import Struct

from chimera.events.cloudevents import TYPE_PREFIX
from chimera.events.model import Causes
from chimera.events.settings import EventSettings
from chimera.gateway.calls import CallTable, InFlightCall
from chimera.gateway.errors import PayloadTooLarge
from chimera.gateway.eventing.errors import EventLoop
from chimera.gateway.eventing.ports import MessageStore
from chimera.gateway.routes import RouteTable, check_offered
from chimera.gateway.tasks.model import Reply
from chimera.kernel.clock import Clock
from chimera.kernel.ids import new_id

SENT_TYPE = TYPE_PREFIX + "message.sent"
MOST_ASKED = 2_000
"""Characters of a question that stand before its reply."""


class Said(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message as it is kept.

    `session` is the receiver's session that it comes into, `reply` who hears the answer. `answers` is the message that
    it answers, of which `asked` is the beginning; `failed` says that there is no answer, and `text` why. `hops` is how
    many agents events have started down to whoever sent it.
    """

    text: str
    session: str
    correlation: str
    hops: int = 0
    reply: Reply | None = None
    answers: str | None = None
    asked: str | None = None
    failed: bool = False

    def causes(self) -> Causes:
        """What the event that tells of it says of where it comes from."""
        return Causes(
            hops=self.hops,
            correlation=self.correlation,
            causation=self.answers,
            reply_to=None if self.reply is None else self.reply.agent,
        )


class AgentMessage(Struct, frozen=True, kw_only=True):
    """One message. `subject` is the person whom the conversation is for."""

    tenant: str
    message: str
    sender: str
    receiver: str
    said: Said
    created: float
    subject: str | None = None
    call: str = ""

    def told(self) -> str:
        """What the receiver is told."""
        said = self.said
        if said.answers is None:
            return f"A message from agent {self.sender}:\n{said.text}"
        what = "gives no answer to" if said.failed else "answers"
        return f"Agent {self.sender} {what} your message {(said.asked or '')!r}:\n{said.text}"


class Messages:
    """The messages that agents in calls send."""

    def __init__(
        self, store: MessageStore, routes: RouteTable, calls: CallTable, clock: Clock, *, settings: EventSettings
    ) -> None:
        """Keep messages in `store`; each counts among the calls that its sender's call leads to, in `calls`."""
        self._store = store
        self._routes = routes
        self._calls = calls
        self._clock = clock
        self._settings = settings

    async def send(
        self, call: InFlightCall, receiver: str, text: str, *, reply: bool, key: str | None, actor: str
    ) -> str:
        """Send what the call's agent says, which was authorised as `actor`; the message's id, once it is durable.

        With a `key` of the call's run it is sent once. Raises `EventLoop`, `CallLoop`, `PayloadTooLarge`, or why the
        receiver takes no messages.
        """
        route = call.route
        check_offered(self._routes.find(route.tenant, receiver), "message")
        size, most = len(text.encode()), self._settings.message_bytes
        if size > most:
            raise PayloadTooLarge(
                f"a message has at most {most} bytes, not {size}",
                next_step="say less, or share it in a space; or raise the setting events.message_bytes",
                agent=route.agent,
            )
        if call.hops + 1 > self._settings.hops:
            raise EventLoop(
                f"events have started {call.hops} agents, one by the other, down to {route.agent}",
                next_step="end the circle in what the agents tell each other, or raise the setting events.hops",
                agent=route.agent,
            )
        self._calls.descend(call)
        run = None if call.opened is None else call.opened.run
        name = new_id("msg") if key is None or run is None else _name("step", run.tenant, run.run, key)
        conversation = f"messages.{name}"
        session = conversation if run is None or run.session is None else run.session
        subject = None if run is None else run.subject
        back = Reply(
            agent=route.agent, message=name, correlation=name, session=session, subject=subject, asked=text[:MOST_ASKED]
        )
        said = Said(text=text, session=conversation, correlation=name, hops=call.hops, reply=back if reply else None)
        made = AgentMessage(
            tenant=route.tenant,
            message=name,
            sender=route.agent,
            receiver=receiver,
            said=said,
            created=self._clock.wall(),
            subject=subject,
            call=call.call,
        )
        await self._store.send(made, actor)
        return name


def reply_of(
    reply: Reply, *, tenant: str, sender: str, task: str, hops: int, text: str, failed: bool, now: float
) -> AgentMessage:
    """The answer of `sender`'s `task`, or why there is none, to the agent that asked."""
    said = Said(
        text=text,
        session=reply.session,
        correlation=reply.correlation,
        hops=hops,
        answers=reply.message,
        asked=reply.asked,
        failed=failed,
    )
    return AgentMessage(
        tenant=tenant,
        message=_name("reply", tenant, task, reply.message),
        sender=sender,
        receiver=reply.agent,
        said=said,
        created=now,
        subject=reply.subject,
    )


def _name(*parts: str) -> str:
    """An id that the same parts always give."""
    return f"msg_{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}"
