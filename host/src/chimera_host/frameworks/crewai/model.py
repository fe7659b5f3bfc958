"""CrewAI's way to the model: one subclass of its own extension point `BaseLLM`, shared by all agents of the process.

It holds nothing of a call: the running call's context reaches the model, meters and cancels. An LLM of its own costs
an agent 1.4 MB, this one nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from crewai.llms.base_llm import BaseLLM
from pydantic import BaseModel

from chimera_host.errors import ModelFailed
from chimera_host.ports import current_call

CONTEXT_WINDOW = 1_000_000
"""Tokens. The gateway knows the model's real limit; CrewAI would guess at it, and summarise by calling the model."""

_PASSED = ("role", "content", "name", "tool_calls", "tool_call_id")
_SETTINGS = ("temperature", "top_p", "max_tokens", "seed", "frequency_penalty", "presence_penalty")


def _once(method: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a call method so that CrewAI doesn't wrap it in retries that sleep: the model gateway tries again."""
    vars(method)["_crewai_rate_limit_wrapped"] = True
    return method


class PlatformLLM(BaseLLM):  # type: ignore[misc]
    """The platform's model as CrewAI sees it."""

    @_once
    def call(
        self,
        messages: str | Sequence[Any],
        tools: Sequence[dict[str, Any]] | None = None,
        callbacks: Sequence[Any] | None = None,
        available_functions: dict[str, Any] | None = None,
        from_task: Any = None,
        from_agent: Any = None,
        response_model: type[BaseModel] | None = None,
    ) -> Any:
        """One model call, from a framework's thread: the text, or the list of tool calls that the model asks for."""
        body: dict[str, Any] = {name: value for name in _SETTINGS if (value := getattr(self, name)) is not None}
        body["messages"] = _plain(messages)
        if tools:
            body["tools"] = list(tools)
        if stop := self.stop_sequences:
            body["stop"] = list(stop)
        if response_model is not None:
            schema = {"name": response_model.__name__, "schema": response_model.model_json_schema()}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        answer = current_call.get().chat_blocking(body)
        try:
            message = answer["choices"][0]["message"]
            asked, text = message.get("tool_calls"), message.get("content") or ""
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ModelFailed("the model's answer holds no message") from error
        if asked and tools:
            return asked
        if response_model is not None:
            return response_model.model_validate_json(text)
        return text

    async def acall(self, messages: str | Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        """Refuse: crews run in threads, where a coroutine's loop isn't the host's."""
        raise ModelFailed("CrewAI's asynchronous model calls are not served", next_step="use the crew's `kickoff`")

    def supports_function_calling(self) -> bool:
        """Tools go to the model as such."""
        return True

    def supports_stop_words(self) -> bool:
        """They are passed on where an agent sets them; CrewAI adds none of its own."""
        return False

    def supports_multimodal(self) -> bool:
        """Text only."""
        return False

    def get_context_window_size(self) -> int:
        """See `CONTEXT_WINDOW`."""
        return CONTEXT_WINDOW

    def get_input_tokens_count(self, messages: Any, tools: Any = None, response_model: Any = None) -> int:
        """A rough count, four characters a token; only compared with `CONTEXT_WINDOW`."""
        if isinstance(messages, str):
            return len(messages) // 4
        return sum(len(str(message.get("content") or "")) for message in messages) // 4

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> "PlatformLLM":
        """Itself: it has no state, and crews are copied for each call."""
        return self

    def __copy__(self) -> "PlatformLLM":
        """Itself."""
        return self


@lru_cache(maxsize=1)
def shared_model() -> PlatformLLM:
    """The process's one model; which model of the settings answers is the gateway's knowledge."""
    return PlatformLLM(model="platform/default")


def _plain(messages: str | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """CrewAI's messages without what it adds for itself (marks for caches, raw parts)."""
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    return [{name: message[name] for name in _PASSED if name in message} for message in messages]
