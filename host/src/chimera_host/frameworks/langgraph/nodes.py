"""What each kind of node does: an asynchronous function from the values so far to the node's output."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, NotRequired, TypedDict

from langchain_core.messages import AIMessage
from langgraph.errors import GraphRecursionError
from langgraph.graph import add_messages
from langgraph.prebuilt import create_react_agent

from chimera_host.contract.behaviour import AgentNode, BranchNode, GraphNode, PromptNode, ToolNode
from chimera_host.errors import AgentFailed, AgentLoadError, ModelFailed
from chimera_host.frameworks.langgraph.model import ChimeraChatModel, native_tool
from chimera_host.ports import AgentBuild, CallContext, ToolSpec, current_call
from chimera_host.substitute import fill

Work = Callable[[Mapping[str, str]], Awaitable[str]]

MAX_ROUNDS = 25
"""Rounds of an agent node's loop: a model call, and a step in which the tools run that it asks for."""


class Loop(TypedDict):
    """The state of an agent node's loop.

    LangGraph counts down in the `remaining_steps` of its own state, and answers with an apology when they run out,
    which would pass for the agent's answer. Nothing counts in this one, so that LangGraph raises instead.
    """

    messages: Annotated[list[Any], add_messages]
    remaining_steps: NotRequired[int]


def worker(node: GraphNode, build: AgentBuild) -> Work:
    """The function of `node`, made once."""
    match node:
        case PromptNode():
            return _prompt(node)
        case ToolNode():
            return _tool(node, build)
        case AgentNode():
            return _agent(node, build)
        case BranchNode():
            return _branch(node)


def _prompt(node: PromptNode) -> Work:
    async def work(values: Mapping[str, str]) -> str:
        call = current_call.get()
        messages = _history(call)
        if node.system_message is not None:
            messages.insert(0, {"role": "system", "content": fill(node.system_message, values)})
        messages.append({"role": "user", "content": fill(node.prompt, values)})
        answer = await call.chat_streamed({"messages": messages}, node.name)
        try:
            return answer["choices"][0]["message"].get("content") or ""
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ModelFailed("the model's answer holds no message") from error

    return work


def _tool(node: ToolNode, build: AgentBuild) -> Work:
    name = _tool_name(node, build)

    async def work(values: Mapping[str, str]) -> str:
        arguments = {key: fill(text, values) if isinstance(text, str) else text for key, text in node.arguments.items()}
        return await current_call.get().tool(name, arguments)

    return work


def _tool_name(node: ToolNode, build: AgentBuild) -> str:
    """The tool's name at the broker: the definition's, or one of an MCP server's, `server_tool`."""
    offered = [spec.name for several in build.tools.values() for spec in several]
    if node.tool in offered:
        return node.tool
    own = build.tools.get(node.tool, ())
    if len(own) == 1:
        return own[0].name
    raise AgentLoadError(
        f"node {node.name!r} calls the tool {node.tool!r}, which is none of {', '.join(offered) or 'none'}",
        next_step="list the tool under `tools`; of an MCP server with several, name one as `server_tool`",
        agent=build.document.name,
    )


def _agent(node: AgentNode, build: AgentBuild) -> Work:
    specs: list[ToolSpec] = []
    for name in node.tools:
        if name not in build.tools:
            raise AgentLoadError(
                f"node {node.name!r} uses the tool {name!r}, which is not among the agent's tools",
                next_step="list it under `tools` of the definition",
                agent=build.document.name,
            )
        specs.extend(build.tools[name])
    model, tools = ChimeraChatModel(source=node.name), [native_tool(spec) for spec in specs]
    react = create_react_agent(model, tools, state_schema=Loop)

    async def work(values: Mapping[str, str]) -> str:
        messages = [
            {"role": "system", "content": fill(node.system_message, values)},
            *_history(current_call.get()),
            {"role": "user", "content": fill(node.prompt, values)},
        ]
        # A bound of its own: without it the limit of the graph around it would count for the loop inside too.
        try:
            state = await react.ainvoke({"messages": messages}, {"recursion_limit": 2 * MAX_ROUNDS})
        except GraphRecursionError as error:
            raise AgentFailed(
                f"it called tools for {MAX_ROUNDS} rounds without an answer",
                next_step=f"say in the system message of node {node.name} when to stop, or give it an `on_error`",
            ) from error
        return last_text(state["messages"])

    return work


def _branch(node: BranchNode) -> Work:
    async def work(values: Mapping[str, str]) -> str:
        return fill(node.value, values)

    return work


def _history(call: CallContext) -> list[dict[str, Any]]:
    """The conversation before the caller's last message, which is `{input}`."""
    earlier = (*call.session.messages, *call.request.messages[:-1])
    return [{"role": message.role, "content": message.content} for message in earlier]


def last_text(messages: Sequence[Any]) -> str:
    """What the model said last."""
    if not messages or not isinstance(messages[-1], AIMessage):
        raise AgentFailed("the agent ended without an answer of the model")
    return str(messages[-1].text)
