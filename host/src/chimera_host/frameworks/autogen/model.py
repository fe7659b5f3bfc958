"""AutoGen's way to the model: one custom model client, which finds its call by itself.

A model client of AutoGen's own costs an agent 846 KB and 31 ms, since each makes an OpenAI client and a connection
pool. This one (`model_client_cls`) holds nothing: the running call's context reaches the model. It also stays clear of
prices, the disk cache and token counting, which would fetch files from the network.
"""

import logging
from collections.abc import Mapping
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any, cast

from autogen import ConversableAgent, OpenAIWrapper
from autogen.io import IOStream

from chimera_host.errors import ModelFailed
from chimera_host.ports import CallContext, current_call

CLIENT_NAME = "PlatformModelClient"
_PASSED = frozenset(
    {
        "messages",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "temperature",
        "top_p",
        "max_tokens",
        "max_completion_tokens",
        "seed",
        "stop",
        "response_format",
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
        "n",
    }
)
"""The fields of a model call that go on: whatever else AutoGen puts there is its own."""


class PlatformModelClient:
    """AutoGen's `ModelClient`: asks through the call's context. One kind for all agents, without state."""

    __slots__ = ()

    def __init__(self, config: Mapping[str, Any], **_: Any) -> None:
        """Take what AutoGen gives; nothing of it is needed."""

    def create(self, params: Mapping[str, Any]) -> SimpleNamespace:
        """One model call, from a framework's thread."""
        body = {name: value for name, value in params.items() if name in _PASSED and value is not None}
        answer = current_call.get().chat_blocking(body)
        try:
            message = answer["choices"][0]["message"]
        except (KeyError, IndexError, TypeError) as error:
            raise ModelFailed("the model's answer holds no message") from error
        if not isinstance(message, dict):
            raise ModelFailed("the model's answer holds no message")
        said: Any = message.get("content") or ""
        if message.get("tool_calls"):
            said = {"role": "assistant", "content": message.get("content"), "tool_calls": message["tool_calls"]}
        return SimpleNamespace(message_retrieval_function=_retrieve, said=said, model="", cost=0.0)

    def message_retrieval(self, response: SimpleNamespace) -> list[Any]:
        """The text, or the message with tool calls."""
        return [response.said]

    def cost(self, response: SimpleNamespace) -> float:
        """Nothing: the model gateway meters."""
        return 0.0

    @staticmethod
    def get_usage(response: SimpleNamespace) -> dict[str, Any]:
        """Nothing, so that AutoGen sums up nothing."""
        return {}


def _retrieve(response: SimpleNamespace) -> list[Any]:
    return [response.said]


class SilentStream:
    """AutoGen's console: it would print each message, which belong to the caller and not to a log."""

    def print(self, *objects: Any, sep: str = " ", end: str = "\n", flush: bool = False) -> None:
        """Drop it."""

    def send(self, message: Any) -> None:
        """Drop it."""

    def input(self, prompt: str = "", *, password: bool = False) -> str:
        """Nobody is there to answer."""
        return "exit"


def prepare() -> None:
    """Make AutoGen quiet, and have it look up its constants once.

    `openai_kwargs` inspects two signatures each time it is read, ten times for each agent: four fifths of an agent's
    construction.
    """
    logging.getLogger("autogen.oai.client").setLevel(logging.WARNING)
    IOStream.set_global_default(SilentStream())
    if isinstance(OpenAIWrapper.openai_kwargs, property):
        OpenAIWrapper.openai_kwargs = frozenset(OpenAIWrapper.openai_kwargs.__get__(object.__new__(OpenAIWrapper)))


def llm_config(model: str, tools: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The configuration of an agent that uses the platform's model."""
    config: dict[str, Any] = {"config_list": [{"model": model, "model_client_cls": CLIENT_NAME}], "cache_seed": None}
    if tools:
        config["tools"] = tools
    return config


class _Rehearsal:
    """A call without a caller."""

    def chat_blocking(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {"choices": [{"message": {"role": "assistant", "content": "ready"}}]}


def rehearse() -> None:
    """Run one agent once, without a thread and without a connection."""

    def once() -> None:
        # It has the one method of a call that a model call needs.
        current_call.set(cast(CallContext, _Rehearsal()))
        agent = ConversableAgent("rehearsal", llm_config=llm_config("default"), human_input_mode="NEVER")
        agent.register_model_client(PlatformModelClient)
        agent.generate_reply(messages=[{"role": "user", "content": "?"}])

    copy_context().run(once)
