"""From an event to the tasks that it starts: the one place where an event becomes work, whoever brought it.

    event -> whom it starts (the index) -> one task each, named after event, agent and subscription -> the queue

A task's key is made of the event's `source` and `id`, the agent and its subscription. So an event that comes twice,
over whatever bus and to whichever gateway, starts each agent once for as long as the task is kept (`tasks.result_ttl`).
All tasks of an event are committed before the bus hears that it is delivered; one killed in between does it again.

A task begins as any other: authorised then, as the agent itself (or the owner of its code); tried again; its failure
for good makes the event a dead letter of the agent, in the transaction that ends the task. Events that agents caused
carry how many agents events have started so far (`chimerahops`), and end at a bound: so a circle of agents ends.
"""

import hashlib
import logging
from collections.abc import Sequence

import msgspec

from chimera.agents.subscriptions import MESSAGES
from chimera.events.inputs import DEFAULT, at, filled
from chimera.events.settings import EventSettings
from chimera.gateway.eventing.errors import EventLoop
from chimera.gateway.eventing.happening import Happening
from chimera.gateway.eventing.index import AgentIndex, Receiver
from chimera.gateway.eventing.messages import SENT_TYPE
from chimera.gateway.eventing.ports import AgentLetter, AgentLetterStore, MessageStore, TaskIntake
from chimera.gateway.identity.principal import Principal
from chimera.gateway.policy.authorise import agent_principal
from chimera.gateway.routes import RouteTable
from chimera.gateway.tasks.model import StartedBy, Submission, TaskRequest
from chimera.gateway.tasks.settings import TaskSettings
from chimera.kernel.clock import Clock
from chimera.kernel.ids import new_id
from chimera_host.contract.call import Message

log = logging.getLogger(__name__)

MESSAGE_LIFE = 86_400.0
"""Seconds in which a message must have been dealt with."""
TOO_LARGE = "payload-too-large"
_ENCODER = msgspec.json.Encoder()


