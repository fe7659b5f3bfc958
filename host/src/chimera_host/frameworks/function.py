"""Agents without a framework: a declared one asks the model, with tools until it answers; code is simply called.

One that stands for a function elsewhere has the gateway call it.

An entrypoint `module:factory` is called once with an `AgentContext` and returns a callable `(prompt, call) -> str`,
synchronous or not; `call` is the `CallContext`. A synchronous one runs in a watched thread. Instead of a text it may
return a `RunResult`, to say what to keep in the session.

In a run, what a declared agent's model asked of tools in a round is a step, and what each tool gave is one. Code says
for itself what its steps are, with `call.once` or `call.save_step` (`chimera_host.ports.CallContext`).
"""

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from chimera_host.agent_context import AgentContext
from chimera_host.contract.agent import FrameworkName
from chimera_host.contract.behaviour import FunctionBehaviour
from chimera_host.contract.function import FunctionAsk
from chimera_host.errors import AgentFailed, AgentLoadError, CallCancelled, ModelFailed, ToolFailed, ToolRefused
from chimera_host.ports import AgentBuild, CallContext, ChatBody, LoadedAgent, RunResult, ToolSpec
from chimera_host.substitute import fill

TOOLS = "tools"
"""The kind of steps that are no message of the conversation: tools that a model asks for, and what they give."""

AgentFunction = Callable[[str, CallContext], str | RunResult | Awaitable[str | RunResult]]


class Adapter:
    """The `function` framework."""

    name: FrameworkName = "function"

    def preload(self) -> None:
        """Nothing: there is no framework."""

    def load(self, build: AgentBuild) -> LoadedAgent:
        """A declared agent, or the callable that the agent's factory makes."""
        if build.factory is not None:
            context = AgentContext(document=build.document, work_dir=build.work_dir, tool_specs=build.tools)
            function = build.factory(context)
            if not callable(function):
                raise AgentLoadError(
                    f"the entrypoint returned {type(function).__name__}, not a callable (prompt, call) -> str",
                    next_step="return a function from the factory",
                    agent=build.document.name,
                )
            return CodeAgent(function)
        behaviour = build.document.behaviour.function
        if behaviour is None:
            raise AgentLoadError(
                f"agent {build.document.name} has neither a `function` behaviour nor an entrypoint",
                agent=build.document.name,
            )
        if behaviour.endpoint is not None:
            return RemoteAgent()
        return DeclaredAgent(behaviour, _offered(behaviour, build))


def _offered(behaviour: FunctionBehaviour, build: AgentBuild) -> list[dict[str, Any]]:
    """The tools as a chat completion offers them."""
    specs: list[ToolSpec] = []
    for name in behaviour.tools:
        if name not in build.tools:
            known = ", ".join(build.tools) or "none"
            raise AgentLoadError(f"tool {name!r} is not among the agent's tools ({known})", agent=build.document.name)
        specs.extend(build.tools[name])
    return [
        {
            "type": "function",
            "function": {"name": spec.name, "description": spec.description, "parameters": spec.parameters},
        }
        for spec in specs
    ]


class DeclaredAgent:
    """System message, conversation, answer; tools in rounds until the model answers with text."""

    __slots__ = ("_behaviour", "_system_message", "_tools")

    def __init__(self, behaviour: FunctionBehaviour, tools: Sequence[dict[str, Any]]) -> None:
        """Behave as declared, with these tools offered."""
        self._behaviour = behaviour
        self._system_message = behaviour.system_message or ""
        self._tools = list(tools)

    async def run(self, call: CallContext) -> RunResult:
        """Answer one call."""
        system = fill(self._system_message, {"input": call.prompt})
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}]
        messages += [{"role": m.role, "content": m.content} for m in (*call.session.messages, *call.request.messages)]
        for number in range(1, self._behaviour.max_rounds + 1):
            step = f"round-{number}"
            if (before := call.finished.get(step)) is not None:
                message = before.output
            else:
                message = await self._ask(call, messages, step)
            asked = message.get("tool_calls")
            if not asked:
                return RunResult(output=message.get("content") or "")
            messages.append(message)
            given = (call.once(f"{step}/tool-{n}", partial(_use, call, one), TOOLS) for n, one in enumerate(asked, 1))
            messages += await asyncio.gather(*given)
        raise AgentFailed(
            f"the agent called tools for {self._behaviour.max_rounds} rounds without an answer",
            next_step="raise `max_rounds`, or say in the system message when to stop",
            agent=call.document.name,
        )

    async def _ask(self, call: CallContext, messages: list[dict[str, Any]], step: str) -> dict[str, Any]:
        """The model's message. One that asks for tools is a step; the last one is the call's answer."""
        body: ChatBody = {"messages": messages}
        if self._tools:
            body["tools"] = self._tools
        with call.step(step):
            said = _message(await call.chat_streamed(body))
        message = {"role": "assistant", "content": said.get("content")}
        if said.get("tool_calls"):
            message["tool_calls"] = said["tool_calls"]
            call.save_step_later(step, TOOLS, message)
        return message

    def close(self) -> None:
        """Nothing to let go of."""


class RemoteAgent:
    """A function elsewhere. Its answer is that of the call, which commits it, so no step is saved before."""

    __slots__ = ()

    async def run(self, call: CallContext) -> RunResult:
        """Answer one call."""
        with call.step("function"):
            output = await call.function(FunctionAsk(messages=(*call.session.messages, *call.request.messages)))
        call.emit(output)
        return RunResult(output=output)

    def close(self) -> None:
        """Nothing to let go of."""


def _message(answer: dict[str, Any]) -> dict[str, Any]:
    try:
        message = answer["choices"][0]["message"]
    except (KeyError, IndexError, TypeError) as error:
        raise ModelFailed("the model's answer holds no message") from error
    if not isinstance(message, dict):
        raise ModelFailed("the model's answer holds no message")
    return message


async def _use(call: CallContext, asked: dict[str, Any]) -> dict[str, Any]:
    """Run one tool that the model asked for; a tool's failure is told to the model, which may do better."""
    function = asked.get("function") or {}
    try:
        arguments = json.loads(function.get("arguments") or "{}")
        if not isinstance(arguments, dict):
            raise ToolFailed("the arguments are not a JSON object")
        output = await call.tool(str(function.get("name")), arguments)
    except CallCancelled:
        raise
    except (ToolFailed, ToolRefused) as error:
        output = f"Error: {error.detail}"
    except json.JSONDecodeError as error:
        output = f"Error: the arguments are not JSON: {error}"
    return {"role": "tool", "tool_call_id": asked.get("id"), "content": output}


class CodeAgent:
    """An agent's own callable."""

    __slots__ = ("_function", "_on_loop")

    def __init__(self, function: AgentFunction) -> None:
        """Call `function`: on the event loop if it is asynchronous, else in a thread."""
        self._function = function
        self._on_loop = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - a callable object with an asynchronous __call__
        )

    async def run(self, call: CallContext) -> RunResult:
        """Answer one call."""
        if self._on_loop:
            result = self._function(call.prompt, call)
        else:
            result = await call.in_thread(self._function, call.prompt, call)
        if inspect.isawaitable(result):
            result = await result
        if isinstance(result, RunResult):
            return result
        if not isinstance(result, str):
            raise AgentFailed(
                f"the agent's function returned {type(result).__name__}, not a text",
                next_step="return a str or a chimera_host.ports.RunResult",
                agent=call.document.name,
            )
        return RunResult(output=result)

    def close(self) -> None:
        """Close the callable, where it can be."""
        close = getattr(self._function, "close", None)
        if callable(close):
            close()
