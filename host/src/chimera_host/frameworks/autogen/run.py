"""Running a call on AutoGen's objects, in a thread: AutoGen's classic API blocks. `transcript` makes messages steps."""

from typing import Any

from autogen import ConversableAgent, GroupChatManager

from chimera_host.contract.call import Message
from chimera_host.errors import AgentFailed
from chimera_host.frameworks.autogen.build import DEFAULT_TERMINATION
from chimera_host.frameworks.autogen.isolate import isolated, isolated_group
from chimera_host.frameworks.autogen.termination import without
from chimera_host.frameworks.autogen.transcript import Transcript
from chimera_host.ports import CallContext, RunResult

ChatMessage = dict[str, Any]


class ConversingAgent:
    """One agent that answers a person, and runs its tools in between."""

    __slots__ = ("_agent", "_rounds", "_termination")

    def __init__(self, agent: ConversableAgent, *, rounds: int = 20, termination: str = DEFAULT_TERMINATION) -> None:
        """Answer with `agent`, after `rounds` rounds of tools at most."""
        self._agent = agent
        self._rounds = rounds
        self._termination = termination

    async def run(self, call: CallContext) -> RunResult:
        """Answer one call."""
        return await call.in_thread(self._answer, call)

    def _answer(self, call: CallContext) -> RunResult:
        agent = isolated(self._agent)
        Transcript(call, speakers={agent.name}, termination=self._termination).follow(agent)
        messages = _conversation(call)
        for _ in range(self._rounds + 1):
            reply = _reply(agent, messages, call)
            if isinstance(reply, dict) and reply.get("tool_calls"):
                messages.append({**reply, "role": "assistant"})
                results = _reply(agent, messages, call)
                messages.append(results if isinstance(results, dict) else {"role": "user", "content": str(results)})
                continue
            text = without(_text(reply), self._termination)
            call.emit(text, agent.name)
            return RunResult(output=text)
        raise AgentFailed(
            f"the agent called tools for {self._rounds} rounds without an answer",
            next_step="raise `max_rounds`, or say in the system message when to stop",
            agent=call.document.name,
        )

    def close(self) -> None:
        """Nothing to let go of."""


class WorkingAgent:
    """A chat of two: the executor starts it, runs the assistant's tools, and ends it when there is an answer."""

    __slots__ = ("_assistant", "_executor", "_termination", "_turns")

    def __init__(
        self,
        assistant: ConversableAgent,
        executor: ConversableAgent,
        *,
        turns: int | None = None,
        termination: str = DEFAULT_TERMINATION,
    ) -> None:
        """Chat for `turns` turns at most; None leaves that to the agents."""
        self._assistant = assistant
        self._executor = executor
        self._turns = turns
        self._termination = termination

    async def run(self, call: CallContext) -> RunResult:
        """Answer one call."""
        return await call.in_thread(self._chat, call)

    def _chat(self, call: CallContext) -> RunResult:
        assistant, executor = isolated(self._assistant), isolated(self._executor)
        Transcript(call, speakers={assistant.name}, termination=self._termination).follow(assistant, executor)
        *history, last = _conversation(call)
        for message in history:
            assistant._oai_messages[executor].append(dict(message))
            executor._oai_messages[assistant].append({**message, "role": _turned(message["role"])})
        executor.initiate_chat(
            assistant, clear_history=False, message=last["content"], max_turns=self._turns, silent=True
        )
        said = assistant.chat_messages[executor][len(history) + 1 :]
        return _result(said, {assistant.name}, self._termination, call)

    def close(self) -> None:
        """Nothing to let go of."""


class CoordinatingAgent:
    """A group chat, led by its manager; somebody who isn't in it brings the question."""

    __slots__ = ("_manager", "_starter", "_termination")

    def __init__(
        self,
        manager: GroupChatManager,
        *,
        starter: ConversableAgent | None = None,
        termination: str = DEFAULT_TERMINATION,
    ) -> None:
        """Lead the manager's chat, which `starter` begins, or a stand-in for the user."""
        self._manager = manager
        self._starter = starter or ConversableAgent("user", llm_config=False, human_input_mode="NEVER", silent=True)
        self._termination = termination

    async def run(self, call: CallContext) -> RunResult:
        """Answer one call."""
        return await call.in_thread(self._chat, call)

    def _chat(self, call: CallContext) -> RunResult:
        manager = isolated_group(self._manager)
        chat = manager.groupchat
        Transcript(call, speakers=set(chat.agent_names), termination=self._termination).follow_group(chat)
        members = self._manager.groupchat.agents
        starter = chat.agents[members.index(self._starter)] if self._starter in members else isolated(self._starter)
        *history, last = _conversation(call)
        for message in history:
            told = {**message, "role": "user", "name": "user" if message["role"] == "user" else manager.name}
            chat.messages.append(told)
            for agent in chat.agents:
                agent._oai_messages[manager].append(dict(told))
        starter.initiate_chat(manager, clear_history=False, message=last["content"], max_turns=1, silent=True)
        said = chat.messages[len(history) + 1 :]
        return _result(said, set(chat.agent_names), self._termination, call)

    def close(self) -> None:
        """Nothing to let go of."""


def _reply(agent: ConversableAgent, messages: list[ChatMessage], call: CallContext) -> Any:
    """What the agent says or its tools return. None is neither: it is how AutoGen ends a conversation."""
    reply = agent.generate_reply(messages=messages)
    if reply is None:
        raise AgentFailed(
            "the agent ended the conversation without an answer",
            next_step="raise its `max_consecutive_auto_reply`, or see what its `is_termination_msg` ends on",
            agent=call.document.name,
        )
    return reply


def _conversation(call: CallContext) -> list[ChatMessage]:
    messages = (*call.session.messages, *call.request.messages)
    return [{"role": message.role, "content": message.content} for message in messages]


def _turned(role: str) -> str:
    """How the other side of a chat sees a message."""
    return {"user": "assistant", "assistant": "user"}.get(role, role)


def _result(said: list[ChatMessage], speakers: set[str], termination: str, call: CallContext) -> RunResult:
    """The last thing that was said and is more than the word that ends the chat; all of it for the session."""
    spoken = []
    for message in said:
        if message.get("tool_calls") or message.get("role") == "tool" or message.get("name") not in speakers:
            continue
        if text := without(_text(message), termination):
            spoken.append(Message(role="assistant", content=text, name=message["name"] if len(speakers) > 1 else None))
    if not spoken:
        raise AgentFailed(
            "the chat ended without an answer",
            next_step="raise `max_rounds`, or say in the system message when to answer",
            agent=call.document.name,
        )
    return RunResult(output=spoken[-1].content, messages=tuple(spoken))


def _text(reply: Any) -> str:
    content = reply.get("content") if isinstance(reply, dict) else reply
    return content if isinstance(content, str) else ""