class Dispatcher:
    """Starts agents for events."""

    def __init__(
        self,
        routes: RouteTable,
        index: AgentIndex,
        tasks: TaskIntake,
        letters: AgentLetterStore,
        messages: MessageStore,
        clock: Clock,
        *,
        events: EventSettings,
        limits: TaskSettings,
    ) -> None:
        """Ask `index`, which follows `routes`, and put tasks into `tasks`."""
        self._routes = routes
        self._index = index
        self._tasks = tasks
        self._letters = letters
        self._messages = messages
        self._clock = clock
        self._events = events
        self._limits = limits

    async def refresh(self) -> None:
        """Know every agent that was applied by now."""
        await self._routes.fresh()

    def wants(self, event: Happening) -> bool:
        """Whether the event starts anybody."""
        return event.type == SENT_TYPE or self._index.wanted(event)

    async def dispatch(self, event: Happening) -> int:
        """Start whom the event starts; how many that are. All is committed when it returns.

        Raises what is in the way for now (`TooManyTasks`, a database that is away): then it is to come again.
        """
        started = await self._hand_over(event) if event.type == SENT_TYPE else 0
        return started + await self._start(event, self._index.receivers(event))

    async def again(self, letter: AgentLetter, event: Happening) -> int:
        """Start the agent of a dead letter anew; 0 where its subscription is not there any more."""
        if not letter.agent:  # it reached nobody: whoever had it before is not started again
            return max(1, await self.dispatch(event))
        if letter.subscription == MESSAGES:
            return await self._hand_over(event, replays=letter.replays + 1)
        receiver = self._index.named(letter.tenant, letter.agent, letter.subscription)
        if receiver is None:
            return 0
        return await self._start(event, [receiver], replays=letter.replays + 1)

    async def _hand_over(self, event: Happening, *, replays: int = 0) -> int:
        """Start the agent that was sent the message; 0 where the message was erased, or its time is over."""
        named = at(event.data, "message")
        message = await self._messages.get(event.tenant, named) if isinstance(named, str) else None
        if message is None:
            log.warning("a message that an event tells of is not there any more", extra={"what": str(named)[:40]})
            return 0
        said = message.said
        key = key_of(event, message.receiver, MESSAGES, replays)
        # A reply was asked for: it comes to the asker as its own doing.
        acting = message.receiver if said.answers is not None else message.sender
        principal = await self._principal(event.tenant, acting)
        request = _ENCODER.encode(
            TaskRequest(
                messages=(Message(role="user", content=message.told()),),
                principal=_ENCODER.encode(principal),
                traceparent=event.attributes.get("traceparent"),
                event=event.structured(),
            )
        )
        made = Submission(
            tenant=event.tenant,
            task=new_id("task"),
            agent=message.receiver,
            request=request,
            digest=key,
            deadline=self._clock.wall() + MESSAGE_LIFE,
            max_attempts=self._limits.attempts,
            key=key,
            session=said.session,
            subject=message.subject,
            actor=principal.actor,
            origin=StartedBy(
                subscription=MESSAGES,
                source=event.source,
                event=event.id,
                hops=said.hops + 1,
                replays=replays,
                sender=message.sender,
                reply=said.reply,
            ),
        )
        await self._tasks.take(event.tenant, [made])
        return 1

    async def _principal(self, tenant: str, agent: str) -> Principal:
        """The agent as one that asks; also where it is not live any more, so that its task says so."""
        route = self._routes.known(tenant, agent)
        if route is None:
            return Principal(kind="agent", subject=agent, tenant=tenant, roles=frozenset({"agent"}))
        return agent_principal(route, await self._routes.cell(route.cell))

    async def _start(self, event: Happening, receivers: Sequence[Receiver], *, replays: int = 0) -> int:
        made: list[Submission] = []
        dead: list[AgentLetter] = []
        # Of one event the ids are in the order of its receivers, as those of a batch are.
        ids = sorted(new_id("task") for _ in receivers)
        for receiver, task in zip(receivers, ids, strict=True):
            one = await self._task(event, receiver, task, replays)
            if isinstance(one, Submission):
                made.append(one)
            else:
                dead.append(self._dead(event, receiver, one, replays))
        if dead:
            await self._letters.put(dead)
        most = self._limits.batch
        for start in range(0, len(made), most):
            await self._tasks.take(event.tenant, made[start : start + most])
        return len(made)

    async def _task(self, event: Happening, receiver: Receiver, task: str, replays: int) -> Submission | str:
        """The task, or why there is none."""
        hops = event.hops + 1
        if hops > self._events.hops:
            return f"{EventLoop.code}: events have started {event.hops} agents, one by the other (events.hops)"
        route, taken = receiver.route, receiver.taken
        principal = agent_principal(route, await self._routes.cell(route.cell))
        said = filled(taken.input or DEFAULT, event.attributes, event.data)
        request = _ENCODER.encode(
            TaskRequest(
                messages=(Message(role="user", content=said),),
                principal=_ENCODER.encode(principal),
                traceparent=event.attributes.get("traceparent"),
                event=event.structured(),
            )
        )
        if len(request) > self._limits.request_bytes:
            return f"{TOO_LARGE}: the event makes a request of {len(request)} bytes (tasks.request_bytes)"
        key = key_of(event, route.agent, taken.name, replays)
        return Submission(
            tenant=event.tenant,
            task=task,
            agent=route.agent,
            request=request,
            digest=key,
            deadline=self._clock.wall() + taken.expires,
            priority=taken.priority,
            max_attempts=taken.attempts or self._limits.attempts,
            key=key,
            session=_session(event, receiver),
            actor=principal.actor,
            origin=StartedBy(subscription=taken.name, source=event.source, event=event.id, hops=hops, replays=replays),
        )

    def _dead(self, event: Happening, receiver: Receiver, reason: str, replays: int) -> AgentLetter:
        key = key_of(event, receiver.route.agent, receiver.taken.name, replays)
        return AgentLetter(
            tenant=event.tenant,
            letter=f"dl_{key.hex()[:32]}",
            agent=receiver.route.agent,
            subscription=receiver.taken.name,
            event=event.structured(),
            reason=reason,
            died=self._clock.wall(),
            replays=replays,
        )


def key_of(event: Happening, agent: str, subscription: str, replays: int) -> bytes:
    """What names the task of an event for an agent: whoever makes it twice makes it once."""
    parts = (event.source, event.id, agent, subscription, *([str(replays)] if replays else []))
    return hashlib.sha256(b"event\0" + "\0".join(parts).encode()).digest()


def _session(event: Happening, receiver: Receiver) -> str | None:
    match receiver.taken.session:
        case "event":
            return None
        case "subject":
            digest = hashlib.sha256(f"{event.source}\0{event.subject}".encode()).hexdigest()
            return f"events.{receiver.taken.name}.{digest[:24]}"
        case "subscription":
            return f"events.{receiver.taken.name}"
