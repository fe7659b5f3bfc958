"""What a model call may use at the most, and what it did use: the estimate before, the account after.

Before: a token for every three bytes of what is sent (English takes four, other scripts about three), and the longest
answer that the request allows. After: what the provider says; where it doesn't, a token for four characters. A call
that ended without an answer after it was sent (its time was up, its caller went away) has used all that it reserved:
the provider may have done the work, and charges for it. One that the provider refused has used nothing.

A provider may count more than was reserved; the purse then owes it, and takes it from its next slice.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Struct

BYTES_PER_TOKEN = 3
CHARACTERS_PER_TOKEN = 4

_encode = msgspec.json.Encoder(enc_hook=str).encode


class Tokens(Struct, frozen=True, kw_only=True):
    """Tokens of a model call: of what was sent, and of what was answered."""

    prompt: int = 0
    completion: int = 0


def reserve(body: dict[str, Any], *, answer_tokens: int) -> Tokens:
    """The most that a chat completion may use; `answer_tokens` is its answer where the body sets no bound."""
    sent = len(_encode([body.get("messages"), body.get("tools")]))
    bound = body.get("max_completion_tokens") or body.get("max_tokens")
    answers = body.get("n")
    longest = bound if isinstance(bound, int) and bound > 0 else answer_tokens
    times = answers if isinstance(answers, int) and answers > 1 else 1
    return Tokens(prompt=sent // BYTES_PER_TOKEN + 1, completion=longest * times)


@dataclass(slots=True)
class Spending:
    """One attempt of a model call: `sent` from when the provider may have it, `refused` where it said no."""

    body: dict[str, Any]
    sent: bool = False
    refused: bool = False
    answered: bool = False
    characters: int = 0
    usage: dict[str, Any] = field(default_factory=dict)

    def heard(self, chunk: dict[str, Any]) -> None:
        """A chunk of the answer, or all of it."""
        self.answered = True
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self.usage = usage
        self.characters += _size(chunk)

    def used(self, reserved: Tokens) -> Tokens | None:
        """What the attempt used; None where that is nothing."""
        if self.answered:
            return Tokens(prompt=self._said("prompt_tokens", self._sent()), completion=self._completion())
        return reserved if self.sent and not self.refused else None

    def _completion(self) -> int:
        return self._said("completion_tokens", self.characters // CHARACTERS_PER_TOKEN + 1)

    def _sent(self) -> int:
        return len(str(self.body.get("messages"))) // CHARACTERS_PER_TOKEN + 1

    def _said(self, name: str, otherwise: int) -> int:
        said = self.usage.get(name)
        return said if isinstance(said, int) and said >= 0 else otherwise


def _size(chunk: dict[str, Any]) -> int:
    """Characters of an answer or a chunk of one, tool calls included."""
    try:
        choice = chunk["choices"][0]
        said = choice.get("message") or choice.get("delta") or {}
        return len(said.get("content") or "") + (len(str(said["tool_calls"])) if said.get("tool_calls") else 0)
    except (KeyError, IndexError, TypeError, AttributeError):
        return 0
