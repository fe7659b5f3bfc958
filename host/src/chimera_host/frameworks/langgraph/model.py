"""LangChain's chat model and tools over the call's context: LangGraph's own agents use them as any others."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from chimera_host.errors import ModelFailed, ToolFailed, ToolRefused
from chimera_host.ports import ToolSpec, current_call

_PASSED = ("temperature", "top_p", "max_tokens", "seed", "tools", "tool_choice", "response_format")


class ChimeraChatModel(BaseChatModel):  # type: ignore[misc]  # the environment of types has no langchain
    """The platform's model. It has no state: the running call decides whose budget and deadline count."""

    source: str | None = None
    cache: bool | None = False

    @property
    def _llm_type(self) -> str:
        return "chimera"

    def bind_tools(
        self, tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool], **kwargs: Any
    ) -> Runnable[Any, AIMessage]:
        """Offer these tools with every call."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return _result(await current_call.get().chat_streamed(_body(messages, stop, kwargs), self.source))

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        call = current_call.get()
        result = _result(call.chat_blocking(_body(messages, stop, kwargs)))
        call.emit(str(result.generations[0].message.text), self.source)
        return result


def _body(messages: list[BaseMessage], stop: list[str] | None, fields: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": convert_to_openai_messages(messages)}
    body.update({name: fields[name] for name in _PASSED if fields.get(name) is not None})
    if stop:
        body["stop"] = stop
    return body


def _result(answer: dict[str, Any]) -> ChatResult:
    try:
        message = answer["choices"][0]["message"]
        content = message.get("content") or ""
        asked = message.get("tool_calls") or []
        calls, invalid = [], []
        for one in asked:
            name, text = one["function"]["name"], one["function"].get("arguments") or "{}"
            try:
                arguments = json.loads(text)
            except json.JSONDecodeError as error:
                arguments = error
            if isinstance(arguments, dict):
                calls.append({"name": name, "args": arguments, "id": one.get("id"), "type": "tool_call"})
            else:
                reason = f"the arguments are not a JSON object: {arguments}"
                invalid.append(
                    {"name": name, "args": text, "id": one.get("id"), "error": reason, "type": "invalid_tool_call"}
                )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ModelFailed("the model's answer holds no message") from error
    if invalid and not calls and not content:
        raise ModelFailed(f"the model called {invalid[0]['name']} with arguments that are not JSON")
    said = AIMessage(
        content=content, tool_calls=calls, invalid_tool_calls=invalid, usage_metadata=_usage(answer.get("usage"))
    )
    return ChatResult(generations=[ChatGeneration(message=said)])


def _usage(usage: Any) -> UsageMetadata | None:
    if not isinstance(usage, dict) or "total_tokens" not in usage:
        return None
    return UsageMetadata(
        input_tokens=usage.get("prompt_tokens", 0),
        output_tokens=usage.get("completion_tokens", 0),
        total_tokens=usage["total_tokens"],
    )


def native_tool(spec: ToolSpec) -> BaseTool:
    """A tool of the agent as LangChain's own object. A tool's failure is told to the model, which may do better."""
    name = spec.name

    async def run(**arguments: Any) -> str:
        try:
            return await current_call.get().tool(name, arguments)
        except (ToolFailed, ToolRefused) as error:
            return f"Error: {error.detail}"

    def run_blocking(**arguments: Any) -> str:
        try:
            return current_call.get().tool_blocking(name, arguments)
        except (ToolFailed, ToolRefused) as error:
            return f"Error: {error.detail}"

    return StructuredTool(
        name=name,
        description=spec.description,
        args_schema=spec.parameters or {"type": "object", "properties": {}},
        func=run_blocking,
        coroutine=run,
    )
