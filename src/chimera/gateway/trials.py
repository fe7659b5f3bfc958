"""The model of a trial: it says what the test's case says, one answer for each question, and nobody is asked or paid.

The answers are those of the call from outside: where an integration test's agent calls others, they go on in the same
script. A question that it has no answer for is the test's fault or the agent's. The framework is told, and the call
fails in the end, whatever the agent made of that.
"""

from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from chimera.delivery.trials.asking import TrialRequest
from chimera.gateway.errors import ScriptOver
from chimera.kernel.ids import is_environment
from chimera_host.contract.trial import ModelAnswer, Trial

MODEL = "scripted"


class Script:
    """What the model says in one call. `misfit` is why it had nothing to say."""

    def __init__(self, request: TrialRequest, agent: str) -> None:
        """Say what `request` says, for a call of `agent`."""
        self._says = request.says
        self._agent = agent
        self._said = 0
        self.misfit: ScriptOver | None = None

    def next(self) -> ModelAnswer:
        """The answer to the next question. Raises `ScriptOver`."""
        if self._said == len(self._says):
            self.misfit = ScriptOver(
                f"agent {self._agent} asked its model {self._said + 1} times, and the test answers {self._said}",
                next_step="add an answer under `answers` of the test, or let it use the real model",
                agent=self._agent,
            )
            raise self.misfit
        self._said += 1
        return self._says[self._said - 1]

    def complete(self) -> dict[str, Any]:
        """It as a whole chat completion, which costs nothing."""
        answer = self.next()
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.tools:
            message["tool_calls"] = self._asked(answer)
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if answer.tools else "stop"}
        return {**self._frame("chat.completion"), "choices": [choice], "usage": _NOTHING}

    async def stream(self) -> AsyncGenerator[dict[str, Any], None]:
        """It as chunks."""
        answer = self.next()
        frame = self._frame("chat.completion.chunk")
        delta: dict[str, Any] = {"role": "assistant", "content": answer.text or ""}
        if answer.tools:
            delta["tool_calls"] = [{"index": place, **one} for place, one in enumerate(self._asked(answer))]
        yield {**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        reason = "tool_calls" if answer.tools else "stop"
        yield {**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
        yield {**frame, "choices": [], "usage": _NOTHING}

    def check(self) -> None:
        """Raise `ScriptOver` if it had nothing to say once."""
        if self.misfit is not None:
            raise self.misfit

    def _frame(self, kind: str) -> dict[str, Any]:
        return {"id": f"chatcmpl-scripted-{self._said}", "object": kind, "created": 0, "model": MODEL}

    def _asked(self, answer: ModelAnswer) -> list[dict[str, Any]]:
        return [
            {
                "id": f"call_{self._said}_{place}",
                "type": "function",
                "function": {"name": one.name, "arguments": msgspec.json.encode(one.arguments).decode()},
            }
            for place, one in enumerate(answer.tools)
        ]


_NOTHING = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def script_of(request: TrialRequest | None, tenant: str, agent: str) -> Script | None:
    """The model of a call that is a trial with a scripted model; trials are made in environments alone."""
    if request is None or not is_environment(tenant) or request.model != "scripted":
        return None
    return Script(request, agent)


def trial_of(request: TrialRequest | None, tenant: str) -> Trial | None:
    """What a host is told of a trial."""
    return request.trial if request is not None and is_environment(tenant) else None
