"""What events that start agents need: the queue of tasks, and a place for what no agent took."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from chimera.gateway.tasks.model import Submission
from chimera.gateway.tasks.ports import Accepted

if TYPE_CHECKING:
    from chimera.gateway.eventing.messages import AgentMessage


BROKER = "broker"
"""What stands for a subscription where a broker gave an event up before it reached any agent."""


class AgentLetter(Struct, frozen=True, kw_only=True):
    """A dead letter of an agent: an event that its subscription wanted and the agent did not take, with why.

    `agent` is empty where the event reached no agent at all: a broker gave it up on the way. `task` is the task that
    ended badly, where there was one. `event` is the CloudEvent.
    """

    tenant: str
    letter: str
    agent: str
    subscription: str
    event: dict[str, Any]
    reason: str
    died: float
    expires: float = 0.0
    task: str | None = None
    attempts: int = 0
    replays: int = 0
    first: float | None = None


class MessageStore(Protocol):
    """Messages between agents, each stored with its fact and its entry of the audit log."""

    async def send(self, message: "AgentMessage", by: str) -> bool:
        """Store one, durably; False where it was sent before."""

    async def get(self, tenant: str, message: str) -> "AgentMessage | None":
        """One by its id; None where it is erased, or its time is over."""


class TaskIntake(Protocol):
    """Accepts the tasks that events start."""

    async def take(self, tenant: str, made: Sequence[Submission]) -> Sequence[Accepted]:
        """All of them, each once by its key; durable when it returns. Raises what is in the way for now."""


class AgentLetterStore(Protocol):
    """Dead letters of agents. What a person does to them is in the audit log, named in `by`."""

    async def put(self, letters: Sequence[AgentLetter]) -> None:
        """Keep new ones; one that is there already stays as it is."""

    async def page(
        self, tenant: str, agent: str | None, subscription: str | None, after: str, limit: int
    ) -> Sequence[AgentLetter]:
        """Oldest first: of a tenant, an agent, or one of its subscriptions."""

    async def some(self, tenant: str, letters: Sequence[str]) -> Sequence[AgentLetter]:
        """Those of these ids that are there."""

    async def remove(self, tenant: str, letters: Sequence[str], by: str, *, replayed: bool) -> int:
        """Remove these, since they were replayed or are dropped; how many there were."""
