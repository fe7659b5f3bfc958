"""From a definition to AutoGen's objects, made once when an agent is loaded."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from autogen import ConversableAgent, GroupChat, GroupChatManager
from autogen.oai.client import PlaceHolderClient
from autogen.tools import Tool

from chimera_host.contract.behaviour import AutoGenBehaviour
from chimera_host.errors import AgentLoadError
from chimera_host.frameworks.autogen.model import PlatformModelClient, llm_config
from chimera_host.frameworks.autogen.termination import says, without
from chimera_host.ports import AgentBuild, ToolSpec, current_call

DEFAULT_TERMINATION = "TERMINATE"
"""AutoGen's own habit, which entrypoints follow too."""

TOOL_TURNS = 8
"""How many times in a row a participant of a group chat may call tools before somebody else must speak."""


def leader(behaviour: AutoGenBehaviour, build: AgentBuild) -> ConversableAgent:
    """One agent that talks, and runs its own tools."""
    return _agent(build, "assistant", behaviour.system_message, _specs(behaviour.tools, build))


def pair(behaviour: AutoGenBehaviour, build: AgentBuild) -> tuple[ConversableAgent, ConversableAgent]:
    """An assistant that asks for tools, and the executor that runs them."""
    specs = _specs(behaviour.tools, build)
    assistant = _agent(build, "assistant", behaviour.system_message, specs, runs=False)

    def finished(message: dict[str, Any]) -> bool:
        return not message.get("tool_calls") or ends(message, behaviour.termination)

    executor = ConversableAgent(
        "executor",
        is_termination_msg=finished,
        human_input_mode="NEVER",
        function_map={spec.name: _function(spec) for spec in specs},
        llm_config=False,
        max_consecutive_auto_reply=sys.maxsize,
        silent=True,
    )
    _hook(executor)
    return assistant, executor


def group(behaviour: AutoGenBehaviour, build: AgentBuild) -> GroupChatManager:
    """A group chat. AutoGen wants two speakers, so with one participant the leader itself speaks too."""
    members = []
    for person in behaviour.participants:
        own = person.system_message or f"You are {person.name}, {person.role}."
        text = f"{own}\n\n{behaviour.system_message}"
        members.append(_agent(build, person.name, text, _specs(person.tools, build), description=person.role))
    specs = _specs(behaviour.tools, build)
    if len(members) == 1 or specs:
        taken = {member.name for member in members}
        name = next(name for name in ("leader", "chat_leader", "the_chat_leader") if name not in taken)
        members.append(_agent(build, name, behaviour.system_message, specs, description="leads the group"))
    lead = behaviour.system_message.replace("{", "{{").replace("}", "}}")
    chat = GroupChat(
        agents=members,
        messages=[],
        max_round=1 + behaviour.max_rounds * (1 + 2 * TOOL_TURNS),
        speaker_selection_method=_selection(behaviour.pattern, behaviour.max_rounds),
        select_speaker_message_template=f"{lead}\n\n{GroupChat.select_speaker_message_template}",
        select_speaker_auto_llm_config=llm_config(build.document.model.name),
        select_speaker_auto_model_client_cls=PlatformModelClient,
    )
    return GroupChatManager(
        chat,
        name="chat_manager",
        system_message=behaviour.system_message,
        is_termination_msg=lambda message: ends(message, behaviour.termination),
        llm_config=False,
        silent=True,
    )


def _selection(pattern: str, rounds: int) -> Callable[..., Any]:
    """Who speaks next: whoever is busy with tools goes on; after `rounds` contributions nobody does."""

    def select(last: ConversableAgent, chat: GroupChat) -> Any:
        message = chat.messages[-1]
        if message.get("tool_calls") or message.get("role") == "tool":
            return last
        spoken = 0
        for earlier in reversed(chat.messages):
            if earlier.get("name") not in chat.agent_names:
                break
            spoken += not earlier.get("tool_calls") and earlier.get("role") != "tool"
        return None if spoken >= rounds else pattern

    return select


def ends(message: dict[str, Any], termination: str) -> bool:
    """Whether a message says the word that ends a chat."""
    content = message.get("content")
    return isinstance(content, str) and message.get("role") != "tool" and says(content, termination)


