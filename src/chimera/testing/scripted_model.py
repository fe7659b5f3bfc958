"""A model that answers by a script: instantly, the same every time. For tests, benchmarks and dry runs.

A script is a YAML list of rules; the first that fits answers. Without a script, or where no rule fits, the answer is
the last message's first words. A rule:

    - when: {last: "refund", agent: "^billing", tools: true, tool_result: false}   # all given must hold
      reply: "text"                       # or:
      tool_calls: [{name: lookup, arguments: {id: 7}}]
      delay: 0.5                          # seconds before the answer
      status: 503                         # fail as an endpoint would
      times: 2                            # only for the first two calls that fit
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from chimera.agents import yaml
from chimera.gateway.errors import ModelRejected, ModelTimeout, ModelUnavailable
from chimera.gateway.ports import ModelRequest

ECHOED = 120
CHARACTERS_PER_TOKEN = 4


class When(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a rule fits: expressions on the last message and the agent's name; tools offered; a tool's answer last."""

    last: str | None = None
    agent: str | None = None
    tools: bool | None = None
    tool_result: bool | None = None


class Call(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool call that the model asks for."""

    name: str
    arguments: dict[str, Any] = {}


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule of a script; see the module."""

    when: When = When()
    reply: str = ""
    tool_calls: tuple[Call, ...] = ()
    delay: float = 0.0
    status: int | None = None
    times: int | None = None


class ScriptedModel:
    """Answers by rules (the port `ModelProvider`). `seen` keeps the newest requests for tests to look at."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        """Answer by `rules`, in order."""
        self._rules = list(rules)
        self._used = [0] * len(self._rules)
        self._calls = 0
        self.seen: list[ModelRequest] = []

    @classmethod
    def from_file(cls, file: Path) -> "ScriptedModel":
        """Rules from a YAML file; raises `UnreadableText` or `msgspec.ValidationError` with what is wrong."""
        return cls(msgspec.convert(yaml.load(file.read_text(encoding="utf-8"), file=str(file)) or [], list[Rule]))

    async def complete(self, request: ModelRequest) -> dict[str, Any]:
        """See `ModelProvider`."""
        rule = await self._answer_to(request)
        message = self._message(rule, request)
        return {
            "id": f"chatcmpl-{self._calls}",
            "object": "chat.completion",
            "created": 0,
            "model": request.model,
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if rule.tool_calls else "stop"}],
            "usage": self._usage(request, message),
        }

    async def stream(self, request: ModelRequest) -> AsyncIterator[dict[str, Any]]:
        """See `ModelProvider`."""
        rule = await self._answer_to(request)
        message = self._message(rule, request)
        base = {
            "id": f"chatcmpl-{self._calls}",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": request.model,
        }
        if rule.tool_calls:
            calls = [{"index": index, **call} for index, call in enumerate(message["tool_calls"])]
            yield {**base, "choices": [{"index": 0, "delta": {"role": "assistant", "tool_calls": calls}}]}
        for word in re.findall(r"\S+\s*|\s+", message["content"] or ""):
            yield {**base, "choices": [{"index": 0, "delta": {"role": "assistant", "content": word}}]}
        reason = "tool_calls" if rule.tool_calls else "stop"
        yield {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
        yield {**base, "choices": [], "usage": self._usage(request, message)}

    async def aclose(self) -> None:
        """See `ModelProvider`."""

    async def _answer_to(self, request: ModelRequest) -> Rule:
        self._calls += 1
        self.seen = [*self.seen[-99:], request]
        rule = self._rule(request)
        if rule.delay:
            await asyncio.sleep(min(rule.delay, request.deadline))
            if rule.delay >= request.deadline:
                raise ModelTimeout("the scripted model did not answer in time")
        if rule.status is not None:
            if rule.status in (408, 409, 429) or rule.status >= 500:
                raise ModelUnavailable(f"the scripted model answered {rule.status}")
            raise ModelRejected(f"the scripted model answered {rule.status}")
        return rule

    def _rule(self, request: ModelRequest) -> Rule:
        last = _last(request.body)
        for index, rule in enumerate(self._rules):
            if rule.times is not None and self._used[index] >= rule.times:
                continue
            if _fits(rule.when, request, last):
                self._used[index] += 1
                return rule
        text = last["content"] if isinstance(last.get("content"), str) else ""
        return Rule(reply=f"You said: {text[:ECHOED]}")

    def _message(self, rule: Rule, request: ModelRequest) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": rule.reply}
        if rule.tool_calls:
            message["content"] = rule.reply or None
            message["tool_calls"] = [
                {
                    "id": f"call_{self._calls}_{index}",
                    "type": "function",
                    "function": {"name": call.name, "arguments": msgspec.json.encode(call.arguments).decode()},
                }
                for index, call in enumerate(rule.tool_calls)
            ]
        return message

    @staticmethod
    def _usage(request: ModelRequest, message: dict[str, Any]) -> dict[str, int]:
        asked = sum(len(str(one.get("content") or "")) for one in request.body.get("messages", ()))
        prompt, said = asked // CHARACTERS_PER_TOKEN + 1, len(message["content"] or "") // CHARACTERS_PER_TOKEN + 1
        return {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said}


def _last(body: dict[str, Any]) -> dict[str, Any]:
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else {}
    return last if isinstance(last, dict) else {}


def _fits(when: When, request: ModelRequest, last: dict[str, Any]) -> bool:
    content = last.get("content")
    if when.last is not None and not re.search(when.last, content if isinstance(content, str) else ""):
        return False
    if when.agent is not None and not re.search(when.agent, request.agent):
        return False
    if when.tools is not None and when.tools != bool(request.body.get("tools")):
        return False
    return when.tool_result is None or when.tool_result == (last.get("role") == "tool")
