"""Agents as tools: another agent of the tenant, called through the platform with one text, or sent one as a message.

The platform decides whether this agent may call that one, meters the call and breaks circles; here it is a tool like
any other, with its deadline and its bound on the answer. In a run it goes with the tool's idempotency key, so that the
other agent's work is a run too, which is gone on with when it is asked for again.
"""

import asyncio
import time
from typing import Any, Protocol

from chimera_host.broker.arguments import ArgumentCheck
from chimera_host.contract.problem import ProblemError, RemoteProblem
from chimera_host.contract.tools import AgentTool, MessageTool
from chimera_host.errors import CallCancelled, ToolFailed, ToolRefused
from chimera_host.ports import CallContext, ToolSpec

IN_PROGRESS = "run-in-progress"
LONGEST_PAUSE = 1.0
_REFUSALS = frozenset({401, 403, 404})


class AgentCaller(Protocol):
    """The part of the platform's client that is needed here."""

    async def agent_invoke(
        self, call_id: str, agent: str, message: str, deadline: float, key: str | None = None
    ) -> str:
        """Another agent's answer."""

    async def agent_message(
        self, call_id: str, agent: str, message: str, reply: bool, deadline: float, key: str | None = None
    ) -> str:
        """The id of a message that was sent to another agent."""


class BoundAgent:
    """An agent tool of a loaded agent."""

    kind = "agent"

    def __init__(self, tool: AgentTool, platform: AgentCaller) -> None:
        """Call `tool`'s agent through `platform`."""
        parameters = {
            "type": "object",
            "properties": {"message": {"type": "string", "minLength": 1, "description": "What to say to the agent."}},
            "required": ["message"],
            "additionalProperties": False,
        }
        self.limits = tool.limits
        self.arguments = ArgumentCheck(tool.name, parameters)
        self.spec = ToolSpec(
            name=tool.name,
            description=tool.description or f"Ask the agent {tool.agent} and get its answer.",
            parameters=parameters,
        )
        self._agent = tool.agent
        self._platform = platform

    async def run(self, arguments: dict[str, Any], call: CallContext, seconds: float) -> str:
        """The other agent's answer."""
        try:
            return await self._answer(call, arguments["message"], seconds)
        except (CallCancelled, ToolFailed, ToolRefused):
            raise
        except ProblemError as error:
            kind = ToolRefused if error.status in _REFUSALS else ToolFailed
            raise kind(
                f"agent {self._agent} did not answer: {error.detail}",
                next_step=error.next_step,
                retry_after=error.retry_after,
            ) from None

    async def _answer(self, call: CallContext, message: str, seconds: float) -> str:
        """The answer; where the same is being worked on already, since another host had asked for it, once it is there.

        Whoever runs the tool ends this when its time is over.
        """
        ends, left = time.monotonic() + seconds, seconds
        while True:
            try:
                key = call.idempotency_key
                return await self._platform.agent_invoke(call.request.call, self._agent, message, left, key)
            except RemoteProblem as error:
                if error.code != IN_PROGRESS:
                    raise
                await asyncio.sleep(min(error.retry_after or LONGEST_PAUSE, LONGEST_PAUSE))
                left = max(0.001, ends - time.monotonic())

    async def aclose(self) -> None:
        """Nothing to let go of."""


class BoundMessage:
    """A message tool of a loaded agent: what is sent is durable when it answers, and nobody waits for the reply."""

    kind = "message"

    def __init__(self, tool: MessageTool, platform: AgentCaller) -> None:
        """Send to `tool`'s agent through `platform`."""
        parameters = {
            "type": "object",
            "properties": {"message": {"type": "string", "minLength": 1, "description": "What to tell the agent."}},
            "required": ["message"],
            "additionalProperties": False,
        }
        then = "Its reply comes later, as a message of its own." if tool.reply else "It does not reply."
        self.limits = tool.limits
        self.arguments = ArgumentCheck(tool.name, parameters)
        self.spec = ToolSpec(
            name=tool.name,
            description=tool.description or f"Send a message to the agent {tool.agent} and go on. {then}",
            parameters=parameters,
        )
        self._tool = tool
        self._then = then
        self._platform = platform

    async def run(self, arguments: dict[str, Any], call: CallContext, seconds: float) -> str:
        """What the model is told of a message that is on its way."""
        tool = self._tool
        try:
            sent = await self._platform.agent_message(
                call.request.call, tool.agent, arguments["message"], tool.reply, seconds, call.idempotency_key
            )
        except (CallCancelled, ToolFailed, ToolRefused):
            raise
        except ProblemError as error:
            kind = ToolRefused if error.status in _REFUSALS else ToolFailed
            raise kind(
                f"the message to agent {tool.agent} was not sent: {error.detail}",
                next_step=error.next_step,
                retry_after=error.retry_after,
            ) from None
        return f"Sent to {tool.agent} as {sent}. {self._then}"

    async def aclose(self) -> None:
        """Nothing to let go of."""