def connect(*agents: Any) -> None:
    """Join agents of an entrypoint to the platform: the client that their configuration names, and our hooks.

    The same object may come twice, as the member who starts its own group's chat does, or a module's only agent when
    two definitions load it.
    """
    for agent in agents:
        if agent.client is not None and any(isinstance(one, PlaceHolderClient) for one in agent.client._clients):
            agent.register_model_client(PlatformModelClient)
        if isinstance(agent, GroupChatManager):
            chat = agent.groupchat
            if chat.select_speaker_auto_llm_config is None:
                chat.select_speaker_auto_llm_config = agent.llm_config or llm_config("default")
            if chat.select_speaker_auto_model_client_cls is None:
                chat.select_speaker_auto_model_client_cls = PlatformModelClient
            connect(*chat.agents)
        _hook(agent)


def _hook(agent: ConversableAgent, termination: str = DEFAULT_TERMINATION) -> None:
    emit = emit_message if termination == DEFAULT_TERMINATION else partial(emit_message, termination=termination)
    for place, hook in (
        ("process_message_before_send", emit),
        ("safeguard_tool_inputs", _unless_over),
        ("safeguard_tool_outputs", _unless_over),
    ):
        if hook not in agent.hook_lists[place]:
            agent.register_hook(place, hook)


def _unless_over(message: dict[str, Any]) -> dict[str, Any]:
    """AutoGen's hook: raise before and after a tool of a call that is over, and save what led to the tool.

    AutoGen makes a text for the model of whatever a tool raises, so a cancellation there would go on as one.
    """
    call = current_call.get()
    call.remaining()
    call.commit_steps_blocking()
    return message


def emit_message(
    sender: Any, message: Any, recipient: Any, silent: bool, termination: str = DEFAULT_TERMINATION
) -> Any:
    """AutoGen's hook: stream what an agent with a model says in a chat, once, when it says it."""
    text = message.get("content") if isinstance(message, dict) else message
    asks = isinstance(message, dict) and (message.get("tool_calls") or message.get("role") == "tool")
    if sender.client is not None and isinstance(text, str) and not asks:
        current_call.get().emit(without(text, termination), sender.name)
    return message


def native_tool(spec: ToolSpec) -> Tool:
    """A tool of the agent as AutoGen's own object."""
    return Tool(
        name=spec.name,
        description=spec.description,
        func_or_tool=_function(spec),
        parameters_json_schema=spec.parameters or {"type": "object", "properties": {}},
    )


def _agent(
    build: AgentBuild,
    name: str,
    system_message: str,
    specs: Sequence[ToolSpec],
    *,
    description: str | None = None,
    runs: bool = True,
) -> ConversableAgent:
    agent = ConversableAgent(
        name,
        system_message=system_message,
        llm_config=llm_config(build.document.model.name, [_offer(spec) for spec in specs]),
        description=description,
        human_input_mode="NEVER",
        function_map={spec.name: _function(spec) for spec in specs} if runs else None,
        max_consecutive_auto_reply=sys.maxsize,
        is_termination_msg=_never,
        silent=True,
    )
    agent.register_model_client(PlatformModelClient)
    behaviour = build.document.behaviour.autogen
    _hook(agent, behaviour.termination if behaviour is not None else DEFAULT_TERMINATION)
    return agent


def _never(_: dict[str, Any]) -> bool:
    """Who ends a chat is decided in one place: the executor, or the group's manager."""
    return False


def _specs(names: Sequence[str], build: AgentBuild) -> list[ToolSpec]:
    specs: list[ToolSpec] = []
    for name in names:
        if name not in build.tools:
            known = ", ".join(build.tools) or "none"
            raise AgentLoadError(
                f"tool {name!r} is not among the agent's tools ({known})",
                next_step="list it under `tools` of the definition",
                agent=build.document.name,
            )
        specs.extend(build.tools[name])
    return specs


def _offer(spec: ToolSpec) -> dict[str, Any]:
    function = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", "function": function}


def _function(spec: ToolSpec) -> Callable[..., str]:
    name = spec.name

    def run(**arguments: Any) -> str:
        return current_call.get().tool_blocking(name, arguments)

    return run
