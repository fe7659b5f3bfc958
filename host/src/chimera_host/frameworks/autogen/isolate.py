"""A state of its own for each call: copies of loaded agents that share what doesn't change.

An AutoGen agent keeps its conversation in itself, so two calls on one object would read each other's. Making an agent
anew for each call costs ten times what copying does: the copy shares the model client, the tools and the hooks, and
gets empty conversations and counters. The attributes are those of the locked AutoGen version; a test runs many calls of
each kind at once and would see one that is missed.
"""

import copy
from collections import defaultdict
from typing import Any

from autogen import ConversableAgent, GroupChat, GroupChatManager
from autogen.agentchat.group import ContextVariables


def isolated(agent: ConversableAgent) -> Any:
    """A copy of `agent` with no conversation in it."""
    twin = copy.copy(agent)
    twin._oai_messages = defaultdict(list)
    twin._human_input = []
    twin._consecutive_auto_reply_counter = defaultdict(int)
    twin._max_consecutive_auto_reply_dict = defaultdict(twin.max_consecutive_auto_reply)
    twin.reply_at_receive = defaultdict(bool)
    twin._oai_system_message = copy.deepcopy(agent._oai_system_message)
    twin.context_variables = ContextVariables(dict(agent.context_variables.data))
    return twin


def isolated_group(manager: GroupChatManager) -> Any:
    """A copy of a group chat's manager with a chat of its own, whose agents are copies too."""
    twin = isolated(manager)
    chat = copy.copy(manager.groupchat)
    twins = {id(agent): isolated(agent) for agent in chat.agents}
    chat.agents = [twins[id(agent)] for agent in chat.agents]
    chat.messages = []
    chat.allowed_speaker_transitions_dict = {
        twins.get(id(source), source): [twins.get(id(target), target) for target in targets]
        for source, targets in manager.groupchat.allowed_speaker_transitions_dict.items()
    }
    twin._groupchat = chat
    twin._last_speaker = None
    twin._reply_func_list = [
        {**entry, "config": chat} if isinstance(entry["config"], GroupChat) else entry
        for entry in twin._reply_func_list
    ]
    return twin
