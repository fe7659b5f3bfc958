"""The messages of a chat as steps: those that are finished are given again, the others are made and saved.

A chat goes on by AutoGen's own loop, which runs from its beginning with what was saved: who speaks is whom the saved
message is from, and what is said is that message, without a model, a tool or a choice of speakers. So AutoGen counts
rounds, turns and replies, ends on its words, fills its agents' conversations and streams as if nothing had happened;
there is no second idea of its state. After the last saved message it is the agents' turn.

A message is whatever `generate_reply` gives in the chat that the call itself runs: words, a request for tools, or what
tools gave. Chats within a reply (nested ones, the choice of a speaker by the model) belong to its message. What tools
gave is saved at once, words when something else is asked for: the last ones are the call's answer.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import msgspec
from autogen import ConversableAgent, GroupChat

from chimera_host.errors import AgentFailed
from chimera_host.frameworks.autogen.termination import without
from chimera_host.ports import CallContext

log = logging.getLogger(__name__)

ChatMessage = dict[str, Any]


class Transcript:
    """The messages of one call's chat."""

    def __init__(self, call: CallContext, *, speakers: set[str], termination: str) -> None:
        """Begin with what the call's run has finished. What `speakers` say is part of the conversation."""
        self._call = call
        self._speakers = speakers
        self._termination = termination
        self._given = 0
        self._inside = False
        self._keeps = True
        self._saved: list[ChatMessage] = []
        while (step := call.finished.get(_name(len(self._saved) + 1))) is not None:
            self._saved.append(step.output["made"])

    def follow(self, *agents: ConversableAgent) -> None:
        """Give or make the replies of these agents, which are this call's own copies."""
        if self._call.request.run is not None:
            for agent in agents:
                agent.generate_reply = partial(self._reply, agent, agent.generate_reply)

    def follow_group(self, chat: GroupChat) -> None:
        """The same for a group chat, and who speaks in it."""
        if self._call.request.run is not None:
            self.follow(*chat.agents)
            chat.select_speaker = partial(self._speaker, chat, chat.select_speaker)

    def _reply(self, agent: ConversableAgent, make: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if self._inside:
            return make(*args, **options)
        sender = options.get("sender")
        if self._given < len(self._saved):
            return self._again(agent, sender)
        with self._message():
            self._inside = True
            try:
                reply = make(*args, **options)
            finally:
                self._inside = False
        if reply is not None:
            self._made(agent, sender, reply)
        return reply

    def _again(self, agent: ConversableAgent, sender: Any) -> Any:
        """The next saved message, and its speaker as it was after it."""
        made = self._saved[self._given]
        if made["speaker"] != agent.name:
            raise AgentFailed(
                f"message {self._given + 1} of the unfinished work is from {made['speaker']}, not from {agent.name}",
                next_step="the agent is not the one that began this: ask anew, with another key",
                agent=self._call.document.name,
            )
        self._given += 1
        agent._consecutive_auto_reply_counter[sender] = made["replies"]
        if made.get("variables"):
            agent.context_variables.update(made["variables"])
        return made["reply"]

    def _speaker(self, chat: GroupChat, choose: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if self._given < len(self._saved):
            speaker = chat.agent_by_name(self._saved[self._given]["speaker"])
            if speaker is not None:
                return speaker
        with self._message("/speaker"):
            return choose(*args, **options)

    def _message(self, part: str = "") -> AbstractContextManager[Any]:
        return self._call.step(_name(self._given + 1) + part)

    def _made(self, agent: ConversableAgent, sender: Any, reply: Any) -> None:
        self._given += 1
        made = {
            "speaker": agent.name,
            "reply": reply,
            "replies": agent._consecutive_auto_reply_counter[sender],
            "variables": agent.context_variables.to_dict(),
        }
        if not (self._keeps and self._is_json(made)):
            return
        name, kind = _name(self._given), "tools"
        output: dict[str, Any] = {"made": made}
        if (text := self._words(agent.name, reply)) is not None:
            # Where one agent alone speaks, its messages have no name, as in the call's answer.
            author = {"name": agent.name} if len(self._speakers) > 1 else {}
            kind, output = "message", {"role": "assistant", "content": text, **author, "made": made}
        if agent.client is None or _is_of_tools(reply):
            self._call.save_step_blocking(name, kind, output)
        else:
            self._call.save_step_later(name, kind, output)

    def _is_json(self, made: ChatMessage) -> bool:
        try:
            msgspec.json.encode(made)
        except (TypeError, ValueError):
            self._keeps = False
            told = {"speaker": made["speaker"], "agent": self._call.document.name}
            log.warning("a message that is no JSON is not saved, nor what follows it", extra=told)
        return self._keeps

    def _words(self, speaker: str, reply: Any) -> str | None:
        """What somebody hears of a message; None for tools' traffic and for those who only run tools."""
        content = reply.get("content") if isinstance(reply, dict) else reply
        if not isinstance(content, str) or speaker not in self._speakers:
            return None
        if isinstance(reply, dict) and (reply.get("tool_calls") or reply.get("role") == "tool"):
            return None
        return without(content, self._termination) or None


def _name(number: int) -> str:
    return f"message-{number}"


def _is_of_tools(reply: Any) -> bool:
    """Whether tools have run for it; what code gave is words, of an agent without a model."""
    return isinstance(reply, dict) and reply.get("role") in ("tool", "function")
